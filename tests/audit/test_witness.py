"""The witness's decision and its memory, without HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import node as node_module
from audit import witness_store
from audit.errors import Conflict, Fatal, TryLater
from audit.evidence import of_row
from audit.node import Node, create_node, open_node
from audit.witness import (
    EARLIEST_TIME,
    Inconsistent,
    UnknownLog,
    Untrusted,
    format_request,
    open_log_note,
    parse_request,
)
from audit.witness_store import MAX_EVIDENCE, WITNESS, Store
from tests.fakes import NOW, FakeLog, Faults, digest
from verifier.checkpoint import open_checkpoint
from verifier.errors import Malformed, Usage
from verifier.note import Note, Signature, SignerKey, cosign, format_note, parse_note, parse_vkey, verify_cosignature

EMPTY_ROOT = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


@pytest.fixture
def log() -> FakeLog:
    return FakeLog().grow(9)


@pytest.fixture
def node(tmp_path: Path, log: FakeLog):
    create_node(tmp_path / "n", "node.example/w")
    node = open_node(tmp_path / "n", log.fetch)
    node.allow_log(log.vkey)
    yield node
    node.close()


def ask(node: Node, log: FakeLog, old: int, size: int, proof: tuple[bytes, ...] | None = None, now: int = NOW) -> bytes:
    """An honest request from `old` to `size`, unless another proof is given."""
    hashes = log.proof(old, size) if proof is None else proof
    return node.add_checkpoint(format_request(old, hashes, log.checkpoint(size)), now)


def kinds(node: Node) -> list[str]:
    return [evidence.kind for evidence in node.store.evidence()]


def test_witness_cosigns_what_grows(node: Node, log: FakeLog) -> None:
    """Each answer is a cosignature of exactly the submitted checkpoint, and the newest one is remembered."""
    key = node.witness.verifier_key
    for old, size in [(0, 1), (1, 3), (3, 3), (3, 8), (8, 10)]:
        line = ask(node, log, old, size)
        note = parse_note(log.checkpoint(size) + line)
        assert verify_cosignature(note, key) == NOW
        head = node.store.head(WITNESS, log.origin)
        assert head is not None
        assert head.size == size
        assert head.note == log.checkpoint(size) + line


def test_witness_signs_the_empty_tree(node: Node, log: FakeLog) -> None:
    """Size 0 is signed with the empty tree's root alone, and grows from there without a proof."""
    with pytest.raises(Inconsistent):
        node.add_checkpoint(format_request(0, (), log.checkpoint(0, digest(b"not empty", 0))), NOW)
    node.add_checkpoint(format_request(0, (), log.checkpoint(0, EMPTY_ROOT)), NOW)
    assert ask(node, log, 0, 5)


def test_witness_covers_extension_lines(node: Node, log: FakeLog) -> None:
    """A foreign log's extension lines are part of what is cosigned."""
    note = log.checkpoint(4, extensions=("more to say",))
    line = node.add_checkpoint(format_request(0, (), note), NOW)
    assert verify_cosignature(parse_note(note + line), node.witness.verifier_key) == NOW
    with pytest.raises(Exception, match="does not hold"):
        verify_cosignature(parse_note(log.checkpoint(4) + line), node.witness.verifier_key)


def test_witness_refuses_an_old_size_beyond_the_checkpoint(node: Node, log: FakeLog) -> None:
    """old > size is malformed, before it is compared with anything stored."""
    with pytest.raises(Malformed, match="old size: want at most the checkpoint's size 3, got 4"):
        ask(node, log, 4, 3, ())


def test_witness_tells_the_size_it_knows(node: Node, log: FakeLog) -> None:
    """A request from any other size than the stored one gets that size, also the first one and stale ones."""
    with pytest.raises(Conflict) as first:
        ask(node, log, 1, 3)
    assert first.value.known_size == 0
    ask(node, log, 0, 5)
    for old, size in [(0, 5), (0, 8), (3, 8), (3, 4), (6, 8)]:
        with pytest.raises(Conflict) as stale:
            ask(node, log, old, size)
        assert stale.value.known_size == 5
    head = node.store.head(WITNESS, log.origin)
    assert head is not None
    assert head.size == 5


