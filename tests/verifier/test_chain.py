"""The legality table, every operation after every status, against a second one that is slow and obvious.

The table below is read off the text in `verifier.chain`; the slow rules work on the whole history each time and share
nothing with the code under test but the names of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builder import secret
from verifier import chain as chains
from verifier.chain import MISSING, NO_SEAL, Binding, Chain, Ending, Missing, Step, close_message, seal_message
from verifier.entry import (
    MAX_ENTRIES,
    MAX_LISTED,
    Argument,
    Closed,
    CloseReason,
    Content,
    ContextField,
    Entry,
    Erased,
    Expired,
    ExpiryReason,
    Gap,
    GapReason,
    Operation,
    Part,
    Predecessor,
    Reverted,
    Seal,
    Taint,
    TaintKind,
)
from verifier.errors import IllegalStep, NotProven
from verifier.note import SIGNATURE, SignerKey

OWNER = SignerKey("owner", SIGNATURE, secret("owner"))
CHAIN = bytes([7]) * 32
BINDING = Binding("log.example+" + "0" * 64, "folder:x", bytes(32), 1, CHAIN, OWNER.verifier_key.public_key)
A, B, C = (Content(1, bytes([n]) * 32) for n in range(3))
Shown = Content | None | Missing
Name = str | None | Missing

# operation: (statuses before, content part, path part). "any" is any content or path, but not none.
TABLE: dict[Operation, tuple[str, str, str]] = {
    Operation.CREATED: ("new", "any", "any"),
    Operation.ADOPTED: ("new", "any", "any"),
    Operation.COPIED: ("new", "any", "any"),
    Operation.WRITTEN: ("live", "any", "same"),
    Operation.MOVED: ("live", "same", "another"),
    Operation.TOUCHED: ("live", "same", "same"),
    Operation.RESTORED: ("deleted", "same", "any"),
    Operation.REVERTED: ("live", "named", "same"),
    Operation.ALTERED: ("live", "another", "same"),
    Operation.DELETED: ("live", "none", "none"),
    Operation.GAP: ("live", "none", "none"),
    Operation.EXPIRED: ("live deleted", "none", "none"),
    Operation.ERASED: ("live deleted", "none", "none"),
    Operation.SEALED: ("live deleted", "none", "none"),
    Operation.CLOSED: ("live deleted", "same or none", "same or none"),
}
SETS = {
    *(Operation.CREATED, Operation.ADOPTED, Operation.COPIED, Operation.WRITTEN),
    *(Operation.RESTORED, Operation.REVERTED, Operation.ALTERED),
}


def step(
    operation: Operation,
    seq: int,
    content: Shown = None,
    path: Name = None,
    argument: Argument | None = None,
    context: dict[ContextField, str] | Missing | None = None,
) -> Step:
    """An opened entry. Its commitments and hash only have to differ from step to step."""
    mark = bytes([operation, seq % 256]) * 16
    entry = Entry(operation, seq, 0, 0, mark, mark, mark, argument)
    return Step(entry, mark, content, path, {ContextField.COPIED_FROM: "z"} if context is None else context)


def replay(steps: list[Step], predecessor: Ending | None = None) -> Chain:
    chain = Chain(BINDING, predecessor)
    for item in steps:
        chain.append(item)
    return chain


def is_taken(steps: list[Step], last: Step) -> bool:
    chain = replay(steps)
    try:
        chain.append(last)
    except IllegalStep:
        return False
    return True


# -- the slow rules -------------------------------------------------------------------------------------------


def slow_status(steps: list[Step]) -> str:
    words = [item.entry.operation for item in steps]
    if not words:
        return "new"
    if Operation.CLOSED in words:
        return "closed"
    turns = [word for word in words if word in (Operation.DELETED, Operation.RESTORED)]
    return "deleted" if turns and turns[-1] is Operation.DELETED else "live"


def slow_version(steps: list[Step]) -> Step:
    """The step that set the current content, or the last one before the deletion."""
    return [item for item in steps if item.entry.operation in SETS][-1]


def slow_path(steps: list[Step]) -> Name:
    """The path of the newest step that carries one, shown or not."""
    return [item.path for item in steps if TABLE[item.entry.operation][2] != "none"][-1]


def slow_content(steps: list[Step]) -> Shown:
    """The current content, as the step that set it shows it, or else one that carries it on."""
    since = steps[slow_version(steps).entry.seq :]
    shown = [item.content for item in since if isinstance(item.content, Content)]
    return shown[0] if shown else MISSING


def slow_expired(steps: list[Step]) -> set[int]:
    return {seq for item in steps if isinstance(item.entry.argument, Expired) for seq in item.entry.argument.seqs}


def slow_standing(steps: list[Step]) -> tuple[set[Taint], dict[Taint, tuple[int, int]]]:
    """Each rule of the text in turn: the taints that stand, and for each that a revert mended the two versions."""
    found: set[Taint] = set()
    mended: dict[Taint, tuple[int, int]] = {}
    erased: set[int] = set()
    for item in steps:
        entry = item.entry
        if entry.operation is Operation.ALTERED:
            found.add(Taint(CHAIN, entry.seq, TaintKind.ALTERED))
        if entry.operation is Operation.GAP:
            found.add(Taint(CHAIN, entry.seq, TaintKind.GAP))
        if isinstance(entry.argument, Erased) and entry.argument.part is Part.CONTENT:
            erased.add(entry.argument.seq)
        if isinstance(entry.argument, Reverted):
            target = entry.argument.target
            for taint in [t for t in found if t.kind is TaintKind.ALTERED and t.seq > target and t not in mended]:
                if target not in erased:
                    mended[taint] = target, entry.seq
                    if MISSING not in (item.content, steps[target].content):
                        found.remove(taint)
            for taint in [taint for taint, (_, at) in mended.items() if taint.seq <= target < at]:
                del mended[taint]
                found.add(taint)
        if isinstance(entry.argument, Seal):
            accepted = entry.argument.accepts
            found = {t for t in found if (t.chain_id, t.seq) not in accepted}
            mended = {t: at for t, at in mended.items() if (t.chain_id, t.seq) not in accepted}
    return found, mended


def slow_taints(steps: list[Step]) -> set[Taint]:
    return slow_standing(steps)[0]


def slow_listed(steps: list[Step]) -> list[Taint]:
    """What `closed` lists: by the steps alone, whatever is shown."""
    found, mended = slow_standing(steps)
    return sorted(found - mended.keys())[:MAX_LISTED]


def slow_mending(steps: list[Step]) -> set[int]:
    """The versions on which the mending of some alteration rests, while no seal accepts that alteration."""
    return {seq for versions in slow_standing(steps)[1].values() for seq in versions}


def slow_part(rule: str, got: object, before: object, named: object) -> bool:
    """One cell of the table. What is not shown can't be compared."""
    if rule == "none":
        return got is None or got is MISSING
    if rule == "any":
        return got is not None
    if got is None:  # a live file always has both
        return False
    want = named if rule == "named" else before
    if got is MISSING or want is MISSING:
        return True
    return got != want if rule == "another" else got == want


