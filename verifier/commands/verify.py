"""`nextcloud-audit verify`: files and proofs against what the user holds. No socket is ever opened.

What is asked comes from the user alone: the path or file id with `--as`, or what the state knows of the local file. The
proof answers, and never says what the question was. Read, verify and write happen under the state's lock.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from functools import lru_cache

from verifier import ed25519, outcome
from verifier.checkpoint import parse_checkpoint_unverified
from verifier.commands import common
from verifier.digest import hash_file
from verifier.encoding import MAX_U64, decode_base64
from verifier.entry import Content
from verifier.errors import Error, NotProven, Usage
from verifier.files import read_bounded
from verifier.home import Home
from verifier.keys import ReaderKey, derive_keys, format_log_name, parse_log_name
from verifier.note import VerifierKey, parse_note
from verifier.policy import Policy
from verifier.proof import MAX_PROOF_SIZE, Proof, format_proof, parse_proof
from verifier.record import NamedTuple
from verifier.report import exit_code, format_report, report_data, shown_path
from verifier.state import FileState, LocalState, LogState, PathState
from verifier.verdict import DEFAULT_MAX_AGE_S, Memory, Question, Report, Trust
from verifier.verify import forked, verify
from verifier.words import escape, parse_duration, parse_remote, parse_when

DESCRIPTION = """Is FILE the current version of what was logged? Offline; a proof is fetched with `prove`.

exit codes: 0 VERIFIED, 1 CHANGED, 2 NOT PROVEN, 3 FORK, 4 malformed input or usage,
            70 a fault of the program itself (which says nothing about the file)"""
EXAMPLES = """examples:
  nextcloud-audit verify minutes.txt --seed seed.txt --as Board/minutes.txt
  nextcloud-audit verify minutes.txt --seed seed.txt           the state knows its path by now
  nextcloud-audit verify *.pdf --reader reader.json            each with its own FILE.proof beside it
  nextcloud-audit verify old.pdf --seed seed.txt --as-of proof a proof that was kept for years
  nextcloud-audit verify plan.odt --owner-key KEY --source ... --as 584 --policy policy --auditors auditors
                                                               shared with you, and sealed by its owner (`seed owner`)
  nextcloud-audit verify --evidence fork.json --log VKEY       does it convict anybody? 3 yes, 2 no"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="*")
    parser.add_argument("--proof", metavar="FILE", help="its proof (default: FILE.proof)")
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--seed", metavar="FILE", help="the owner's seed file")
    keys.add_argument("--reader", metavar="FILE", help="a reader key, as the owner exports it")
    keys.add_argument("--owner-key", metavar="KEY", help="for other people's files: their public key, in base64")
    parser.add_argument("--as", dest="remote", metavar="REMOTE|ID", help="the path in the source, or the file id")
    common.add_state(parser)
    common.add_policies(parser, required=False)
    parser.add_argument(
        "--replace-policy", action="store_true", help="pin these policies instead: the log's operator gave you new ones"
    )
    parser.add_argument("--max-age", metavar="7d", help="how long ago the proof may have been the newest (7d)")
    parser.add_argument("--as-of", metavar="TIME|proof", help="ask about then instead of now; remembers nothing")
    common.add_other_file(parser)
    parser.add_argument("--require-seal", action="store_true", help="the owner's device must have sealed this version")
    parser.add_argument("--passphrase-file", metavar="FILE", help="for a first use with a seed under a passphrase")
    parser.add_argument("--hashes", action="store_true", help="show hashes as well")
    evidence = parser.add_argument_group("evidence against a log (SPEC 9.1)")
    evidence.add_argument("--evidence", metavar="FILE", help="what a file proves against the log whose key --log gives")
    evidence.add_argument("--witness", metavar="VKEY", action="append", help="a cosigner's key, for a rollback")
    common.add_json(parser)


def run(args: Namespace) -> int:
    """Every file gets its answer, whatever happens to the others. The worst one is the exit code."""
    if args.evidence:
        from verifier.commands import evidence

        return evidence.run(args)
    if not args.files or args.witness:
        raise Usage("want FILE; --witness goes with --evidence FILE")
    if args.proof and len(args.files) > 1:
        raise Usage("proof: --proof goes with one FILE; several have FILE.proof beside each")
    if (args.remote or args.other_file) and len(args.files) > 1:
        raise Usage("as: --as and --other-file go with one FILE")
    session = Session(args, int(time.time()))
    pairs = [(name, args.proof or f"{name}.proof") for name in args.files]
    if len(pairs) > 1:  # older trees first: in that order they were seen, whatever the order of the names
        pairs.sort(key=lambda pair: _stated_size(pair[1]))
    return outcome.worst([_answer(args, session, *pair) for pair in pairs])


