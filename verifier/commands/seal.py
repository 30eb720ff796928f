"""`nextcloud-audit seal`: sign that this device has checked these bytes, and see the seal into the log.

A seal is signed for a published state whose proof passes everything except what the seal itself mends: the taints that
the user names, one by one. It counts once a later proof shows it, and that is waited for.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from verifier import ed25519
from verifier.chain import Chain, open_step, seal_message
from verifier.client import Server, Signer
from verifier.commands import common
from verifier.commands.prove import fetch, signer_of
from verifier.commands.verify import keep_evidence, local_path, pin_chain, pin_checkpoint, read_memory
from verifier.digest import hash_file
from verifier.entry import MAX_LISTED, Content, Seal, Seen, Taint, TaintKind, encode_seal_body
from verifier.errors import NotProven, Usage
from verifier.files import write_atomic
from verifier.home import Home
from verifier.outcome import format_json
from verifier.proof import Proof, format_proof
from verifier.report import exit_code, format_report, report_data
from verifier.state import LocalState, LogState
from verifier.verdict import Question, Report, Verdict
from verifier.verify import verify
from verifier.words import escape, parse_duration, parse_remote

DESCRIPTION = "Sign with your seed that this device has checked the bytes of FILE, and log that."
EXAMPLES = """examples:
  nextcloud-audit seal minutes.txt --server https://audit.example.org --seed seed.txt
  nextcloud-audit seal minutes.txt --server ... --seed seed.txt --accept 3     I know of step 3, and it is right
  nextcloud-audit seal minutes.txt --server ... --seed seed.txt --accept loss  the server declared leaves lost: I know,
                                                                               and give up what I saw of this file"""

PAUSE_S = 1.0
LOSS = "loss"  # how a declared loss is accepted
SHORT_ID = 16  # hex digits by which an earlier chain is named in --accept


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file whose bytes you vouch for")
    parser.add_argument("--server", metavar="URL", required=True, help="the log's address")
    common.add_seed(parser)
    parser.add_argument("--as", dest="remote", metavar="REMOTE|ID", help="the path in the source, or the file id")
    parser.add_argument(
        "--accept",
        metavar="SEQ|loss",
        action="append",
        default=[],
        help="a step that stands against the history, or what the log has declared lost; repeat",
    )
    parser.add_argument("-o", "--output", metavar="FILE.proof", help="write the proof that shows the seal")
    common.add_other_file(parser)
    parser.add_argument("--wait", metavar="60s", default="60s", help="how long to wait for the log to publish")
    common.add_state(parser)
    common.add_json(parser)


class Sealing:
    """One run: the state, the server, and what is asked about which file."""

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.server = Server(args.server)
        self.home: Home = common.home_of(args, args.seed)
        self.content: Content = hash_file(args.file)
        self.local = local_path(args.file)
        self.log: LogState = common.enrolled_log(self.home, args.log)
        self.path, self.file_id = self._asked()
        self.signer: Signer = signer_of(self.log, common.read_seed(args, args.seed))
        self.trust = common.trust_of(self.log)

    def _asked(self) -> tuple[str | None, int | None]:
        if self.args.remote:
            return parse_remote(self.args.remote)
        known = self.home.read_local(self.log, self.local) if self.local is not None else None
        if known is None:
            raise Usage(f"which file is {escape(self.args.file)}? say its path in the source with --as, once")
        return known.path, None

    def look(self, mends: frozenset[tuple[bytes, int]] = frozenset()) -> Report:
        """Fetches a proof and verifies it against the file and the state, which takes what it may."""
        proof = fetch(self.server, self.signer, self.home, self.log, self.path, self.file_id, full=False)
        return self.judge(proof, mends)

    def stored(self, file_id: int) -> Proof | None:
        """The last whole proof of a file that was VERIFIED here."""
        return read_memory(self.home, self.log, file_id, self.path).chain

    def judge(self, proof: Proof, mends: frozenset[tuple[bytes, int]], mends_loss: bool = False) -> Report:
        with self.home.lock():
            log = self.log = self.home.read_log(self.log.log) or self.log
            memory = read_memory(self.home, log, proof.file_id, self.path, self.args.other_file)
            asked = Question(int(time.time()), self.content, self.path, self.file_id)
            question = asked._replace(mends=mends, mends_loss=mends_loss)
            report = verify(proof, self.trust, question, memory)
            if report.evidence is not None:
                common.say(f"evidence written to {keep_evidence(self.home, report.evidence, question.now)}")
            if report.pins_checkpoint:
                pin_checkpoint(self.home, log, report, memory.checkpoint)
                self.log = self.home.read_log(log.log) or log
            if report.pins_chain:
                self._remember(report)
        return report

    def _remember(self, report: Report) -> None:
        pin_chain(self.home, self.log, report, self.path)
        if self.args.remote and self.path is not None and self.local is not None:
            self.home.write_local(self.log, LocalState(self.local, self.log.source, self.path))


def run(args: Namespace) -> int:
    wait_s = parse_duration(args.wait)
    sealing = Sealing(args)
    report = sealing.look()
    accepts_loss = LOSS in args.accept
    if accepts_loss and report.proof.loss is None:
        raise Usage(f"accept: this log has declared no loss, so there is no {LOSS!r} to accept")
    accepts = choose_accepted(report.chain, [name for name in args.accept if name != LOSS])
    warn_of_loss(sealing, report, accepts_loss)
    if accepts_loss and has_lost_what_was_seen(sealing, report):
        report = give_up(sealing, report, wait_s)
    if accepts or accepts_loss:
        report = sealing.judge(report.proof, frozenset(accepts), accepts_loss)
    if report.verdict is not Verdict.VERIFIED or report.chain is None:
        return _print(args, sealing, report, None)
    while True:  # one seal accepts MAX_LISTED at most, so a very busy file wants several
        report, seq = hand_in(sealing, sign_seal(report, accepts[:MAX_LISTED], sealing.signer), report.proof, wait_s)
        accepts = accepts[MAX_LISTED:]
        if not accepts:
            break
        report = sealing.judge(report.proof, frozenset(accepts), accepts_loss)
        if report.verdict is not Verdict.VERIFIED:
            break
    if args.output:
        write_atomic(args.output, format_proof(report.proof))
    return _print(args, sealing, report, seq)


def choose_accepted(chain: Chain | None, wanted: list[str]) -> tuple[tuple[bytes, int], ...]:
    """What the user accepts, by name. [R] Each one is named; there is no "all"."""
    standing = {} if chain is None else {taint_name(chain, taint): taint for taint in chain.taints.values()}
    for name in wanted:
        if name not in standing:
            raise Usage(f"accept: nothing stands against step {name}{_listed(standing)}")
    missing = {name: taint for name, taint in standing.items() if name not in wanted}
    if missing:
        common.say(f"not accepted{_listed(missing)}")
    return tuple(sorted((standing[name].chain_id, standing[name].seq) for name in set(wanted)))


def warn_of_loss(sealing: Sealing, report: Report, accepts_loss: bool) -> None:
    """What stands against every file of such a log is named like a step that does."""
    if not accepts_loss and any(finding.reason == "declared-loss" for finding in report.findings):
        common.say(f"not accepted: --accept {LOSS} (history was declared lost by the server)")
    if not accepts_loss and has_lost_what_was_seen(sealing, report):
        common.say(f"not accepted: --accept {LOSS} also gives up the steps that were seen before, and are gone")


def has_lost_what_was_seen(sealing: Sealing, report: Report) -> bool:
    """Whether steps are gone that this client has seen, or their whole generation, in a log that declared a loss."""
    proof, stored = report.proof, sealing.stored(report.proof.file_id)
    if proof.loss is None or stored is None or stored.root != proof.root:
        return False
    is_gone = stored.chain_id != proof.chain_id and stored.generation >= proof.generation
    return is_gone or any(finding.reason == "pinned" for finding in report.findings)


# What a new generation may begin with; `stale` is that of a generation which is gone.
_OUTLIVED = ("pinned", "stale", "declared-loss", "altered", "gap", "unsigned-close")


def give_up(sealing: Sealing, report: Report, wait_s: int) -> Report:
    """Ends the chain by the owner's signature over both heads (SPEC 4.7); the report on the next generation."""
    from verifier.commands.closing import sign_closed

    proof, chain, stored = report.proof, report.chain, sealing.stored(report.proof.file_id)
    others = [finding for finding in report.findings if finding.reason not in _OUTLIVED]
    if chain is None or stored is None or others:
        return report
    seen = Seen(stored.chain_id, stored.map.seq, stored.map.head)
    line = sign_closed(chain, seen, sealing.signer, int(time.time()), sealing.path)
    chain.append(open_step(line.entry, line[1:]))  # nothing is handed in that the chain does not take
    seq = sealing.server.close(sealing.signer, proof.source, proof.file_id, proof.generation, line)
    common.say(f"closed as step {seq}: steps up to {stored.map.seq} that were seen before are given up")
    late = f"the end of the chain is handed in, and not published within {wait_s} s: run the same again"
    return wait_for(sealing, wait_s, lambda report: report.proof.generation > proof.generation, late)