def slow_is_legal(steps: list[Step], last: Step) -> bool:
    """The table, and its column "also"."""
    operation, argument = last.entry.operation, last.entry.argument
    statuses, content_rule, path_rule = TABLE[operation]
    status = slow_status(steps)
    if last.entry.seq != len(steps) or status not in statuses.split():
        return False
    content = slow_content(steps) if steps else None
    path = slow_path(steps) if steps else None
    if operation is Operation.CLOSED:
        content_rule = path_rule = "same" if status == "live" else "none"
        assert isinstance(argument, Closed)
        if list(argument.taints) != slow_listed(steps):
            return False
    named: object = None
    if isinstance(argument, Reverted):
        older = [item.entry.seq for item in steps if item.entry.operation in SETS][:-1]
        if argument.target not in older or argument.target in slow_expired(steps):
            return False
        named = steps[argument.target].content
    if operation is Operation.RESTORED and slow_version(steps).entry.seq in slow_expired(steps):
        return False
    if isinstance(argument, Expired):
        have = {item.entry.seq for item in steps if item.entry.operation in SETS} - slow_expired(steps)
        if status == "live":
            have -= {slow_version(steps).entry.seq}
        if not have.issuperset(argument.seqs):
            return False
    if isinstance(argument, Erased):
        if argument.seq >= len(steps) or argument in [item.entry.argument for item in steps]:
            return False
        current = status == "live" and argument.seq >= slow_version(steps).entry.seq
        if argument.part is Part.CONTENT and (current or argument.seq in slow_mending(steps)):
            return False
    if operation is Operation.COPIED and last.context is not MISSING and ContextField.COPIED_FROM not in last.context:
        return False
    return slow_part(content_rule, last.content, content, named) and slow_part(path_rule, last.path, path, None)


# -- every operation after every status -----------------------------------------------------------------------


