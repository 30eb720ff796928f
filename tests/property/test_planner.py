"""The publisher's plan against a replay of all leaves from the first one, as an auditor does it."""

from __future__ import annotations

from hashlib import sha3_256

from hypothesis import given
from hypothesis import strategies as st

from audit.publisher import Waiting, plan_integration
from verifier.encoding import u64
from verifier.leaf import EnrolmentLeaf, EntryLeaf, decode_leaf, encode_leaf

CHAINS = [sha3_256(b"chain %d" % n).digest() for n in range(4)]
ENROLMENT = 4  # stands for an owner's enrolment in a batch


def tagged(name: bytes, *fields: bytes) -> bytes:
    return sha3_256(b"nextcloud-audit/1/" + name + b"\0" + b"".join(fields)).digest()


def replay(leaves: list[bytes]) -> dict[bytes, tuple[int, bytes, int]]:
    """Chain id -> last seq, chain head, index of the last leaf: SPEC 6.4, written out."""
    state: dict[bytes, tuple[int, bytes, int]] = {}
    for index, data in enumerate(leaves):
        leaf = decode_leaf(data) if data else None
        if isinstance(leaf, EntryLeaf):
            if leaf.chain_id not in state:
                assert leaf.seq == 0
                state[leaf.chain_id] = 0, leaf.x, index
            else:
                seq, head, _ = state[leaf.chain_id]
                assert leaf.seq == seq + 1
                state[leaf.chain_id] = leaf.seq, tagged(b"link", head, leaf.chain_id, u64(leaf.seq), leaf.x), index
    return state


@given(st.lists(st.lists(st.integers(0, ENROLMENT), max_size=12), min_size=1, max_size=6))
def test_plan_is_what_a_replay_finds(batches: list[list[int]]) -> None:
    """Leaf indexes, and the map of seqs, heads and indexes, after any split of any history into trees."""
    leaves: list[bytes] = []
    planned: dict[bytes, bytes] = {}
    heads: dict[int, tuple[int, bytes]] = {}
    n = 0
    for batch in batches:
        waiting = []
        for chain in batch:
            n += 1
            x = sha3_256(b"x %d" % n).digest()
            if chain == ENROLMENT:
                waiting.append(Waiting(n, encode_leaf(EnrolmentLeaf(x)), None, None, 7, None))
                continue
            seq, head = heads.get(chain, (-1, b""))
            seq += 1
            head = tagged(b"link", head, CHAINS[chain], u64(seq), x) if seq else x
            heads[chain] = seq, head
            waiting.append(Waiting(n, encode_leaf(EntryLeaf(CHAINS[chain], seq, x)), chain, seq, None, head))
        plan = plan_integration(len(leaves), waiting)
        assert [index for index, *_ in sorted([*plan.entries, *plan.owners])] == list(
            range(len(leaves), len(leaves) + len(batch))
        )
        leaves += [*plan.leaves, b""]  # the map commitment, whose place alone matters here
        planned |= plan.map
        found = replay(leaves)
        assert planned == {
            chain: tagged(b"map-value", u64(seq), head, u64(index)) for chain, (seq, head, index) in found.items()
        }
    assert (n == 0) == (not leaves or all(not leaf for leaf in leaves))
