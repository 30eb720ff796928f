"""`nextcloud-audit enrol`: give a log the owner's public key and blinding key, and see that it has logged them.

Policies come by file. The server's word is compared with them and never added to them. The client counts as enrolled,
and writes its state, once it has verified that the enrolment is in a tree that both quorums have signed.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from verifier import ed25519
from verifier.checkpoint import open_checkpoint
from verifier.client import Inclusion, Offer, Server
from verifier.commands import common
from verifier.errors import NotProven, QuorumNotMet, Usage
from verifier.home import Home
from verifier.keys import OwnerKeys, derive_keys, format_log_name, owner_root, parse_log_name
from verifier.leaf import EnrolmentLeaf, encode_leaf
from verifier.loss import open_declared
from verifier.merkle import leaf_hash, verify_inclusion
from verifier.note import VerifierKey, format_vkey
from verifier.policy import NONE, Policy, describe_quorum, fingerprint, verify_quorum
from verifier.proof import Declared
from verifier.request import Enrolment, enrolment_message
from verifier.state import LogState
from verifier.verify import FUTURE_BOUND_S
from verifier.words import escape, parse_duration

DESCRIPTION = "Enrol your keys with a log, by a one-time token that its operator gave you."
EXAMPLES = """examples:
  nextcloud-audit enrol --server https://audit.example.org --seed seed.txt --token 4f… \\
      --policy policy --auditors auditors --trust-fingerprint 3a… --trust-fingerprint 9c…"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", required=True, help="the log's address")
    common.add_seed(parser)
    parser.add_argument("--token", required=True, help="the one-time enrolment token")
    common.add_policies(parser, required=True)
    parser.add_argument(
        "--trust-fingerprint",
        metavar="HEX",
        action="append",
        default=[],
        help="the fingerprint that a policy file must have, as you were told it; once for each file",
    )
    parser.add_argument("--user", default="owner", help="your user id there (default: owner)")
    parser.add_argument("--wait", metavar="60s", default="60s", help="how long to wait for the log to publish")
    common.add_state(parser)
    common.add_json(parser)


def run(args: Namespace) -> int:
    wait_s = parse_duration(args.wait)
    server = Server(args.server)
    policy, auditors = common.read_policies(args)
    check_fingerprints(args.trust_fingerprint, policy, auditors)
    parsed = common.parse_policies(policy, auditors)
    home = common.home_of(args, args.seed)
    seed = common.read_seed(args, args.seed)  # before the offer, whose nonce does not last while somebody types
    offer = server.offer()
    log_key = check_offer(offer, parsed[0], args.log)
    if log_key.name != parse_log_name(offer.log).origin:
        check_descent(offer.log, log_key.name, server.loss(), parsed[0])
    check_known(home, offer.log)
    source = choose_source(offer, args.source)
    if args.source is None:
        common.say(f"source                {source} (the server's word: to demand one, say --source)")
    keys = derive_keys(seed, offer.log)
    root = owner_root(keys.public, keys.blinding)
    if server.enrolled(root) is None:  # else an earlier run was cut short: the log knows this root, only see it through
        server.enrol(*signed_enrolment(offer, source, args.user, args.token, keys))
    note = wait_for_inclusion(server, root, parsed, wait_s, log_key.name)
    state = LogState(offer.log, source, args.user, policy, auditors, keys.public, keys.blinding, note)
    with home.lock():
        check_known(home, offer.log)
        home.write_log(state)
    text = f"Enrolled with {escape(offer.log)} for {source}: {_by_whom(parsed)}\nThe state is {escape(home.directory)}"
    fields = {"policy": fingerprint(policy), "auditors": fingerprint(auditors), "vkey": format_vkey(log_key)}
    common.emit(args, {"log": offer.log, "source": source, "state": home.directory, **fields}, text)
    return 0


def check_fingerprints(wanted: list[str], policy: bytes, auditors: bytes) -> None:
    """The files are the ones that the user was told about, if the user was told."""
    got = [fingerprint(policy), fingerprint(auditors)]
    common.say(f"policy fingerprint    {got[0]}")
    common.say(f"auditors fingerprint  {got[1]}")
    for one in wanted:
        if one.lower() not in got:
            raise Usage(f"fingerprint: no policy file has {one}")
    if wanted and len({one.lower() for one in wanted}) != len(set(got)):
        raise Usage("fingerprint: want --trust-fingerprint for both policy files, or for none")