def created(content: Shown = A, path: Name = "a") -> list[Step]:
    return [step(Operation.CREATED, 0, content, path)]


def close_step(steps: list[Step], content: Shown, path: Name, taints: tuple[Taint, ...] | None = None) -> Step:
    listed = tuple(slow_listed(steps)) if taints is None else taints
    return step(Operation.CLOSED, len(steps), content, path, Closed(CloseReason.FULL, listed, b""))


def seal_step(chain: Chain, seq: int, position: int, accepts: tuple[tuple[bytes, int], ...] = ()) -> Step:
    """A seal over step `seq`, that the owner signed."""
    version, commitment = chain.carriers[seq]
    seal = Seal(seq, chain.heads[seq], commitment, version, 1, bytes(32), chain.newest_seal_at(seq), accepts, b"")
    signed = seal._replace(signature=OWNER.sign(seal_message(BINDING, seal)))
    return step(Operation.SEALED, position, argument=signed)


def histories() -> dict[str, list[Step]]:
    two = [*created(), step(Operation.WRITTEN, 1, B, "a")]
    gone = [*two, step(Operation.DELETED, 2)]
    return {
        "new": [],
        "live": created(),
        "live with two versions": two,
        "live and altered": [*two, step(Operation.ALTERED, 2, C, "a")],
        "live with a gap": [*two, step(Operation.GAP, 2, argument=Gap(GapReason.UNKNOWN))],
        "live, oldest version expired": [*two, step(Operation.EXPIRED, 2, argument=_expired(0))],
        "live, path not shown": [*two[:1], step(Operation.WRITTEN, 1, B, MISSING)],
        "live, old content not shown": [*created(MISSING), two[1]],
        "deleted": gone,
        "deleted, current version expired": [*gone, step(Operation.EXPIRED, 3, argument=_expired(1))],
        "restored": [*gone, step(Operation.RESTORED, 3, B, "b")],
        "closed": [*two, close_step(two, B, "a")],
    }


def _expired(*seqs: int) -> Expired:
    return Expired(ExpiryReason.THINNED, seqs)


def arguments(operation: Operation, steps: list[Step]) -> list[Argument | None]:
    """What the operation may say in this place, right and wrong."""
    some = range(len(steps) + 2)
    taints = tuple(slow_listed(steps))
    extra = tuple(sorted({*taints, Taint(CHAIN, 0, TaintKind.GAP)}))
    every: dict[Operation, list[Argument | None]] = {
        Operation.REVERTED: [Reverted(seq) for seq in some],
        Operation.EXPIRED: [*(_expired(seq) for seq in some), _expired(0, 1)],
        Operation.GAP: [Gap(GapReason.UNKNOWN)],
        Operation.ERASED: [Erased(seq, part) for seq in some for part in Part],
        Operation.CLOSED: [Closed(CloseReason.FULL, listed, b"") for listed in ((), taints, extra)],
    }
    return every.get(operation, [None])


@pytest.mark.parametrize("operation", [o for o in Operation if o is not Operation.SEALED], ids=lambda o: o.word)
@pytest.mark.parametrize("name", histories())
def test_chain_takes_what_the_table_allows_and_nothing_else(operation: Operation, name: str) -> None:
    """Every operation after every status, with each content and path: same, another, none, not shown."""
    steps = histories()[name]
    contents: tuple[Shown, ...] = (A, B, C, None, MISSING)
    paths: tuple[Name, ...] = ("a", "b", None, MISSING)
    for content, path, argument in product(contents, paths, arguments(operation, steps)):
        last = step(operation, len(steps), content, path, argument)
        assert is_taken(steps, last) == slow_is_legal(steps, last), (content, path, argument)


@pytest.mark.parametrize("name", histories())
def test_chain_takes_a_seal_wherever_the_chain_is_open(name: str) -> None:
    """The owner's seal over a live step may be recorded while the file is live or deleted, and carries nothing."""
    steps = histories()[name]
    chain = replay(steps or created())
    last = seal_step(chain, 0, len(steps))
    for content, path in product((None, MISSING, A), (None, MISSING, "a")):
        shown = last._replace(content=content, path=path)
        assert is_taken(steps, shown) == (bool(steps) and slow_is_legal(steps, shown))


