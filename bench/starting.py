"""Rows on whole processes: `nextcloud-audit verify` from a wheel, against `python -c pass` and a time-stamp's verifier.

The state is real: the first run makes it from the policies and the reader key, as a user's first run does, and every
measured run reads it, verifies and writes it again. Every process is the same clean environment's.
"""

from __future__ import annotations

import os
import subprocess
import time

from bench.dataset import VERSIONS, Data, bytes_of, path_of
from bench.environment import PEERS, Environment, Failed, clean_environment, run
from bench.measure import MS, Round, Row, at_least, at_most, explained, interleave, middle, shown, skipped
from bench.verifying import proofs_of

LIBRARIES = (
    "import argparse, enum, hashlib, hmac, json, re, typing;"
    "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey"
)
FILE, PROOF, READER, STATE = "report.odt", "report.odt.proof", "reader.json", "state"
DAYS = "30"
REQUEST = """[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[stamp]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
authorityKeyIdentifier = keyid
[tsa]
default_tsa = here
[here]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def rows(data: Data, environment: Environment, temporary: str, rounds: int) -> list[Row]:
    """Interleaved whole processes; the row on time-stamps is skipped where there is no peer."""
    name = "whole process: nextcloud-audit verify"
    directory = os.path.join(temporary, "verify")
    os.makedirs(directory)
    try:
        environment.require_wheel()
    except Failed as error:
        return [
            skipped(f"{name}, against {peer}", goal, str(error))
            for peer, goal in (("pass", "<= 4x"), ("rfc3161-client", ">= 1.75x"))
        ]
    command = prepare(data, environment, directory)
    contenders: dict[str, Round] = {
        "verify": process(command, directory),
        "bare": process([environment.python, "-c", "pass"], directory),
    }
    contenders["libraries"] = process([environment.python, "-c", LIBRARIES], directory)
    why = ""
    try:
        environment.require_peers()
        contenders["timestamp"] = process(stamp(environment, directory), directory)
    except Failed as error:
        why = str(error)
    times = interleave(rounds, **contenders)
    limit_ms = middle(times["libraries"], MS)
    alone = f"importing the standard library and cryptography as it does takes {limit_ms:.1f} ms alone"
    found = [explained(at_most(name, times["verify"], times["bare"], 4, MS, "python -c pass"), alone)]
    limit = "whole process: importing the standard library and cryptography as verify does"
    found.append(shown(limit, times["libraries"], times["bare"], MS, "python -c pass"))
    if why:
        return [*found, skipped(f"{name}, against rfc3161-client", ">= 1.75x", why)]
    against = "rfc3161-client verifying a time-stamp"
    return [*found, explained(at_least(name, times["verify"], times["timestamp"], 1.75, MS, against), alone)]


def prepare(data: Data, environment: Environment, directory: str) -> list[str]:
    """Files, keys and the state of a first run; the command that every measured run repeats."""
    file_id, proof = proofs_of(data, 1, brackets=True)[0]
    contents = {
        FILE: bytes_of(file_id, VERSIONS - 1),
        PROOF: proof,
        READER: data.reader_key,
        "policy": data.policies[0],
        "auditors": data.policies[1],
    }
    for name, content in contents.items():
        with open(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(content)
    command = [environment.command("nextcloud-audit"), "verify", FILE, "--reader", READER, "--state", STATE]
    first = [*command, "--as", path_of(file_id), "--policy", "policy", "--auditors", "auditors"]
    done = subprocess.run(first, cwd=directory, env=clean_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the first run is not VERIFIED: {done.stdout}{done.stderr}")
    return command


def process(command: list[str], directory: str) -> Round:
    """A round is one whole process, from fork to exit."""
    variables = clean_environment()

    def one_round() -> float:
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=directory, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        taken = time.perf_counter() - start
        if done.returncode:
            raise AssertionError(f"{command}: exit {done.returncode}: {done.stderr.decode()}")
        return taken

    return one_round


def stamp(environment: Environment, directory: str) -> list[str]:
    """A time-stamp of the same file by an authority that lives for this run; the command that verifies it."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        with open("openssl.cnf", "w") as file:
            file.write(REQUEST)
        with open("serial", "w") as file:
            file.write("01\n")
        _certificates()
        tool = "openssl", "ts"
        run(*tool, "-query", "-data", FILE, "-sha256", "-cert", "-config", "openssl.cnf", "-out", "query.tsq")
        run(
            *(*tool, "-reply", "-config", "openssl.cnf", "-queryfile", "query.tsq", "-signer", "stamp.pem"),
            *("-inkey", "stamp.key", "-out", "reply.tsr"),
        )
    finally:
        os.chdir(before)
    return [environment.python, os.path.join(PEERS, "verify_timestamp.py"), FILE, "reply.tsr", "root.pem"]


def _certificates() -> None:
    new_key = "-newkey", "rsa:2048", "-nodes", "-config", "openssl.cnf"
    run(
        *("openssl", "req", "-x509", *new_key, "-keyout", "root.key", "-out", "root.pem", "-days", DAYS),
        *("-subj", "/CN=root of this run", "-extensions", "root"),
    )
    run(
        "openssl",
        "req",
        "-new",
        *new_key,
        "-keyout",
        "stamp.key",
        "-out",
        "stamp.csr",
        "-subj",
        "/CN=stamps of this run",
    )
    run(
        *("openssl", "x509", "-req", "-in", "stamp.csr", "-CA", "root.pem", "-CAkey", "root.key", "-out", "stamp.pem"),
        *("-set_serial", "2", "-days", DAYS, "-extfile", "openssl.cnf", "-extensions", "stamp"),
    )
