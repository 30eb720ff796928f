"""Evidence files (SPEC 9.1): those that convict, and those that look as if they did.

Each case is (what, expected, log key, cosigners' keys, the file's value). Everything is put together by the slow
reference, from a fake log that signs whatever it is told to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests import map_reference
from tests.builder import secret
from tests.fakes import NOW, FakeLog, digest, map_value
from tests.reference import consistency, mth, path, split
from verifier.encoding import encode_base64
from verifier.loss import loss_message
from verifier.note import (
    COSIGNATURE,
    Note,
    Signature,
    SignerKey,
    cosign,
    format_note,
    format_vkey,
    parse_note,
    sign_note,
)
from verifier.proof import format_proof

FORMAT = "nextcloud-audit/evidence/1"
NOTHING, MALFORMED = "NOTHING", "MALFORMED"
WITNESS = SignerKey("witness.example/w", COSIGNATURE, secret("evidence witness"))
OTHER_WITNESS = SignerKey("other.example/w", COSIGNATURE, secret("other evidence witness"))

Value = dict[str, Any]
CASES: dict[str, tuple[str, str, Callable[[], tuple[FakeLog, Value | str]]]] = {}


def case(expect: str, what: str) -> Callable[[Callable[[], tuple[FakeLog, Value | str]]], None]:
    def add(make: Callable[[], tuple[FakeLog, Value | str]]) -> None:
        CASES[make.__name__.replace("_", "-")] = (what, expect, make)

    return add


def document(name: str) -> dict[str, object]:
    what, expect, make = CASES[name]
    log, value = make()
    text = value if isinstance(value, str) else spell(value)
    keys = {"log": log.vkey, "cosigners": [format_vkey(one.verifier_key) for one in (OTHER_WITNESS, WITNESS)]}
    return {"name": name, "what": what, "expect": expect, **keys, "evidence": text}


def spell(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def evidence(kind: str, **members: object) -> Value:
    return {"format": FORMAT, "kind": kind, "seen": str(NOW), **members}


def two(kind: str, *notes: bytes, **more: object) -> Value:
    return evidence(kind, notes=[note.decode() for note in notes], **more)


def cosigned(note: bytes, time: int) -> bytes:
    parsed = parse_note(note)
    return format_note(parsed._replace(signatures=(*parsed.signatures, cosign(parsed.text, WITNESS, time))))


def forked(a: int = 20, b: int = 25) -> tuple[FakeLog, FakeLog]:
    """Two logs of one key: the second has another first leaf, and is longer."""
    return FakeLog().grow(a - 1), FakeLog().grow(a - 2, chains=7).grow(b - a)


# Replays


def peaks(leaves: list[bytes]) -> list[bytes]:
    """The complete subtrees, left to right."""
    if not leaves:
        return []
    if len(leaves) & (len(leaves) - 1) == 0:
        return [mth(leaves)]
    k = split(len(leaves))
    return [mth(leaves[:k]), *peaks(leaves[k:])]


def tips_below(log: FakeLog, size: int) -> dict[bytes, tuple[int, bytes, int]]:
    other = FakeLog()
    for leaf in log.leaves[:size]:
        if leaf[:1] == b"\x01":
            other.add_entry(leaf[1:33], leaf[41:], int.from_bytes(leaf[33:41], "big"))
        else:
            other.leaves.append(leaf)
    return other.tips


def replay(log: FakeLog, size: int, end: int, chains: list[bytes] | None = None) -> Value:
    """Leaves number `size` to `end` - 1, with the places of their chains in the map below `size`."""
    leaves, tips = log.leaves[size:end], tips_below(log, size)
    entries = {chain_id: map_value(*tip) for chain_id, tip in tips.items()}
    shown = sorted({leaf[1:33] for leaf in leaves if len(leaf) == 73}) if chains is None else chains
    return evidence(
        "broken-replay",
        note=log.checkpoint().decode(),
        size=str(size),
        peaks=encode_base64(b"".join(peaks(log.leaves[:size]))),
        leaves=[encode_base64(leaf) for leaf in leaves],
        hashes=encode_base64(b"".join([] if end == len(log.leaves) else consistency(end, log.leaves))),
        chains=[chain(entries, tips, chain_id) for chain_id in shown],
    )


def chain(entries: dict[bytes, bytes], tips: dict[bytes, tuple[int, bytes, int]], chain_id: bytes) -> Value:
    _, siblings, terminal = map_reference.prove(entries, chain_id)
    held = None
    if chain_id in tips:
        seq, head, index = tips[chain_id]
        held = {"seq": str(seq), "head": encode_base64(head), "index": str(index)}
    other = None if terminal is None else encode_base64(b"".join(terminal))
    return {
        "chain": encode_base64(chain_id),
        "held": held,
        "other": other,
        "siblings": encode_base64(b"".join(siblings)),
    }


def skipping(more: int = 3) -> FakeLog:
    """Leaf 23 skips a seq; leaf 20 is the map commitment before it, and `more` leaves follow."""
    log = FakeLog().grow(20)
    log.add_entry(digest(b"chain", 3), digest(b"x", 90))
    log.add_entry(digest(b"chain", 11), digest(b"x", 91))
    log.add_entry(digest(b"chain", 3), digest(b"x", 92), seq=7)
    log.add_map()
    return log.grow(more) if more else log


def wrong_map(more: int = 3) -> FakeLog:
    """Leaf 23 commits to a wrong map."""
    log = FakeLog().grow(20)
    log.add_entry(digest(b"chain", 3), digest(b"x", 90))
    log.add_entry(digest(b"chain", 11), digest(b"x", 91))
    log.add_map(digest(b"map", 1))
    return log.grow(more) if more else log


# Forks


@case("fork", "two notes of one log, one size, two roots")
def two_roots() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, two("two-roots", log.checkpoint(), log.checkpoint(10, digest(b"fork", 0)))


@case(NOTHING, "the same tree twice, cosigned at another time")
def two_roots_that_are_one() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, two("two-roots", log.checkpoint(), cosigned(log.checkpoint(), NOW))


@case(NOTHING, "two sizes: a log that has grown")
def two_roots_of_two_sizes() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    return log, two("two-roots", log.checkpoint(10), log.checkpoint())


@case(NOTHING, "[R] the other root was signed by a key of the same name that is not the log's")
def two_roots_by_another_key() -> tuple[FakeLog, Value]:
    log, other = FakeLog().grow(9), FakeLog(secret=b"\x08" * 32).grow(9, chains=2)
    return log, two("two-roots", log.checkpoint(), other.checkpoint())


@case(NOTHING, "[R] the other root under the signature of the first")
def two_roots_with_a_forged_signature() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    one, other = parse_note(log.checkpoint()), parse_note(log.checkpoint(10, digest(b"fork", 0)))
    return log, two("two-roots", format_note(one), format_note(other._replace(signatures=one.signatures)))


@case("fork", "the bigger tree grew out of another one than the smaller tree that was signed")
def other_prefix() -> tuple[FakeLog, Value]:
    one, other = forked()
    size, proof = len(one.leaves), consistency(len(one.leaves), other.leaves)
    more = {"root": encode_base64(mth(other.leaves[:size])), "hashes": encode_base64(b"".join(proof))}
    return one, two("other-prefix", one.checkpoint(), other.checkpoint(), **more)


@case(NOTHING, "an honest log: the root that the bigger tree grew out of is the one that was signed")
def other_prefix_that_is_the_same() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(19).grow(4)
    more = {"root": encode_base64(mth(log.leaves[:20])), "hashes": encode_base64(b"".join(consistency(20, log.leaves)))}
    return log, two("other-prefix", log.checkpoint(20), log.checkpoint(), **more)


@case(NOTHING, "[R] another root, and the consistency proof of the true one")
def other_prefix_that_does_not_lead_to_the_bigger_tree() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(19).grow(4)
    more = {"root": encode_base64(digest(b"root", 0)), "hashes": encode_base64(b"".join(consistency(20, log.leaves)))}
    return log, two("other-prefix", log.checkpoint(20), log.checkpoint(), **more)


@case("rollback", "a witness signed size 10 as the newest tree after it had signed size 15")
def rolled_back() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    return log, two("rolled-back", cosigned(log.checkpoint(), NOW), cosigned(log.checkpoint(10), NOW + 1))


@case("rollback", "[R] another cosigner's line under the smaller tree is of the bigger one: each is judged by its own")
def rolled_back_beside_a_line_that_does_not_hold() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    small, big = parse_note(cosigned(log.checkpoint(10), NOW + 1)), cosigned(log.checkpoint(), NOW)
    other = cosign(parse_note(big).text, OTHER_WITNESS, NOW)
    return log, two("rolled-back", big, format_note(Note(small.text, (*small.signatures, other))))


@case(NOTHING, "[R] the line of the very cosigner does not hold under the smaller tree")
def rolled_back_by_a_line_that_does_not_hold() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    small, line = parse_note(log.checkpoint(10)), cosign(parse_note(log.checkpoint()).text, WITNESS, NOW + 1)
    notes = cosigned(log.checkpoint(), NOW), format_note(Note(small.text, (*small.signatures, line)))
    return log, two("rolled-back", *notes)


@case(NOTHING, "the smaller tree was signed first, as it should be")
def rolled_back_the_other_way() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    return log, two("rolled-back", cosigned(log.checkpoint(), NOW + 1), cosigned(log.checkpoint(10), NOW))


@case(NOTHING, "both within one second: nobody knows in which order")
def rolled_back_within_a_second() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    return log, two("rolled-back", cosigned(log.checkpoint(), NOW), cosigned(log.checkpoint(10), NOW))


@case(NOTHING, "nobody signed both trees")
def rolled_back_without_a_witness() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9).grow(4)
    return log, two("rolled-back", log.checkpoint(), cosigned(log.checkpoint(10), NOW))


@case(MALFORMED, "the second note's size has a sign, and the first one's signature does not hold: the form comes first")
def two_roots_of_which_one_is_no_checkpoint() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    note = log.checkpoint()
    return log, two("two-roots", note.replace(b"\n10\n", b"\n11\n"), note.replace(b"\n10\n", b"\n+10\n"))


@case("fork", "two roots under one size in notes with an extension line, which a log of others may have")
def two_roots_with_extension_lines() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    roots = mth(log.leaves), digest(b"fork", 0)
    texts = [parse_note(log.checkpoint(10, root)).text + b"more\n" for root in roots]
    return log, two("two-roots", *[format_note(Note(text, (sign_note(text, log.signer),))) for text in texts])


@case(NOTHING, "notes of two logs: their sizes say nothing of each other")
def two_roots_of_two_logs() -> tuple[FakeLog, Value]:
    log, other = FakeLog().grow(9), FakeLog("other.example/log").grow(9, chains=2)
    return log, two("two-roots", log.checkpoint(), other.checkpoint())


@case(MALFORMED, "one hash too many in the consistency proof: it fits no tree of these sizes")
def other_prefix_with_a_hash_too_many() -> tuple[FakeLog, Value]:
    one, other = forked()
    size, proof = len(one.leaves), consistency(len(one.leaves), other.leaves)
    more = {"root": encode_base64(mth(other.leaves[:size])), "hashes": encode_base64(b"".join([*proof, proof[0]]))}
    return one, two("other-prefix", one.checkpoint(), other.checkpoint(), **more)


def _worlds() -> tuple[FakeLog, str, str]:
    """Two proofs of one chain from two worlds of one key, whose second step differs."""
    from tests.verifier.worlds import created

    one, other = created(b"one", b"two"), created(b"one", b"TWO")
    log = FakeLog()
    log.vkey = format_vkey(one.log.verifier_key)
    return log, format_proof(one.prove(1)).decode(), format_proof(other.prove(1)).decode()


@case("fork", "two whole proofs of one chain that differ at step 1")
def two_histories() -> tuple[FakeLog, Value]:
    log, one, other = _worlds()
    return log, evidence("two-histories", proofs=[one, other])


@case(MALFORMED, "a proof under a log name whose hash has a letter too many")
def two_histories_of_no_log_name() -> tuple[FakeLog, Value]:
    log, one, other = _worlds()
    name = json.loads(one)["log"]
    return log, evidence("two-histories", proofs=[one.replace(name, name + "0"), other])


@case(NOTHING, "the same history twice")
def two_histories_that_agree() -> tuple[FakeLog, Value]:
    log, one, _ = _worlds()
    return log, evidence("two-histories", proofs=[one, one])


@case(NOTHING, "[R] one history was altered after it was proven: its entries do not link to the head in the map")
def two_histories_of_which_one_was_altered() -> tuple[FakeLog, Value]:
    log, one, other = _worlds()
    first, second = json.loads(one), json.loads(other)
    first["entries"] = second["entries"]
    return log, evidence("two-histories", proofs=[one, spell(first)])


# Broken chains, wrong maps


@case("chain-broken", "an entry leaf that skips seqs of its chain, with the chain's place in the map before")
def seq_skipped() -> tuple[FakeLog, Value]:
    log = skipping()
    return log, replay(log, 20, 24, [digest(b"chain", 3)])


@case("chain-broken", "a chain that starts with seq 1, shown to be absent from the map before")
def chain_without_a_start() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.add_entry(digest(b"chain", 99), digest(b"x", 1), seq=1)
    log.add_map()
    return log, replay(log, 20, 22)


@case("chain-broken", "an entry that is logged twice, from the first leaf on: before it there is no map")
def seq_repeated_from_the_start() -> tuple[FakeLog, Value]:
    log = FakeLog()
    for seq in (0, 1, 1):
        log.add_entry(digest(b"chain", 1), digest(b"x", seq), seq)
    log.add_map()
    return log, replay(log, 0, 3)


@case("chain-broken", "a leaf of an unknown kind; nothing but the leaf is needed")
def leaf_of_an_unknown_kind() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.leaves.append(b"\x09" + digest(b"?", 0))
    log.add_map()
    return log, replay(log, 21, 22)


@case(NOTHING, "a leaf announces a new log key, as it may")
def leaf_of_a_new_log_key() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.leaves.append(b"\x05" + digest(b"key", 0))
    log.add_map()
    return log, replay(log, 21, 22)


@case("chain-broken", "the last leaf of a signed tree is no map commitment")
def last_leaf_without_a_map() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.add_entry(digest(b"chain", 3), digest(b"x", 90))
    return log, replay(log, 21, 22, [])


@case("chain-broken", "a loss is declared in the middle of a log")
def loss_in_the_middle() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.leaves.append(b"\x04" + digest(b"loss", 0))
    log.add_map()
    return log, replay(log, 21, 22)


@case("map-wrong", "a map commitment that is not what the entries before it give")
def wrong_map_committed() -> tuple[FakeLog, Value]:
    log = wrong_map()
    return log, replay(log, 20, 24)


@case("map-wrong", "two commitments in a row to two maps")
def map_changed_by_nothing() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.add_map(digest(b"map", 0))
    return log, replay(log, 20, 22)


@case("map-wrong", "the first commitment of a log, over all its leaves")
def wrong_map_from_the_start() -> tuple[FakeLog, Value]:
    log = FakeLog()
    log.add_entry(digest(b"chain", 1), digest(b"x", 0))
    log.add_map(digest(b"map", 0))
    return log, replay(log, 0, 2)


@case(NOTHING, "an honest stretch: chains are followed, the map is right")
def honest_stretch() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20).grow(4).grow(3)
    return log, replay(log, 20, 26)


@case(NOTHING, "[R] a wrong map, but the place of one chain in it is withheld: it may be what makes the difference")
def wrong_map_with_a_chain_withheld() -> tuple[FakeLog, Value]:
    log = wrong_map()
    return log, replay(log, 20, 24, [digest(b"chain", 3)])


@case(NOTHING, "[R] an honest chain, and a false word of what the map before held of it")
def tip_that_the_map_does_not_hold() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20).grow(4).grow(3)
    value = replay(log, 20, 22, [digest(b"chain", 0)])
    value["chains"][0]["held"]["seq"] = "9"
    return log, value


@case(NOTHING, "[R] an honest chain said to be absent from the map before")
def absence_that_does_not_hold() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20).grow(4)
    value = replay(log, 20, 22, [digest(b"chain", 0)])
    value["chains"][0]["held"] = None
    return log, value


@case(NOTHING, "[R] a leaf that was never in the tree")
def leaf_that_is_not_in_the_tree() -> tuple[FakeLog, Value]:
    log = skipping()
    value = replay(log, 20, 24)
    log.leaves = FakeLog().grow(20).grow(6).leaves
    return log, value | {"note": log.checkpoint().decode()}


@case(NOTHING, "[R] the leaf between that makes the seq right is left out")
def leaf_left_out() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20, chains=1).grow(3, chains=1)
    value = replay(log, 20, 23)
    del value["leaves"][1]
    return log, value | {"hashes": encode_base64(b"".join(consistency(22, log.leaves)))}


@case(NOTHING, "[R] the same leaves under a note that another key signed")
def replay_of_another_log() -> tuple[FakeLog, Value]:
    log, other = skipping(), FakeLog(secret=b"\x08" * 32)
    other.leaves = log.leaves
    return log, replay(log, 20, 24) | {"note": other.checkpoint().decode()}


@case(MALFORMED, "leaves that go on after the one that breaks a rule")
def leaves_after_the_broken_one() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20)
    log.leaves.append(b"\x09" + digest(b"?", 0))
    log.add_entry(digest(b"chain", 3), digest(b"x", 90))
    log.add_map()
    return log, replay(log, 21, 23, [])


@case(MALFORMED, "a third map commitment between the first leaf and the last one")
def map_commitment_between() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(20).grow(2)
    log.add_map(digest(b"map", 0))
    return log, replay(log, 20, 25)


@case(MALFORMED, "a chain is shown that no leaf touches")
def chain_that_no_leaf_touches() -> tuple[FakeLog, Value]:
    log = wrong_map()
    chains = sorted([digest(b"chain", 3), digest(b"chain", 5), digest(b"chain", 11)])
    return log, replay(log, 20, 24, chains)


@case(MALFORMED, "chains out of order")
def chains_out_of_order() -> tuple[FakeLog, Value]:
    log = wrong_map()
    value = replay(log, 20, 24)
    value["chains"].reverse()
    return log, value


@case(MALFORMED, "more leaves than the signed size")
def leaves_beyond_the_signed_size() -> tuple[FakeLog, Value]:
    log = skipping(0)
    value = replay(log, 20, 24)
    value["leaves"] += [value["leaves"][1]] * 3
    return log, value


@case(MALFORMED, "a member that the format does not have")
def evidence_with_an_unknown_member() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, two("two-roots", log.checkpoint(), log.checkpoint(10, digest(b"fork", 0)), why="fork")


@case(MALFORMED, "white space between tokens")
def evidence_with_white_space() -> tuple[FakeLog, str]:
    log = FakeLog().grow(9)
    value = two("two-roots", log.checkpoint(), log.checkpoint(10, digest(b"fork", 0)))
    return log, json.dumps(value, ensure_ascii=False) + "\n"


@case(MALFORMED, "a kind that the format does not have")
def evidence_of_an_unknown_kind() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, two("three-roots", log.checkpoint(), log.checkpoint(10, digest(b"fork", 0)))


@case(MALFORMED, "one note")
def evidence_of_one_note() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, two("two-roots", log.checkpoint())


@case(MALFORMED, "a number with a leading zero")
def evidence_with_a_leading_zero() -> tuple[FakeLog, Value]:
    log = skipping()
    return log, replay(log, 20, 24) | {"size": "020"}


# Two declared losses


def successor(log: FakeLog, origin: str, number: int = 1, signer: FakeLog | None = None, **change: object) -> Value:
    """The log's word that it goes on under an origin with some key; what is changed is signed, too."""
    shown = {"note": log.checkpoint(), "key": digest(b"new key", number), "kept": 5} | change
    note, key, kept = shown["note"], shown["key"], shown["kept"]
    signature = (signer or log).signer.sign(loss_message(origin, key, kept, note))  # type: ignore[arg-type]
    return {
        "origin": origin,
        "note": note.decode(),  # type: ignore[attr-defined]
        "key": encode_base64(key),  # type: ignore[arg-type]
        "kept": str(kept),
        "signature": encode_base64(signature),
    }