@pytest.mark.parametrize("operation", [Operation.CREATED, Operation.ADOPTED, Operation.COPIED])
def test_chain_begins_once(operation: Operation) -> None:
    """A first operation is first, and `copied` names its source unless that is not shown."""
    assert is_taken([], step(operation, 0, A, "a"))
    assert not is_taken(created(), step(operation, 1, A, "a"))
    assert is_taken([], step(operation, 0, A, "a", context={})) == (operation is not Operation.COPIED)
    assert is_taken([], step(operation, 0, A, "a", context=MISSING))


def test_chain_counts_its_entries() -> None:
    """seq is the place of the entry: no number twice, none left out."""
    for seq in (0, 2, 3):
        assert not is_taken(created(), step(Operation.TOUCHED, seq, A, "a"))
    assert is_taken(created(), step(Operation.TOUCHED, 1, A, "a"))
    assert not is_taken([], step(Operation.CREATED, 1, A, "a"))


def test_chain_ends_with_closed_when_it_is_full() -> None:
    """The last entry that a chain may have can only be `closed`."""
    chain = replay(created())
    for seq in range(1, MAX_ENTRIES - 1):
        chain.append(step(Operation.TOUCHED, seq, A, "a"))
    for operation in (Operation.TOUCHED, Operation.WRITTEN):
        with pytest.raises(IllegalStep, match="ends with closed"):
            chain.append(step(operation, MAX_ENTRIES - 1, A, "a"))
    chain.append(step(Operation.CLOSED, MAX_ENTRIES - 1, A, "a", Closed(CloseReason.FULL, (), b"")))


# -- long walks -----------------------------------------------------------------------------------------------


def candidates(steps: list[Step]) -> Iterator[Step]:
    """A small choice of next steps, most of them legal somewhere."""
    seq = len(steps)
    yield step(Operation.CREATED, seq, A, "a")
    for content in (A, B):
        yield step(Operation.WRITTEN, seq, content, "a")
        yield step(Operation.ALTERED, seq, content, "a")
        yield step(Operation.RESTORED, seq, content, "a")
        yield from (step(Operation.REVERTED, seq, content, "a", Reverted(target)) for target in range(seq))
    yield step(Operation.REVERTED, seq, MISSING, "a", Reverted(0))
    yield step(Operation.DELETED, seq)
    yield step(Operation.GAP, seq, argument=Gap(GapReason.UNKNOWN))
    yield step(Operation.EXPIRED, seq, argument=_expired(0))
    yield step(Operation.ERASED, seq, argument=Erased(0, Part.CONTENT))


def test_chain_and_slow_rules_agree_on_all_short_histories() -> None:
    """All legal histories of up to five steps: same next steps, same taints, same content, status and version."""
    waiting: list[list[Step]] = [[]]
    seen = 0
    while waiting:
        steps = waiting.pop()
        seen += 1
        for last in candidates(steps):
            legal = slow_is_legal(steps, last)
            assert is_taken(steps, last) == legal, [item.entry.operation.word for item in (*steps, last)]
            if legal and len(steps) < 5:
                waiting.append([*steps, last])
        if steps:
            chain = replay(steps)
            assert set(chain.taints.values()) == slow_taints(steps)
            assert chain.status == slow_status(steps)
            assert chain.version == slow_version(steps).entry.seq
            assert chain.content == slow_content(steps)
            expired = slow_expired(steps)
            assert set(chain.versions) == {s.entry.seq for s in steps if s.entry.operation in SETS} - expired
    assert seen > 500


@given(st.data())
def test_chain_and_slow_rules_agree_on_long_walks(data: st.DataObject) -> None:
    """Long random histories, with parts that are not shown, give the same answers as the slow rules."""
    steps: list[Step] = created(data.draw(st.sampled_from([A, MISSING])))
    for _ in range(data.draw(st.integers(1, 12))):
        operation = data.draw(st.sampled_from(list(Operation)))
        if operation is Operation.SEALED:
            chain = replay(steps)
            accepts = data.draw(st.sets(st.sampled_from(sorted(chain.tainted_ever) or [(CHAIN, 0)])))
            last = seal_step(chain, len(steps) - 1, len(steps), tuple(sorted(accepts & chain.tainted_ever)))
            if is_taken(steps, last):  # test_verify_seals has the rules of seals
                steps.append(last)
            continue
        argument = data.draw(st.sampled_from(arguments(operation, steps)))
        content = data.draw(st.sampled_from([A, B, None, MISSING]))
        path = data.draw(st.sampled_from(["a", "b", None, MISSING]))
        last = step(operation, len(steps), content, path, argument)
        legal = slow_is_legal(steps, last)
        assert is_taken(steps, last) == legal
        if legal:
            steps.append(last)
    assert set(replay(steps).taints.values()) == slow_taints(steps)