def check_offer(offer: Offer, policy: Policy, wanted: str | None = None) -> VerifierKey:
    """The log's key, once what the server says of itself is what the policy says of the log.

    [R] Every chain id rests on the log's name, so the server does not choose it: the log is the one that the user names
    (`--log`), else that of the policy's first line. Of a log with a new key, or a new origin after a declared loss, the
    lines of its newer keys follow that one.
    """
    first = policy.log_keys[0]
    name = wanted or format_log_name(first.name, first.public_key)
    if offer.log not in [format_log_name(key.name, key.public_key) for key in policy.log_keys]:
        raise Usage(f"log: the server says it is {offer.log} with key {offer.vkey}, which is no log of the policy")
    if offer.log != name:
        raise Usage(
            f"log: the server says it is {offer.log}, and the policy's first log line names {name}: if the log's "
            "operator tells you so too, say it with --log"
        )
    for key in policy.log_keys:
        if format_vkey(key) == offer.vkey:
            return key
    raise Usage(f"log: the server says it is {offer.log} with key {offer.vkey}, which is no log of the policy")


def check_descent(log_name: str, origin: str, declared: list[Declared], policy: Policy) -> None:
    """[R] A log under another origin than its name says has declared losses that lead there, by the old key's word.

    Two logs that one policy names are two logs all the same.
    """
    after = origin
    for one in declared:
        after = open_declared(one, after, policy.log_keys)[1].origin
    if after != parse_log_name(log_name).origin:
        raise Usage(
            f"log: the server says that {log_name} goes on as {origin}, and shows no declared loss that says so"
        )


def check_known(home: Home, log_name: str) -> None:
    """[R] One origin has one name: a log that comes with another first key is another log."""
    origin = parse_log_name(log_name).origin
    for known in home.logs():
        if known.log == log_name:
            raise Usage(f"state: it is enrolled with {log_name} already")
        if parse_log_name(known.log).origin == origin:
            raise Usage(f"log: the state knows {origin} under another key ({known.log}): this may be an impostor")


def choose_source(offer: Offer, wanted: str | None) -> str:
    if wanted is not None and wanted not in offer.sources:
        raise Usage(f"source: the log has no {wanted}, it has {', '.join(offer.sources) or 'none'}")
    if wanted is None and len(offer.sources) != 1:
        raise Usage(f"source: want one of {', '.join(offer.sources) or 'none'} with --source")
    return wanted or offer.sources[0]


def signed_enrolment(offer: Offer, source: str, user: str, token: str, keys: OwnerKeys) -> tuple[Enrolment, bytes]:
    enrolment = Enrolment(offer.log, source, user, token, offer.nonce, keys.public, keys.blinding)
    return enrolment, ed25519.load_private_key(keys.private).sign(enrolment_message(enrolment))


def wait_for_inclusion(server: Server, root: bytes, policies: tuple[Policy, Policy], wait_s: int, origin: str) -> bytes:
    """The checkpoint that holds the enrolment, verified. Asks again until then or until the time is up."""
    give_up = time.monotonic() + wait_s
    common.say("waiting until the log has published the enrolment ...")
    while True:
        answer = server.enrolled(root)
        pause, why = 1.0, "the log has not published it"
        if isinstance(answer, Inclusion):
            try:
                return verify_enrolled(answer, policies, int(time.time()), origin)
            except QuorumNotMet as error:
                why = str(error)
        elif answer is None:
            raise Usage("enrolment: the log has taken it, and does not know it any more")
        else:
            pause = answer
        if time.monotonic() + pause > give_up:
            raise NotProven("not-published", f"enrolment not proven within {wait_s} s: {why}. Run the same again")
        time.sleep(pause)


def verify_enrolled(inclusion: Inclusion, policies: tuple[Policy, Policy], now: int, origin: str) -> bytes:
    """The checkpoint, once the log signed it, both quorums cosigned it, and the enrolment is in its tree."""
    keys = [key for key in policies[0].log_keys if key.name == origin]
    note, checkpoint = open_checkpoint(inclusion.checkpoint, *keys)
    for policy in policies:
        verify_quorum(policy, note, now + FUTURE_BOUND_S)
    leaf = leaf_hash(encode_leaf(EnrolmentLeaf(inclusion.root)))
    verify_inclusion(inclusion.leaf_index, checkpoint.size, leaf, inclusion.hashes, checkpoint.root)
    return inclusion.checkpoint


def _by_whom(policies: tuple[Policy, Policy]) -> str:
    witnesses, auditors = policies
    if witnesses.quorum == NONE and auditors.quorum == NONE:
        return "nobody but the log says so (quorum none): nothing can be VERIFIED with these policies"
    if auditors.quorum == NONE:
        return f"witnesses {escape(describe_quorum(witnesses))} saw it; no auditor replays this log (quorum none)"
    seen, replayed = [escape(describe_quorum(policy)) for policy in policies]
    return f"witnesses {seen} saw it, auditors {replayed} replayed it"