def successors(*declared: Value) -> Value:
    return evidence("two-successors", declared=list(declared))


@case("fork", "a log declares a loss twice, and goes on under two origins")
def two_successors() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, successors(successor(log, "log.example/one/2"), successor(log, "log.example/one/other"))


@case("fork", "a log declares a loss twice, for two keys of one new origin, from two notes")
def two_successors_by_key() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    first = successor(log, "log.example/one/2")
    return log.grow(3), successors(first, successor(log, "log.example/one/2", 2))


@case("fork", "[R] a log declares one loss twice, and says once that it has kept more leaves")
def two_successors_by_what_was_kept() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, successors(successor(log, "log.example/one/2", kept=5), successor(log, "log.example/one/2", kept=6))


@case(NOTHING, "the same declaration twice")
def two_successors_that_are_one() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, successors(successor(log, "log.example/one/2"), successor(log, "log.example/one/2"))


@case(NOTHING, "one of two declarations is not signed by the log")
def two_successors_of_which_one_is_made_up() -> tuple[FakeLog, Value]:
    log, eve = FakeLog().grow(9), FakeLog("eve.example/log", b"\x09" * 32)
    made_up = successor(log, "eve.example/log", signer=eve)
    return log, successors(successor(log, "log.example/one/2"), made_up)