def _stated_size(proof_name: str) -> int:
    """The size of the tree that a proof speaks of. What is no proof comes last, and is said when its turn comes."""
    try:
        return tree_of(read_proof(proof_name).checkpoint).size
    except Error:
        return MAX_U64


def _answer(args: Namespace, session: Session, name: str, proof_name: str) -> int:
    try:
        return session.verify_file(name, proof_name)
    except BrokenPipeError:
        raise
    except Exception as error:
        return _tell(args, name, error)


def _tell(args: Namespace, name: str, error: Exception) -> int:
    if not isinstance(error, Error):
        import traceback

        traceback.print_exc()
    if args.json:
        print(outcome.format_json(outcome.error_data(error, name)))
    else:
        print(outcome.format_error(error, name), file=sys.stderr)
    return outcome.error_code(error)


class Asked(NamedTuple):
    """Which file is meant, by the user's own word: a path or a file id, and whether it was said just now."""

    path: str | None
    file_id: int | None
    by_word: bool


class Tree(NamedTuple):
    """Which tree a note speaks of, by its own word."""

    origin: str
    size: int


class Pins:
    """What one run has pinned of a log: the state's pin as it was found, and the first note of each tree since."""

    def __init__(self) -> None:
        self.start: bytes | None = None
        self.notes: dict[Tree, bytes] = {}
        self.times: dict[Tree, dict[VerifierKey, int]] = {}  # of the cosigners, once there are trees to compare