def test_witness_decides_and_writes_in_one_transaction(
    node: Node, tmp_path: Path, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[R] A request that was found consistent cannot be overtaken: nobody else writes until its size is on disk."""
    monkeypatch.setattr(witness_store, "BUSY_TIMEOUT_MS", 0)
    other = open_node(tmp_path / "n", log.fetch)
    found_consistent, overtaken = node_module.decide, list[Exception]()

    def slowly(*args: Any) -> Any:
        decision = found_consistent(*args)
        if not overtaken:
            with pytest.raises(TryLater) as late:
                ask(other, log, 0, 8)
            overtaken.append(late.value)
        return decision

    monkeypatch.setattr(node_module, "decide", slowly)
    assert ask(node, log, 0, 5)
    assert len(overtaken) == 1
    with pytest.raises(Conflict) as stale:
        ask(other, log, 0, 8)
    assert stale.value.known_size == 5
    other.close()


def test_log_keeps_its_address_where_none_is_given(node: Node, log: FakeLog) -> None:
    """[R] What is replayed goes on being replayed: an address is replaced by another one alone."""
    node.allow_log(log.vkey, "https://log.example/one")
    node.allow_log(log.vkey)
    assert [watched.url for watched in node.store.logs()] == ["https://log.example/one"]


def test_witness_remembers_a_log_that_is_allowed_again(node: Node, log: FakeLog) -> None:
    """[R] A log is never forgotten: naming it once more, with another address too, starts nothing anew."""
    ask(node, log, 0, 5)
    node.allow_log(log.vkey, "https://elsewhere.example")
    other = FakeLog(log.origin).grow(9, chains=3)
    with pytest.raises(Conflict) as conflict:
        node.add_checkpoint(format_request(0, (), other.checkpoint()), NOW)
    assert conflict.value.known_size == 5


def test_request_has_room_for_large_signatures(node: Node, log: FakeLog) -> None:
    """Sixteen lines of post-quantum keys, 52 KiB in all, that nobody here knows, are no reason to refuse."""
    note = parse_note(log.checkpoint(5))
    lines = [Signature(f"w{n}.example", bytes([n]) * 4, bytes(8 + 2420)) for n in range(16)]
    body = format_request(0, (), format_note(note._replace(signatures=(*lines, *note.signatures))))
    assert len(body) > 16 * 3_200
    assert node.add_checkpoint(body, NOW)


def test_witness_refuses_a_wrong_proof(node: Node, log: FakeLog) -> None:
    """Every changed, missing or added hash, and any proof from 0 or to the same size, is refused and kept."""
    with pytest.raises(Inconsistent):
        ask(node, log, 0, 3, (digest(b"p", 0),))
    ask(node, log, 0, 3)
    good = log.proof(3, 8)
    bad = [good[:-1], (*good, good[0]), (), *[(*good[:i], digest(b"p", i), *good[i + 1 :]) for i in range(len(good))]]
    for proof in bad:
        with pytest.raises(Inconsistent):
            ask(node, log, 3, 8, proof)
    with pytest.raises(Inconsistent):
        ask(node, log, 3, 3, (digest(b"p", 0),))
    assert set(kinds(node)) == {"consistency"}
    assert ask(node, log, 3, 8)


def test_witness_keeps_a_fork(node: Node, log: FakeLog) -> None:
    """Another root for the size cosigned last is refused, and both notes are kept, whatever old size was said."""
    ask(node, log, 0, 5)
    for old in (5, 0):
        other = log.checkpoint(5, digest(b"fork", old))
        with pytest.raises(Inconsistent if old == 5 else Conflict):
            node.add_checkpoint(format_request(old, (), other), NOW)
    assert kinds(node) == ["fork", "fork"]
    evidence = node.store.evidence(log.origin)[0]
    key = parse_vkey(log.vkey)
    _, theirs = open_checkpoint(parse_request(evidence.request) and evidence.request.split(b"\n\n", 1)[1], key)
    _, ours = open_checkpoint(evidence.known_note, key)
    assert theirs.size == ours.size
    assert theirs.root != ours.root


def test_witness_keeps_evidence_within_bounds(node: Node, log: FakeLog) -> None:
    """The same refusal is kept once, and a flood neither grows the table nor removes the first rows."""
    ask(node, log, 0, 5)
    for later, number in enumerate([0, 0, *range(MAX_EVIDENCE + 3)]):
        with pytest.raises(Inconsistent):
            node.add_checkpoint(format_request(5, (), log.checkpoint(5, digest(b"f", number))), NOW + later)
    kept = node.store.evidence()
    assert (len(kept), kept[0].time) == (MAX_EVIDENCE, NOW)
    assert log.checkpoint(5, digest(b"f", 0)) in kept[0].request


def forked(log: FakeLog) -> FakeLog:
    """The same key's other history: as long, and another one from its first entry on."""
    other = FakeLog(log.origin)
    other.add_entry(digest(b"other chain", 0), digest(b"other", 0))
    while len(other.leaves) <= len(log.leaves):
        other.grow(1)
    return other


def test_witness_keeps_a_fork_though_strangers_used_up_its_places(node: Node, log: FakeLog) -> None:
    """[R] Anybody can send honest checkpoints with a bad proof; a proof that convicts the log is kept all the same."""
    fork, size = forked(log), 5
    ask(node, log, 0, size)
    big = len(fork.leaves)
    with pytest.raises(Inconsistent):  # somebody was quicker with the fork, and without its proof
        node.add_checkpoint(format_request(size, (bytes(32),), fork.checkpoint(big)), NOW)
    for number in range(MAX_EVIDENCE + 3):
        with pytest.raises(Inconsistent):
            node.add_checkpoint(format_request(size, (), log.checkpoint(9, digest(b"f", number))), NOW)
    assert not any(of_row(row, NOW) for row in node.store.evidence())
    for later in (1, 2):
        with pytest.raises(Inconsistent):
            node.add_checkpoint(format_request(size, fork.proof(size, big), fork.checkpoint(big)), NOW + later)
    (proof,) = [row for row in node.store.evidence() if of_row(row, NOW)]
    assert proof.time == NOW + 1
    assert len(node.store.evidence()) == MAX_EVIDENCE
    fork.grow(1)
    with pytest.raises(Inconsistent):
        node.add_checkpoint(format_request(size, fork.proof(size), fork.checkpoint()), NOW)
    assert len(node.store.evidence()) == MAX_EVIDENCE + 1


def test_evidence_is_read_one_row_at_a_time(node: Node, log: FakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows may be large and many: no read brings two of them."""
    ask(node, log, 0, 5)
    for number in range(3):
        with pytest.raises(Inconsistent):
            node.add_checkpoint(format_request(5, (), log.checkpoint(5, digest(b"f", number))), NOW)
    read = Store._read

    def bounded(store: Store, sql: str, *values: str | int) -> list[Any]:
        rows = read(store, sql, *values)
        assert "request" not in sql or len(rows) <= 1
        return rows

    monkeypatch.setattr(Store, "_read", bounded)
    assert len(list(node.store.each_evidence(log.origin))) == len(list(node.store.each_evidence())) == 3
    assert list(node.store.each_evidence("another.example")) == []


def test_witness_keeps_no_harmless_conflict(node: Node, log: FakeLog) -> None:
    """A log that asks where we are, with the very checkpoint that we have, leaves no trace."""
    ask(node, log, 0, 5)
    with pytest.raises(Conflict):
        ask(node, log, 0, 5)
    assert kinds(node) == []


def test_witness_refuses_strangers(node: Node, log: FakeLog) -> None:
    """Unknown origins, foreign signatures, none, broken ones and doubled ones are refused, and nothing is kept."""
    other, forger = FakeLog("log.example/two").grow(3), FakeLog(log.origin, b"\x08" * 32).grow(3)
    with pytest.raises(UnknownLog):
        ask(node, other, 0, 2)
    with pytest.raises(Untrusted, match="no signature of log.example/one"):
        ask(node, forger, 0, 2)
    note = parse_note(log.checkpoint(2))
    line = note.signatures[0]
    broken = Note(note.text, (line._replace(blob=line.blob[:-1] + bytes([line.blob[-1] ^ 1])),))
    short = Note(note.text, (line._replace(blob=line.blob[:-1]),))
    for bad in (broken, short):
        with pytest.raises(Untrusted, match="does not hold"):
            node.add_checkpoint(format_request(0, (), format_note(bad)), NOW)
    with pytest.raises(Malformed, match="want one signature line"):
        node.add_checkpoint(format_request(0, (), format_note(Note(note.text, (line, line)))), NOW)
    assert node.store.head(WITNESS, log.origin) is None
    assert kinds(node) == []


def test_witness_passes_on_no_other_line(node: Node, log: FakeLog) -> None:
    """Lines of unknown keys are ignored: neither stored nor served, so none can poison the stored note."""
    stranger = SignerKey("stranger.example/w", 4, b"\x09" * 32)
    note = parse_note(log.checkpoint(2))
    poisoned = Note(note.text, (cosign(note.text, stranger, NOW), *note.signatures))
    node.add_checkpoint(format_request(0, (), format_note(poisoned)), NOW)
    head = node.store.head(WITNESS, log.origin)
    assert head is not None
    assert b"stranger" not in head.note


def test_witness_refuses_a_clock_that_went_back(node: Node, log: FakeLog) -> None:
    """Before its last cosignature, for any log, or before anybody set the clock, the witness signs nothing."""
    other = FakeLog("log.example/two").grow(3)
    node.allow_log(other.vkey)
    ask(node, log, 0, 2)
    for now in (NOW - 1, EARLIEST_TIME - 1, 0, -1):
        with pytest.raises(TryLater, match="clock"):
            ask(node, log, 2, 3, now=now)
        with pytest.raises(TryLater, match="clock"):
            ask(node, other, 0, 3, now=now)
    assert ask(node, log, 2, 3, now=NOW)


def test_witness_never_cosigns_under_its_own_name() -> None:
    """Even with a key at hand for it, an origin that is our own name is not watched."""
    log = FakeLog("node.example/w").grow(2)
    note = parse_note(log.checkpoint())
    assert open_log_note(note, [log.signer.verifier_key], log.origin, ("node.example/v",)) == note
    with pytest.raises(UnknownLog):
        open_log_note(note, [log.signer.verifier_key], log.origin, ("node.example/w",))


def test_witness_watches_neither_itself_nor_two_keys(node: Node, log: FakeLog) -> None:
    """A log with our name or key, a cosigner's key, and another key for a known origin are refused."""
    own = FakeLog("node.example/w")
    same_key = FakeLog("log.example/x", node.witness.secret_bytes())
    for vkey in (own.vkey, same_key.vkey, FakeLog(log.origin, b"\x08" * 32).vkey):
        with pytest.raises(Usage):
            node.allow_log(vkey)
    with pytest.raises(Usage, match="type 0x04"):
        node.allow_log(node.describe()["witness"]["vkey"])  # type: ignore[index]
    node.allow_log(log.vkey, "https://log.example/one")
    node.allow_log(log.vkey, "https://log.example/one")
    assert len(node.store.logs()) == 1


REQUEST = format_request(3, (digest(b"p", 1), digest(b"p", 2)), FakeLog().grow(4).checkpoint())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"old 3", b"old +3"),
        (b"old 3", b"old 03"),
        (b"old 3", b"old 3 "),
        (b"old 3", b"old  3"),
        (b"old 3", b"old -3"),
        (b"old 3", b"Old 3"),
        (b"old 3", b"old"),
        (b"old 3", b"old 9223372036854775808"),
        (b"old 3\n", b"old 3\r\n"),
        (b"old 3\n", b"old 3\n\n"),
        (b"old 3\n", b"old 3\n" + b"AAAA\n"),
        (b"old 3\n", b"old 3\n" + b"A" * 42 + b"B=\n"),
        (b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 62),
        (b"=\n\n", b"=\n"),
        (b"\n5\n", b"\n05\n"),
        (b"\n5\n", b"\nfive\n"),
    ],
)
def test_request_has_one_spelling(old: bytes, new: bytes) -> None:
    """Nothing but the exact form is parsed: no sign, no zero in front, no loose base64, at most 63 hashes."""
    assert old in REQUEST
    with pytest.raises(Malformed):
        parse_request(REQUEST.replace(old, new, 1))