@case(NOTHING, "one of two declarations names the origin of its own note")
def two_successors_of_which_one_is_the_log_itself() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, successors(successor(log, "log.example/one/2"), successor(log, log.origin))


@case(NOTHING, "one of two declarations is over the note of another log")
def two_successors_of_two_logs() -> tuple[FakeLog, Value]:
    log, other = FakeLog().grow(9), FakeLog("log.example/two", b"\x09" * 32).grow(4)
    return log, successors(successor(log, "log.example/one/2"), successor(other, "log.example/one/other"))


@case(MALFORMED, "three declarations")
def three_successors() -> tuple[FakeLog, Value]:
    log = FakeLog().grow(9)
    return log, successors(*[successor(log, f"log.example/one/{n}") for n in (2, 3, 4)])


# Leaves that a declared loss is said to have left

SECOND, THIRD = "log.example/one/2", "log.example/one/3"
KEPT = 21


def begin(log: FakeLog, origin: str = SECOND, kept: int = KEPT) -> FakeLog:
    """An honest log after a loss: the first leaves again, each commitment made anew, and some of its own."""
    new = FakeLog(origin, secret(f"key of {origin}"))
    new.leaves.append(b"\x04" + digest(b"declared", len(log.leaves)))
    for leaf in log.leaves[log.leaves[0][0] == 4 : kept]:
        if leaf[0] == 2:
            new.add_map()
        else:
            new.add_entry(leaf[1:33], leaf[41:], int.from_bytes(leaf[33:41], "big"))
    return new.grow(7, chains=3)