class Session:
    """One run of `verify`: the options, the state, and what this run has pinned so far."""

    def __init__(self, args: Namespace, now: int) -> None:
        self.args, self.now = args, now
        self.reader: ReaderKey | None = common.read_reader(args.reader) if args.reader else None
        if args.seed:
            common.warn_of_seed(args.seed)
        elif not args.reader and not args.owner_key:
            raise Usage("keys: want --seed FILE, --reader FILE or --owner-key KEY")
        self.home: Home = common.home_of(args, args.seed, args.reader)
        self.as_of = "proof" if args.as_of == "proof" else None if args.as_of is None else parse_when(args.as_of)
        self.max_age_s = parse_duration(args.max_age) if args.max_age else DEFAULT_MAX_AGE_S
        self.trusts: dict[tuple[bytes, bytes, str], Trust] = {}
        self.pins: dict[str, Pins] = {}

    def verify_file(self, name: str, proof_name: str) -> int:
        """Verifies one file and prints what came of it."""
        content = hash_file(name)
        proof = read_proof(proof_name)
        if self.as_of is not None:
            return self._verify(name, content, proof)
        with self.home.lock():
            return self._verify(name, content, proof)

    def _verify(self, name: str, content: Content, proof: Proof) -> int:
        local = local_path(name)
        log = self._log(local)
        asked = self._asked(log, local, name)
        trust = self._trust(log)
        question = Question(
            *(self.now, content, asked.path, asked.file_id, self.max_age_s, self.as_of, self.args.require_seal)
        )
        memory = self._memory(log, proof, asked)
        report = self._compare(verify(proof, trust, question, memory), log, trust)
        codes, evidence = [exit_code(report)], None
        try:
            evidence = self._keep_evidence(report)
        except Exception as error:
            codes.append(_tell(self.args, name, error))
        self._print(report, trust, name, evidence)
        try:
            self._remember(log, report, asked, local, memory.checkpoint)
        except Exception as error:  # the verdict stands, and is printed
            codes.append(_tell(self.args, name, error))
        return outcome.worst(codes)

    # -- the question -------------------------------------------------------------------------------------------

    def _log(self, local: str | None) -> LogState:
        args, reader = self.args, self.reader
        wanted = reader.log if reader else args.log
        log = common.choose_log(
            self.home, wanted, lambda log: local is not None and self.home.read_local(log, local) is not None
        )
        if log is None:
            return first_use(args, reader)
        if args.replace_policy and self.as_of is None:
            log = common.replace_policies(self.home, log, *common.read_policies(args))
        elif args.policy or args.auditors or args.replace_policy:
            common.check_same_policies(log, *common.read_policies(args))
        given = reader and (reader.source, reader.owner, reader.blinding)
        if given and given != (log.source, log.owner, log.blinding):
            raise Usage("reader key: it is not the one that this state was started with: give it a state of its own")
        if args.owner_key and owner_key_of(args) != log.owner:
            raise Usage("owner key: it is not the one that this state was started with: give it a state of its own")
        if args.source and args.source != log.source:
            raise Usage(f"source: got {args.source}, the state has pinned {log.source}")
        return log

    def _asked(self, log: LogState, local: str | None, name: str) -> Asked:
        """[R] A proof never says which file it should have been."""
        if self.args.remote:
            path, file_id = parse_remote(self.args.remote)
            return Asked(path, file_id, True)
        known = self.home.read_local(log, local) if local is not None else None
        if known is None or known.source != log.source:
            raise Usage(f"which file is {escape(name)}? say its path in the source, or its file id, with --as, once")
        return Asked(known.path, None, False)

    def _trust(self, log: LogState) -> Trust:
        key = log.policy, log.auditors, log.log
        if key not in self.trusts:
            self.trusts[key] = common.trust_of(log)
        return self.trusts[key]

    def _memory(self, log: LogState, proof: Proof, asked: Asked) -> Memory:
        memory = read_memory(self.home, log, proof.file_id, asked.path, self.args.other_file)
        return memory._replace(checkpoint=self._pin_for(log, proof))

    def _pin_for(self, log: LogState, proof: Proof) -> bytes | None:
        """The pin to start from: the state's as this run found it, so that proofs of one time can be verified together.

        A tree of the same size that this run has pinned goes first, since only equal sizes show a fork at once.
        [R] Once this run has pinned a tree of another origin, it is the state's newest: what a declared loss says of
        the trees before it is judged by the last one that was seen.
        """
        own, tree = self.pins.setdefault(log.log, Pins()), tree_of(proof.checkpoint)
        if any(known.origin != tree.origin for known in own.notes):
            return log.checkpoint
        if log.checkpoint not in own.notes.values():  # the run begins, or another process has pinned meanwhile
            own.start = log.checkpoint
        return own.notes.get(tree, own.start)

    def _compare(self, report: Report, log: LogState, trust: Trust) -> Report:
        """[R] FORK where a cosigner signed one of this run's trees after a bigger one (SPEC 10.5)."""
        own, note = self.pins[log.log], report.proof.checkpoint
        tree = tree_of(note)
        others = [known for known in own.notes if known.origin == tree.origin and known.size != tree.size]
        if not report.pins_checkpoint or not others:
            return report
        from verifier.seen import cosigned_at, rolled_back

        times = cosigned_at(trust, note)
        for known in others:
            if known not in own.times:
                own.times[known] = cosigned_at(trust, own.notes[known])
            small, big = (own.times[known], times) if known.size < tree.size else (times, own.times[known])
            if any(time > big.get(key, time) for key, time in small.items()):
                fork = rolled_back(self.now, trust, own.notes[known], note)
                if fork is not None:
                    return forked(report, fork)
        own.times.setdefault(tree, times)
        return report

    # -- the answer ---------------------------------------------------------------------------------------------

    def _remember(self, log: LogState, report: Report, asked: Asked, local: str | None, followed: bytes | None) -> None:
        """What the report says may be remembered; as of a time, that is nothing."""
        if report.pins_checkpoint:
            self.pins[log.log].notes.setdefault(tree_of(report.proof.checkpoint), report.proof.checkpoint)
            pin_checkpoint(self.home, log, report, followed)
        if report.pins_chain:
            pin_chain(self.home, log, report, asked.path)
            if asked.by_word and asked.path is not None and local is not None:
                self.home.write_local(log, LocalState(local, log.source, asked.path))

    def _keep_evidence(self, report: Report) -> str | None:
        return None if report.evidence is None else keep_evidence(self.home, report.evidence, self.now)

    def _print(self, report: Report, trust: Trust, name: str, evidence: str | None) -> None:
        if self.args.json:
            data = report_data(report, trust, name)
            if evidence is not None:
                data["evidence"] = evidence
            print(outcome.format_json(data))
            return
        text = format_report(report, trust, name, hashes=self.args.hashes)
        if evidence is not None:
            text += f"  evidence     written to {escape(evidence)}: keep it, and show it to others\n"
        print(text, end="" if len(self.args.files) == 1 else "\n")


# -- pieces that other commands use as well ---------------------------------------------------------------------


def read_proof(path: str) -> Proof:
    """A proof file. That there is none is NOT PROVEN, not a mistake in the command."""
    if not os.path.lexists(path):
        raise NotProven("no-proof", f"there is no proof {path!r}: fetch it with `nextcloud-audit prove`")
    return parse_once(read_bounded(path, MAX_PROOF_SIZE, "proof"))


