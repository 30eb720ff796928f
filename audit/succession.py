"""A log that goes on under a new origin after a loss, as a node sees it that watched the old one (SPEC 6.5).

    leaf 0         04 || hash: the declarations come from URL/loss, with the old key's word for the new origin
    the note       signed by a key that this node was told of; not older than what it cosigned itself
    kept           the declaration names no leaf as lost that our mirror of the old origin holds
    earlier ones   the declarations after the first are those that leaf 0 of the old origin names
    one successor  of each origin, in witness.db, with its declaration: nothing is cosigned for the old origin any more,
                   nor for another one, and two declarations make evidence
    leaf i         what our mirror of the old origin holds as leaf i-1, map commitments apart; none is missing

What breaks this is refused each time it is asked about, and kept as a finding. A leaf that is another one than the held
one becomes a file (`audit.evidence`): the log said that it has kept it. Of an origin that was never watched here
nothing can be compared, and nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from audit.errors import PeerFailed
from audit.witness import FINDING, Inconsistent
from audit.witness_store import AUDITOR, WITNESS, Store
from verifier.checkpoint import Checkpoint, parse_checkpoint_unverified
from verifier.conviction import FORK
from verifier.errors import Error, Malformed
from verifier.leaf import LOSS, MAP
from verifier.loss import MAX_LOSS_SIZE, loss_leaf, open_declared, parse_loss, shift_after
from verifier.note import parse_note
from verifier.proof import Declared
from verifier.replay import CHAIN_BROKEN
from verifier.tile import TILE_WIDTH

if TYPE_CHECKING:
    from audit.mirror import Mirror
    from audit.tile_reader import Fetch


class OtherLeaf(NamedTuple):
    """Leaf `leaf_index` of the old origin, and the leaf that stands in its place."""

    leaf_index: int
    leaf: bytes


class BadSuccession(Inconsistent):
    """A log that says it goes on from another one, and does not as SPEC 6.5 has it.

    `declared` has what the log signed, where that convicts it: two declarations; or one, and the leaf that was changed.
    """

    def __init__(
        self,
        message: str,
        old: str = "",
        declared: Sequence[tuple[str, Declared]] = (),
        changed: OtherLeaf | None = None,
    ) -> None:
        super().__init__(FINDING, f"declared loss: {message}")
        self.fault = FORK if len(declared) == 2 else CHAIN_BROKEN
        self.old, self.declared, self.changed = old, declared, changed


class Succession:
    """The checks of one node. `mirror` gives what it holds of an origin."""

    def __init__(self, store: Store, mirror: Callable[[str], Mirror], fetch: Fetch) -> None:
        self._store, self._mirror, self._fetch = store, mirror, fetch

    async def check(self, origin: str, start: int, leaves: Sequence[bytes], url: str) -> None:
        """Before leaves of `origin` are held: leaf 0 is what an old origin left, and the others are the old ones."""
        if start == 0 and leaves[0][:1] == bytes([LOSS]):
            await self._begin(origin, leaves[0], url)
        old = self._store.predecessor(origin)
        changed = None if old is None else find_changed(self._mirror(old), start, leaves)
        if old is not None and changed is not None:
            message = f"leaf {changed.leaf_index} of {old}, which is held here, is another one under {origin}"
            raise BadSuccession(message, old, [(origin, self._declared(old))], changed)

    def check_whole(self, origin: str, size: int) -> None:
        """None of the old origin's leaves that are held here is missing in a tree of `size`."""
        old = self._store.predecessor(origin)
        if old is None:
            return
        held = self._mirror(old)
        if size < held.size + _shift(held):
            raise _dropped(f"size {size}", held.size, old)

    async def _begin(self, origin: str, leaf: bytes, url: str) -> None:
        data = await self._fetch(f"{url.rstrip('/')}/loss", MAX_LOSS_SIZE)
        try:
            declared = parse_loss(data)
            newest = declared[0]
            old = parse_checkpoint_unverified(parse_note(newest.note).text).origin
        except Malformed as error:
            raise PeerFailed(f"{url}/loss: {error}") from None
        if loss_leaf(declared) != leaf:
            raise BadSuccession("leaf 0 names other declarations than the log shows")
        known = self._store.log(old)
        if known is None:
            return
        _, tree = self._open(newest, origin, old)
        for signer in (WITNESS, AUDITOR):
            head = self._store.head(signer, old)
            if head is not None and (head.size > tree.size or head.size == tree.size and head.root != tree.root):
                raise BadSuccession(f"its note of {old} has size {tree.size}, and size {head.size} was cosigned here")
        self._check_earlier(old, declared[1:])
        if newest.kept < self._mirror(old).size:  # [R] else any leaf could be changed by saying that it was lost
            raise _dropped(f"the declaration, which keeps {newest.kept},", self._mirror(old).size, old)
        successor = self._store.succeed(old, origin, data.decode("utf-8"))
        if successor != origin:
            message = f"{old} goes on as {successor} already: two logs cannot go on from one note"
            raise BadSuccession(message, old, [(successor, self._declared(old)), (origin, newest)])

    def _check_earlier(self, old: str, earlier: Sequence[Declared]) -> None:
        """[R] The losses before are those with which the old origin began: what was kept then is not said anew."""
        held = self._mirror(old)
        first = held.leaves(0)[0] if held.size else b""
        begun = loss_leaf(earlier) if earlier else b""
        if held.size and begun != (first if first[:1] == bytes([LOSS]) else b""):
            raise BadSuccession(f"it declares other losses before {old} than those with which {old} began")

    def _declared(self, old: str) -> Declared:
        """The first declaration for a successor of this origin that was seen and found good here."""
        return parse_loss(self._store.declaration(old).encode("utf-8"))[0]

    def _open(self, newest: Declared, origin: str, old: str) -> tuple[object, Checkpoint]:
        log, known = self._store.log(origin), self._store.log(old)
        keys = [] if log is None else [key.public_key for key in log.keys]
        if newest.key not in keys:
            raise BadSuccession(f"{old} hands on to a key of {origin} that this node was not told of")
        try:
            return open_declared(newest, origin, known.signers if known else ())  # none that was replaced hands on
        except Error as error:
            raise BadSuccession(str(error)) from None


def _dropped(what: str, held: int, old: str) -> BadSuccession:
    return BadSuccession(
        f"{what} drops leaves that were not lost: {held} leaves of {old} are held here; they can be had again with "
        "`recover --from` this node"
    )


def find_changed(old: Mirror, start: int, leaves: Sequence[bytes]) -> OtherLeaf | None:
    """Leaves from `start` on are the old ones, in their order, as far as these are held; commitments are made anew.

    The first one that is not.
    """
    shift = _shift(old)
    bundle: list[bytes] = []
    for index, leaf in enumerate(leaves, start):
        number, place = divmod(index - shift, TILE_WIDTH)
        if index == 0 or index - shift >= old.size:
            continue
        if not bundle or place == 0:
            bundle = old.leaves(number)
        if bundle[place] != leaf and not (bundle[place][:1] == leaf[:1] == bytes([MAP])):
            return OtherLeaf(index - shift, leaf)
    return None


def _shift(old: Mirror) -> int:
    """How much further a leaf is in the new tree; 1 where nothing is held."""
    return shift_after(old.leaves(0)[0] if old.size else b"")