def lost() -> tuple[FakeLog, FakeLog]:
    """A log of 26 leaves, and the one that goes on after a loss with the first 21 of them."""
    log = FakeLog().grow(20).grow(4)
    return log, begin(log)


def changed(
    log: FakeLog, new: FakeLog, index: int, shift: int = 1, signer: FakeLog | None = None, **word: Any
) -> Value:
    """Leaf `index` of the log, and the leaf of the new one that stands in its place, whatever they are."""
    word = {"kept": KEPT, "key": new.signer.verifier_key.public_key} | word
    shown = [(log.leaves, 0), (log.leaves, index), (new.leaves, index + shift)]
    return evidence(
        "changed-leaf",
        declared=[successor(log, new.origin, signer=signer, **word)],
        notes=[log.checkpoint().decode(), new.checkpoint().decode()],
        index=str(index),
        leaves=[encode_base64(leaves[at]) for leaves, at in shown],
        paths=[encode_base64(b"".join(path(at, leaves))) for leaves, at in shown],
    )


def lying(index: int = 6) -> tuple[FakeLog, FakeLog]:
    """The same, but for one leaf that is another one under the new origin."""
    log, new = lost()
    new.leaves[index + 1] = new.leaves[index + 1][:-1] + b"?"
    return log, new


@case("chain-broken", "an entry leaf that the log said it has kept is another one under the new origin")
def changed_leaf() -> tuple[FakeLog, Value]:
    log, new = lying()
    return log, changed(log, new, 6)