def next_alteration(chain: Chain, random: Random) -> Step:
    """Bytes that change with no operation, come back, are erased, and are accepted by the owner."""
    seq, targets = chain.seq + 1, sorted(chain.versions.keys() - {chain.version})
    kind = random.choice(
        [Operation.ALTERED, Operation.REVERTED, Operation.REVERTED, Operation.ERASED, Operation.SEALED]
    )
    if kind is Operation.ALTERED:
        return step(kind, seq, A if chain.content == B else B, "a")
    if kind is Operation.REVERTED:
        target = random.choice(targets)
        return step(kind, seq, random.choice([chain.steps[target].content, MISSING]), "a", Reverted(target))
    if kind is Operation.ERASED:
        return step(kind, seq, argument=Erased(random.choice([*targets, chain.version]), Part.CONTENT))
    tainted = sorted(chain.tainted_ever)
    return seal_step(chain, seq - 1, seq, tuple(sorted(random.sample(tainted, random.randint(0, len(tainted))))))


@pytest.mark.parametrize("seed", range(400))
def test_alterations_come_and_go_as_the_slow_rules_say(seed: int) -> None:
    """[R] Whatever is altered, reverted, erased and accepted in turn: the same taints, and the same may be erased."""
    random, steps = Random(seed), [*created(), step(Operation.WRITTEN, 1, B, "a")]
    for _ in range(24):
        last = next_alteration(replay(steps), random)
        if last.entry.operation is not Operation.SEALED:  # test_verify_seals has the rules of those
            assert is_taken(steps, last) == slow_is_legal(steps, last)
        if is_taken(steps, last):
            steps.append(last)
        assert set(replay(steps).taints.values()) == slow_taints(steps)


@pytest.mark.parametrize("back", [lambda n: 0, lambda n: 1, lambda n: n % 4000])
def test_thousands_of_alterations_come_and_go(back: Callable[[int], int]) -> None:
    """[R] A chain that is made to be slow takes as long as a long one: here seconds would be minutes."""
    chain = replay(created())
    for seq in range(1, 4001):
        chain.append(step(Operation.ALTERED, seq, A if seq % 2 == 0 else B, "a"))
    for seq in range(4001, MAX_ENTRIES - 4001):
        target = 0 if seq % 2 else back(seq)
        chain.append(step(Operation.REVERTED, seq, B if target % 2 else A, "a", Reverted(target)))
    for seq in range(chain.seq + 1, MAX_ENTRIES - 1):
        chain.append(step(Operation.ERASED, seq, argument=Erased(seq - 8000, Part.CONTENT)))
    assert chain.seq == MAX_ENTRIES - 2


def test_close_lists_as_many_taints_as_it_can() -> None:
    """[R] What an entry has no room for is left out of an unsigned `closed` alone, and no other taint ever."""
    chain = replay(created())
    for seq in range(1, MAX_LISTED + 3):
        chain.append(step(Operation.GAP, seq, argument=Gap(GapReason.UNKNOWN)))
    taints = tuple(sorted(chain.taints.values()))
    assert len(taints) == MAX_LISTED + 2
    for listed, signature, legal in (
        (taints[:MAX_LISTED], b"", True),
        (taints[1 : MAX_LISTED + 1], b"", False),
        (taints[: MAX_LISTED - 1], b"", False),
        (taints[:MAX_LISTED], bytes(64), False),
    ):
        last = step(Operation.CLOSED, chain.seq + 1, A, "a", Closed(CloseReason.FULL, listed, signature))
        assert is_taken(chain.steps, last) is legal
    unchecked = Chain(BINDING._replace(owner_key=None))
    for item in chain.steps:
        unchecked.append(item)
    signed = step(Operation.CLOSED, chain.seq + 1, A, "a", Closed(CloseReason.FULL, taints[:MAX_LISTED], bytes(64)))
    with pytest.raises(IllegalStep, match="lists 1024 of the 1026"):
        unchecked.append(signed)


# -- taints, generations, seals -------------------------------------------------------------------------------


