"""The declared peers of a log on disk: DIR/peers.json and the two policies made from it (`audit.peers`).

    with changing(DIR) as files:                              one process at a time; `serve` may run meanwhile
        files.write(add_peer(files.peers, peer, files.log_keys))

First peers.json, then DIR/policy, then DIR/auditors, each atomically. What a crash leaves in between is made whole by
the next `peer add` or `peer remove`, and `policy lint` says so. Files that somebody wrote by hand are left alone.
`serve` reads policies when it starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from audit.directory import AUDITORS_FILE, POLICY_FILE, POLICY_MODE, locked, parse_policy_file
from audit.errors import Refused
from audit.peers import MAX_PEERS_SIZE, NOBODY, Peers, is_generated, parse_peers, render
from audit.peers import format_peers as format_declaration
from verifier.errors import Usage
from verifier.files import read_bounded, write_atomic
from verifier.note import VerifierKey, format_vkey
from verifier.policy import AUDITORS, MAX_POLICY_SIZE, WITNESSES, Kind, Log, Policy
from verifier.record import NamedTuple

PEERS_FILE = "peers.json"
PEERS_LOCK = "peers.lock"
KINDS: tuple[tuple[str, Kind], ...] = ((POLICY_FILE, WITNESSES), (AUDITORS_FILE, AUDITORS))


class Files(NamedTuple):
    """What a log's directory says of its peers. The log's own lines, several during a rotation, stay as they are."""

    directory: str
    peers: Peers
    policies: tuple[bytes, bytes]
    logs: tuple[Log, ...]

    @property
    def log_keys(self) -> tuple[VerifierKey, ...]:
        return tuple([log.key for log in self.logs])

    @property
    def operators(self) -> dict[str, str]:
        """Who runs which cosigner of the policies, as declared; nothing is declared of public witnesses."""
        return {peer.name: peer.operator for peer in self.peers.peers if peer.operator is not None}

    def parse(self) -> tuple[Policy, Policy]:
        """Both policies."""
        paths = [os.path.join(self.directory, name) for name, _ in KINDS]
        witnesses, auditors = self.policies
        return parse_policy_file(witnesses, WITNESSES, paths[0]), parse_policy_file(auditors, AUDITORS, paths[1])

    def with_log(self, key: VerifierKey) -> tuple[bytes, bytes]:
        """Both policies, with a `log` line for this key too; what somebody wrote by hand stays as it is otherwise."""
        log = Log(key, self.logs[-1].url)
        if all(map(is_generated, self.policies)) and os.path.lexists(os.path.join(self.directory, PEERS_FILE)):
            return render(self.peers, self.logs if key in self.log_keys else (*self.logs, log))
        witnesses, auditors = [
            data if key in policy.log_keys else _with_line(data, log)
            for data, policy in zip(self.policies, self.parse(), strict=True)
        ]
        return witnesses, auditors

    def check_not_by_hand(self) -> None:
        """Both policy files may be replaced."""
        for (name, _), data in zip(KINDS, self.policies, strict=True):
            if not is_generated(data):
                path = os.path.join(self.directory, name)
                raise Refused(
                    f"{path} was written or changed by hand, and is not replaced: nothing was written. Go on editing "
                    f"it (`policy lint --data {self.directory}` judges it), or put `log VKEY` and `quorum none` alone "
                    "into both files, as `init` does, and add your peers again"
                )

    def write(self, peers: Peers) -> tuple[bytes, bytes]:
        """Puts the declaration and the policies made from it on disk; returns the policies."""
        self.check_not_by_hand()
        made = render(peers, self.logs)
        write_atomic(os.path.join(self.directory, PEERS_FILE), format_declaration(peers), POLICY_MODE)
        for (name, _), data in zip(KINDS, made, strict=True):
            write_atomic(os.path.join(self.directory, name), data, POLICY_MODE)
        return made

    @property
    def in_step(self) -> bool:
        """Whether the policies on disk are those that the declared peers make; by hand is another matter."""
        by_hand = not all(map(is_generated, self.policies))
        return by_hand or not self.peers.peers or render(self.peers, self.logs) == self.policies


def read_files(directory: str) -> Files:
    """Declaration and policies of a log's directory."""
    policies = read_policy_file(directory, POLICY_FILE), read_policy_file(directory, AUDITORS_FILE)
    logs = parse_policy_file(policies[0], WITNESSES, os.path.join(directory, POLICY_FILE)).logs
    path = os.path.join(directory, PEERS_FILE)
    peers = parse_peers(read_bounded(path, MAX_PEERS_SIZE, PEERS_FILE)) if os.path.lexists(path) else NOBODY
    return Files(directory, peers, policies, logs)


@contextmanager
def changing(directory: str) -> Iterator[Files]:
    """The files, for one process that may write them."""
    read_policy_file(directory, POLICY_FILE)  # before a lock file is made where no log is
    with locked(directory, PEERS_LOCK):
        yield read_files(directory)


def _with_line(policy: bytes, log: Log) -> bytes:
    """The policy file with one more log, below its last one."""
    lines = policy.split(b"\n")
    at = max([n for n, line in enumerate(lines) if line.split()[:1] == [b"log"]])
    lines.insert(at + 1, f"log {format_vkey(log.key)} {log.url}".rstrip().encode("utf-8"))
    return b"\n".join(lines)


def read_policy_file(directory: str, name: str) -> bytes:
    path = os.path.join(directory, name)
    if not os.path.lexists(path):
        raise Usage(
            f"{directory}: holds no log (there is no {name}); `nextcloud-audit init --data {directory}` makes one"
        )
    return read_bounded(path, MAX_POLICY_SIZE, name)