@case("chain-broken", "the very first leaf was changed")
def changed_leaf_0() -> tuple[FakeLog, Value]:
    log, new = lying(0)
    return log, changed(log, new, 0)


@case("chain-broken", "the last leaf of those that were kept, an entry, is a map commitment now")
def changed_leaf_that_is_a_commitment_now() -> tuple[FakeLog, Value]:
    log, new = lost()
    new.leaves[20] = b"\x02" + digest(b"map", 0)
    return log, changed(log, new, 19, kept=20)


@case("chain-broken", "a map commitment is an entry now")
def changed_leaf_that_was_a_commitment() -> tuple[FakeLog, Value]:
    log, new = lost()
    new.leaves[21] = log.leaves[3]
    return log, changed(log, new, 20)


@case("chain-broken", "the second loss of a log: its leaf 0 is a leaf 04, so leaves keep their index")
def changed_leaf_after_a_second_loss() -> tuple[FakeLog, Value]:
    _, log = lost()
    new = begin(log, THIRD)
    new.leaves[6] = new.leaves[6][:-1] + b"?"
    return log, changed(log, new, 6, shift=0)


@case("chain-broken", "the declared note is of another tree than the one that shows the leaf")
def changed_leaf_under_another_note_of_the_old_origin() -> tuple[FakeLog, Value]:
    log, new = lying()
    return log, changed(log, new, 6, note=log.checkpoint(21))