def taint_name(chain: Chain, taint: Taint) -> str:
    """The seq in this chain; for an earlier one, the beginning of its id before it."""
    own = taint.chain_id == chain.binding.chain_id
    return str(taint.seq) if own else f"{taint.chain_id.hex()[:SHORT_ID]}:{taint.seq}"


_TAINT_WORDS = {
    TaintKind.ALTERED: "the bytes changed with no operation",
    TaintKind.GAP: "history is missing",
    TaintKind.UNSIGNED_CLOSE: "the server ended this chain without the owner",
}


def _listed(taints: dict[str, Taint]) -> str:
    listed = "; ".join(f"--accept {name} ({_TAINT_WORDS[taint.kind]})" for name, taint in taints.items())
    return f": {listed}" if listed else ""


def sign_seal(report: Report, accepts: tuple[tuple[bytes, int], ...], signer: Signer) -> Seal:
    """The owner's statement about the newest published step, whose bytes this device has just compared."""
    chain, tree = report.chain, report.checkpoint
    assert chain is not None
    assert tree is not None
    seq = chain.seq
    unsigned = Seal(
        seq,
        chain.head,
        chain.carriers[seq][1],
        chain.version,
        tree.size,
        tree.root,
        chain.newest_seal_at(seq),
        accepts,
        bytes(ed25519.SIGNATURE_SIZE),
    )
    private = ed25519.load_private_key(signer.private)
    return unsigned._replace(signature=private.sign(seal_message(chain.binding, unsigned)))