def test_chain_keeps_taints_through_everything_but_the_seal() -> None:
    """[R] What stands against a history goes with the owner's seal that lists it, and with nothing else."""
    steps = [
        *created(),
        step(Operation.ALTERED, 1, B, "a"),
        step(Operation.GAP, 2, argument=Gap(GapReason.UNKNOWN)),
        step(Operation.WRITTEN, 3, C, "a"),
    ]
    chain = replay(steps)
    both = {(CHAIN, 1), (CHAIN, 2)}
    assert set(chain.taints) == both
    for accepts in ((), ((CHAIN, 1),), ((CHAIN, 2),), tuple(sorted(both))):
        chain = replay(steps)
        chain.append(seal_step(chain, 3, 4, accepts))
        assert set(chain.taints) == both - set(accepts)


@pytest.mark.parametrize("first", [Operation.CREATED, Operation.COPIED, Operation.ADOPTED])
def test_chain_of_a_next_generation_begins_with_adopted(first: Operation) -> None:
    """[R] Only `adopted` continues a chain, and it takes over what stood against it."""
    taint = Taint(bytes(32), 4, TaintKind.ALTERED)
    before = Ending(bytes(32), 5, bytes([9]) * 32, A, "a", (taint,))
    named = Predecessor(before.chain_id, before.seq, before.head) if first is Operation.ADOPTED else None
    begin = step(first, 0, A, "a", named)
    if first is not Operation.ADOPTED:
        with pytest.raises(IllegalStep, match="cannot continue"):
            replay([begin], before)
        return
    assert list(replay([begin], before).taints.values()) == [taint]
    for other in (begin._replace(content=B), begin._replace(path="b"), begin._replace(content=None)):
        with pytest.raises(IllegalStep):
            replay([other], before)
    with pytest.raises(NotProven, match="end is not shown"):
        replay([begin])


def test_chain_that_was_deleted_may_be_continued_with_any_content() -> None:
    """Where the chain before ended without a file, `adopted` has nothing to keep."""
    before = Ending(bytes(32), 5, bytes([9]) * 32, None, None, ())
    named = Predecessor(before.chain_id, before.seq, before.head)
    assert replay([step(Operation.ADOPTED, 0, B, "b", named)], before).content == B


def test_chain_checks_the_signature_of_a_close() -> None:
    """A `closed` is signed by the owner over the head before it, or not at all."""
    chain = replay(created())
    bare = close_step(created(), A, "a")
    message = close_message(BINDING, chain.head, bare.entry)

    def signed(signature: bytes) -> Step:
        closed = bare.entry.argument
        assert isinstance(closed, Closed)
        return bare._replace(entry=bare.entry._replace(argument=closed._replace(signature=signature)))

    assert is_taken(created(), bare)
    assert is_taken(created(), signed(OWNER.sign(message)))
    assert not is_taken(created(), signed(OWNER.sign(message + b"x")))
    assert not is_taken(created(), signed(bytes(64)))
    for right, kinds in ((bare, [TaintKind.UNSIGNED_CLOSE]), (signed(OWNER.sign(message)), [])):
        assert [taint.kind for taint in replay([*created(), right]).ending().taints] == kinds


def test_chain_head_binds_log_owner_and_file() -> None:
    """The same entries under another log, root or chain id have another head."""
    heads = set()
    others: list[dict[Literal["log_name", "root", "chain_id"], object]]
    others = [{}, {"log_name": "x+" + "0" * 64}, {"root": bytes([1]) * 32}, {"chain_id": bytes(32)}]
    for other in others:
        chain = Chain(BINDING._replace(**other))  # type: ignore[arg-type]
        chain.append(created()[0])
        heads.add(chain.head)
    assert len(heads) == len(others)
    assert chains.NO_SEAL == NO_SEAL == bytes(32)


def test_chain_head_binds_order_and_number() -> None:
    """The same hash at another seq, or after another head, links to another head."""
    head, one = bytes(32), bytes([1]) * 32
    links = {chains.link(h, c, n, d) for h in (head, one) for c in (head, one) for n in (0, 1) for d in (head, one)}
    assert len(links) == 16


def test_chain_check_openings_wants_every_part_or_its_erased_entry() -> None:
    """[R] A part that is not shown is named by an `erased` entry of this chain."""
    for part in Part:
        hidden = created()[0]._replace(**{part.word: MISSING})
        steps = [hidden, step(Operation.WRITTEN, 1, B, "a")]
        with pytest.raises(NotProven, match=part.word):
            replay(steps).check_openings()
        replay([*steps, step(Operation.ERASED, 2, argument=Erased(0, part))]).check_openings()
        other = Part.PATH if part is not Part.PATH else Part.CONTEXT
        with pytest.raises(NotProven, match=part.word):
            replay([*steps, step(Operation.ERASED, 2, argument=Erased(0, other))]).check_openings()