@case(NOTHING, "an honest log: the leaf is the same")
def changed_leaf_that_is_the_same() -> tuple[FakeLog, Value]:
    log, new = lost()
    return log, changed(log, new, 6)


@case(NOTHING, "[R] an honest log: map commitments are made anew")
def changed_leaf_that_is_a_commitment_made_anew() -> tuple[FakeLog, Value]:
    log, new = lost()
    return log, changed(log, new, 20)


@case(
    NOTHING, "[R] an honest log: what was lost is below the declared note's size, and something else stands there now"
)
def changed_leaf_that_was_lost() -> tuple[FakeLog, Value]:
    log, new = lost()
    return log, changed(log, new, 21)


@case(NOTHING, "[R] an honest log: its neighbour in place of the leaf, since leaf 0 says that all have moved by one")
def changed_leaf_in_another_place() -> tuple[FakeLog, Value]:
    log, new = lost()
    return log, changed(log, new, 6, shift=0)


@case(NOTHING, "[R] an honest log after a second loss, as if leaves moved again")
def changed_leaf_after_a_second_loss_in_another_place() -> tuple[FakeLog, Value]:
    _, log = lost()
    return log, changed(log, begin(log, THIRD), 6)


@case(NOTHING, "[R] an honest log after a second loss: leaf 04 of the old origin is left out, and names another note")
def changed_leaf_that_names_the_note() -> tuple[FakeLog, Value]:
    _, log = lost()
    return log, changed(log, begin(log, THIRD), 0, shift=0)