def hand_in(sealing: Sealing, seal: Seal, proof: Proof, wait_s: int) -> tuple[Report, int]:
    """Gives the seal to the log; the report on the first proof that shows it, and the step that it became."""
    body = encode_seal_body(seal) + seal.signature
    seq = sealing.server.seal(sealing.signer, proof.source, proof.file_id, proof.generation, body)
    return wait_for_seal(sealing, seal, wait_s), seq


def wait_for_seal(sealing: Sealing, seal: Seal, wait_s: int) -> Report:
    """The report on the first proof that shows the seal. A finding in it is returned, not hidden."""

    def is_settled(report: Report) -> bool:
        if report.chain is not None and any(sealed.seal == seal for sealed in report.chain.seals):
            return True
        # No later proof of an honest log makes this go away.
        return report.verdict in (Verdict.CHANGED, Verdict.FORK) and not seal.accepts

    common.say("waiting until the log has published the seal ...")
    late = f"the seal is signed and handed in, and not published within {wait_s} s: verify later"
    return wait_for(sealing, wait_s, is_settled, late)


def wait_for(sealing: Sealing, wait_s: int, is_settled: Callable[[Report], bool], late: str) -> Report:
    """The first report that settles it; NotProven where none does in time."""
    until = time.monotonic() + wait_s
    while True:
        try:
            report = sealing.look()
            if is_settled(report):
                return report
        except NotProven as error:
            if error.reason not in ("not-published", "unreachable"):
                raise
        if time.monotonic() + PAUSE_S > until:
            raise NotProven("not-published", late)
        time.sleep(PAUSE_S)


def _print(args: Namespace, sealing: Sealing, report: Report, seq: int | None) -> int:
    data = report_data(report, sealing.trust, args.file) | {"sealed_at": None if seq is None else str(seq)}
    text = format_report(report, sealing.trust, args.file)
    done = "Not sealed.\n" if seq is None else f"Sealed as step {seq}.\n"
    if args.json:
        print(format_json(data))
    else:
        print(done + text, end="")
    return exit_code(report)