# The stored proof is most often the very one that is given. Nobody changes the lists in a Proof.
parse_once = lru_cache(maxsize=1)(parse_proof)


def local_path(name: str) -> str | None:
    """The absolute real path of a local file, or None where it is not UTF-8: then nothing is remembered of it."""
    path = os.path.realpath(name)
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return path


@lru_cache(maxsize=8)  # asked for the proof's and for the pinned one, before and after verifying
def tree_of(note: bytes) -> Tree:
    """What a note states. Who trusts it has verified the note, or compares no more than names and numbers."""
    checkpoint = parse_checkpoint_unverified(parse_note(note).text)
    return Tree(checkpoint.origin, checkpoint.size)


def read_memory(home: Home, log: LogState, file_id: int, path: str | None, other_file: bool = False) -> Memory:
    """What the state holds about a file and the path under which it is asked for, unless that is another file now."""
    file = home.read_file(log, file_id)
    known = home.read_path(log, path) if path is not None else None
    stored = parse_once(file.proof) if file is not None and file.proof is not None else None
    if known is None or other_file:
        return Memory(log.checkpoint, stored)
    other = file if known.file_id == file_id else home.read_file(log, known.file_id)
    chain = parse_once(other.proof) if other is not None and other.proof is not None else None
    return Memory(log.checkpoint, stored, known.file_id, chain)


def pin_checkpoint(home: Home, log: LogState, report: Report, followed: bytes | None) -> None:
    """The newest tree stays. Of one size, the note seen first: its earlier times show more lies than later ones.

    That of another origin replaces it where step 5 has shown that this log goes on there, from the very note that the
    state has now (SPEC 6.5): `followed` is the one that step 5 looked at.
    """
    note, pinned = report.proof.checkpoint, log.checkpoint
    if pinned is not None:
        tree, known = tree_of(note), tree_of(pinned)
        if not (tree.size > known.size if tree.origin == known.origin else followed == pinned):
            return
    home.write_log(log._replace(checkpoint=note))


def pin_chain(home: Home, log: LogState, report: Report, asked_path: str | None) -> None:
    """Remembers a VERIFIED proof, and the path it was asked for. A path that nobody asked for is not learnt from it."""
    proof = report.proof
    data = format_proof(proof)
    if len(data) <= MAX_PROOF_SIZE:
        home.write_file(log, FileState(log.source, proof.file_id, shown_path(report), data))
    else:
        common.warn(f"file {proof.file_id}: its whole proof has {len(data)} bytes, too many to be remembered")
    if asked_path is not None:
        home.write_path(log, PathState(log.source, asked_path, proof.file_id))


def keep_evidence(home: Home, evidence: dict[str, object], now: int) -> str:
    """Writes the evidence of a fork beside the state and returns where."""
    from verifier.evidence import format_evidence

    return home.write_evidence(format_evidence(evidence), now)


def check_first_key(log_name: str, policy: Policy) -> None:
    """[R] The key in the log's name is one of the policy's (SPEC 8.1). The name is pinned then, and keys may follow."""
    if log_name not in [format_log_name(key.name, key.public_key) for key in policy.log_keys]:
        raise Usage(
            f"log: the policy does not name the first key of {log_name}: is it that log's? After a change of the log's "
            "key a first use wants a policy with both keys, as `policy export` writes it"
        )


def first_use(args: Namespace, reader: ReaderKey | None) -> LogState:
    """A state in the making: everything comes from the user, by file or by hand. Written once a checkpoint holds."""
    policy, auditors = common.read_policies(args)
    witnesses, _ = common.parse_policies(policy, auditors)
    if reader:
        check_first_key(reader.log, witnesses)
        return LogState(reader.log, reader.source, None, policy, auditors, reader.owner, reader.blinding, None)
    if not args.source:
        raise Usage("source: want --source ID, since the state does not know it yet")
    if args.log:
        log_name = args.log
        parse_log_name(log_name)
        check_first_key(log_name, witnesses)
    elif len(witnesses.logs) == 1:
        key = witnesses.logs[0].key
        log_name = format_log_name(key.name, key.public_key)
    else:
        raise Usage("log: the policy names several, want one with --log")
    if args.owner_key:
        return LogState(log_name, args.source, None, policy, auditors, owner_key_of(args), None, None)
    keys = derive_keys(common.read_seed(args, args.seed), log_name)
    return LogState(log_name, args.source, None, policy, auditors, keys.public, keys.blinding, None)


def owner_key_of(args: Namespace) -> bytes:
    key = decode_base64(args.owner_key, "owner key", size=ed25519.KEY_SIZE)
    return ed25519.check_public_key(key, "owner key")