@case(NOTHING, "[R] an honest log after a second loss, and as its leaf 0 one that would move all leaves")
def changed_leaf_with_another_leaf_0() -> tuple[FakeLog, Value]:
    _, log = lost()
    value = changed(log, begin(log, THIRD), 6)
    value["leaves"][0] = encode_base64(log.leaves[1])
    return log, value


@case(NOTHING, "[R] a leaf that the old origin never had")
def changed_leaf_that_was_made_up() -> tuple[FakeLog, Value]:
    log, new = lost()
    value = changed(log, new, 6)
    value["leaves"][1] = encode_base64(b"\x01" + digest(b"made up", 0) * 2 + bytes(8))
    return log, value


@case(NOTHING, "[R] a leaf that the new origin never had")
def changed_leaf_that_stands_nowhere() -> tuple[FakeLog, Value]:
    log, new = lost()
    value = changed(log, new, 6)
    value["leaves"][2] = encode_base64(b"\x01" + digest(b"made up", 0) * 2 + bytes(8))
    return log, value


@case(NOTHING, "[R] the log never said that it goes on so: somebody else did")
def changed_leaf_with_a_declaration_by_another_key() -> tuple[FakeLog, Value]:
    log, new = lying()
    return log, changed(log, new, 6, signer=new)


@case(NOTHING, "[R] an honest log that kept less: the number was raised after it was signed")
def changed_leaf_with_more_kept_than_was_signed() -> tuple[FakeLog, Value]:
    log, new = lost()
    value = changed(log, new, 21)
    value["declared"][0]["kept"] = "26"
    return log, value