def test_request_is_bounded() -> None:
    """63 hashes are parsed; more than 128 KiB are not looked at."""
    hashes = tuple([digest(b"p", i) for i in range(63)])
    assert parse_request(format_request(3, hashes, FakeLog().grow(4).checkpoint())).proof == hashes
    with pytest.raises(Malformed, match="add-checkpoint request: want at most 131072 bytes"):
        parse_request(REQUEST + b"x" * 2**17)


@given(st.integers(0, len(REQUEST) - 1), st.integers(0, 255))
def test_request_round_trips_or_is_malformed(place: int, octet: int) -> None:
    """Whatever parses is the one spelling of what it means; everything else is Malformed and nothing else."""
    mangled = REQUEST[:place] + bytes([octet]) + REQUEST[place + 1 :]
    try:
        request = parse_request(mangled)
    except Malformed:
        return
    assert format_request(request.old_size, request.proof, format_note(request.note)) == mangled


def test_node_is_created_once(tmp_path: Path) -> None:
    """Keys are for their owner alone, an existing directory is left alone, and lost memory is not made anew."""
    create_node(tmp_path / "n", "node.example/w")
    assert (tmp_path / "n" / "witness.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Usage, match="not empty"):
        create_node(tmp_path / "n", "node.example/w")
    with pytest.raises(Usage, match="/auditor"):
        create_node(tmp_path / "m", "node.example/w/auditor")
    create_node(tmp_path / "o", "node.example/w")
    (tmp_path / "o" / "witness.db").replace(tmp_path / "n" / "witness.db")
    with pytest.raises(Usage, match="other keys"):
        open_node(tmp_path / "n")
    with pytest.raises(Usage, match="missing"):
        open_node(tmp_path / "o")
    (tmp_path / "n" / "witness.key").chmod(0o644)
    with pytest.raises(Usage, match="open to others"):
        open_node(tmp_path / "n")


def test_witness_crashes_leave_nothing_inconsistent(tmp_path: Path) -> None:
    """Each write that fails, not done or done and reported as failed: no answer, a sound restart, and never a fork."""
    log = FakeLog().grow(9)
    points = [(at, done) for at in (1, 2) for done in (False, True)]
    for number, (at, done) in enumerate(points):
        folder = tmp_path / str(number)
        create_node(folder, "node.example/w")
        node = open_node(folder, log.fetch)
        node.allow_log(log.vkey)
        ask(node, log, 0, 3)
        node.close()
        broken = open_node(folder, log.fetch, Faults(at, done).factory)
        with pytest.raises(Fatal):
            ask(broken, log, 3, 8)
        with pytest.raises(Fatal, match="open the node again"):
            ask(broken, log, 3, 8)
        broken.close()
        node = open_node(folder, log.fetch)
        head = node.store.head(WITNESS, log.origin)
        assert head is not None
        assert head.size == (8 if (at, done) == (2, True) else 3)
        with pytest.raises((Conflict, Inconsistent)):
            node.add_checkpoint(format_request(head.size, (), log.checkpoint(head.size, digest(b"f", 0))), NOW)
        assert ask(node, log, head.size, 8)
        node.close()


def test_witness_crashes_are_the_only_writes(tmp_path: Path) -> None:
    """The table above is whole: an answer takes two writes, the head and the commit."""
    log, faults = FakeLog().grow(9), Faults()
    create_node(tmp_path / "n", "node.example/w")
    node = open_node(tmp_path / "n", log.fetch, faults.factory)
    node.allow_log(log.vkey)
    faults.writes = 0
    ask(node, log, 0, 3)
    assert faults.writes == 2
    node.close()


def test_witness_keeps_evidence_before_it_refuses(tmp_path: Path) -> None:
    """Where the evidence can't be stored the refusal is not given either: the caller hears of a fault."""
    log = FakeLog().grow(9)
    create_node(tmp_path / "n", "node.example/w")
    node = open_node(tmp_path / "n", log.fetch)
    node.allow_log(log.vkey)
    ask(node, log, 0, 3)
    node.close()
    node = open_node(tmp_path / "n", log.fetch, Faults(2).factory)
    with pytest.raises(Fatal):
        node.add_checkpoint(format_request(3, (), log.checkpoint(3, digest(b"f", 0))), NOW)
    node.close()