@case(NOTHING, "[R] the new tree is signed by another key than the one that was handed on to")
def changed_leaf_under_another_key() -> tuple[FakeLog, Value]:
    log, new = lying()
    return log, changed(log, new, 6, key=log.signer.verifier_key.public_key)


@case(NOTHING, "[R] the new tree is one of another origin, with the same key")
def changed_leaf_under_another_origin() -> tuple[FakeLog, Value]:
    log, new = lying()
    other = FakeLog("log.example/else", new.signer.secret_bytes())
    other.leaves = new.leaves
    return log, changed(log, new, 6) | {"notes": [log.checkpoint().decode(), other.checkpoint().decode()]}


@case(NOTHING, "[R] the old tree is signed by another key of its origin's name")
def changed_leaf_of_an_old_tree_by_another_key() -> tuple[FakeLog, Value]:
    log, new = lying()
    other = FakeLog(log.origin, b"\x08" * 32)
    other.leaves = log.leaves
    return log, changed(log, new, 6) | {"notes": [other.checkpoint().decode(), new.checkpoint().decode()]}


@case(NOTHING, "a loss that is declared for the origin of its own note")
def changed_leaf_of_one_origin() -> tuple[FakeLog, Value]:
    log, new = lying()
    value = changed(log, new, 6)
    value["declared"] = [successor(log, log.origin, kept=KEPT, key=log.signer.verifier_key.public_key)]
    return log, value


@case(MALFORMED, "two declarations")
def changed_leaf_of_two_declarations() -> tuple[FakeLog, Value]:
    log, new = lying()
    value = changed(log, new, 6)
    return log, value | {"declared": value["declared"] * 2}


@case(MALFORMED, "leaf 0 is left out")
def changed_leaf_without_leaf_0() -> tuple[FakeLog, Value]:
    log, new = lying()
    value = changed(log, new, 6)
    return log, value | {"leaves": value["leaves"][1:]}


@case(MALFORMED, "a fourth path")
def changed_leaf_with_a_path_too_many() -> tuple[FakeLog, Value]:
    log, new = lying()
    value = changed(log, new, 6)
    return log, value | {"paths": [*value["paths"], ""]}


@case(MALFORMED, "one hash too many on a path: it fits no tree of this size")
def changed_leaf_with_a_hash_too_many() -> tuple[FakeLog, Value]:
    log, new = lying()
    value = changed(log, new, 6)
    hashes = [*path(6, log.leaves), bytes(32)]
    value["paths"][1] = encode_base64(b"".join(hashes))
    return log, value


@case(MALFORMED, "an index that the old tree does not have")
def changed_leaf_beyond_the_old_tree() -> tuple[FakeLog, Value]:
    log, new = lying()
    return log, changed(log, new, 6) | {"index": "26"}


@case(MALFORMED, "a leaf longer than tiles can hold")
def changed_leaf_that_is_too_long() -> tuple[FakeLog, Value]:
    log, new = lying()
    log.leaves[6] = bytes([9]) * 65_536
    return log, changed(log, new, 6)


@case(MALFORMED, "a declaration without the number of leaves that were kept")
def changed_leaf_without_what_was_kept() -> tuple[FakeLog, Value]:
    log, new = lying()
    value = changed(log, new, 6)
    del value["declared"][0]["kept"]
    return log, value


@case(
    NOTHING,
    "[R] the key that was handed on to is none: whatever is shown under a point of small order is nobody's word",
)
def changed_leaf_under_a_weak_key() -> tuple[FakeLog, Value]:
    log, new = lying()
    weak, text = b"\x01" + bytes(31), parse_note(new.checkpoint()).text
    key_id = hashlib.sha256(new.origin.encode() + b"\n\x01" + weak).digest()[:4]
    anybody = format_note(Note(text, (Signature(new.origin, key_id, weak + bytes(32)),)))  # R = A, S = 0
    return log, changed(log, new, 6, key=weak) | {"notes": [log.checkpoint().decode(), anybody.decode()]}
