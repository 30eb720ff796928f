"""A server that lies as it likes, and a verifier that never says VERIFIED for what was not logged.

The server holds the log's key, one of four witnesses (ov - 1 of a quorum of three) and two of four auditors (fewer than
q). These sign anything, with any time. The honest nodes are modelled as honest: a witness signs a tree that continues
the one it signed before; an auditor replays all leaves as well, with the slow replayer below. Forks, rewritten stores,
dropped and swapped entries, lying maps, spliced proofs, old proofs and old cosignatures are all the server's to use.

What really happened is what was logged: `logged` knows, for each leaf, the operation that it stands for. A server may
log a `written` that nobody made, and no proof shows that; but whatever is VERIFIED is the last state in the one history
that a quorum has seen, its taints accepted by the owner, not older than freshness and memory allow.
"""

from __future__ import annotations

import copy
from collections import Counter
from hashlib import sha3_256
from itertools import pairwise
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests import map_reference, reference
from tests.builder import ORIGIN, START, History, World, content_of, sign_seal
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import (
    Argument,
    Operation,
    Part,
    Reverted,
    Seal,
    commit,
    decode_entry,
    decode_path,
    encode_content,
    encode_entry,
)
from verifier.errors import Malformed, Usage
from verifier.leaf import MapLeaf, encode_leaf
from verifier.map import map_value
from verifier.note import Note, Signature, SignerKey, cosign, format_note, sign_note
from verifier.proof import Included, Line, Proof, Since
from verifier.verdict import Memory, Report, Verdict

FILES = (1, 2)
MAX_BRANCHES = 5
MAX_LEAVES = 24
MAX_AGE_S = 3_600
QUORUM = 3
COUNTS: Counter[str] = Counter()
KEYS = World()  # keys and policies, made once
BYTES = (b"one", b"two", b"evil", b"forged")


class Event(NamedTuple):
    """What one leaf stands for."""

    file_id: int
    operation: Operation
    data: bytes | None
    path: str | None
    argument: Argument | None


LOGGED: dict[bytes, Event] = {}  # what happened, by the leaf that says so


class Item(NamedTuple):
    """One place in the server's log: an entry or a map commitment, in store and tree, and any lie about it."""

    file_id: int | None  # None: a map commitment
    line: Line | None = None  # what the store shows; None: it hides the entry
    leaf: bytes | None = None  # what the tree holds, if not what the store says
    older: bool = False  # the map names an older head here


class Node:
    """An honest witness or auditor: the leaves of the newest tree that it has signed."""

    def __init__(self, signer: SignerKey, audits: bool) -> None:
        self.signer, self.audits = signer, audits
        self.seen: list[bytes] = []

    def accepts(self, leaves: list[bytes]) -> bool:
        if leaves[: len(self.seen)] != self.seen or (self.audits and not is_replayed(leaves)):
            return False
        self.seen = list(leaves)
        return True


def is_replayed(leaves: list[bytes]) -> bool:
    """The slow replayer: every leaf follows its chain, every commitment is the map over the leaves before it."""
    chains: dict[bytes, tuple[int, bytes, int]] = {}
    for index, leaf in enumerate(leaves):
        if leaf[0] == 1:
            chain_id, seq, x = leaf[1:33], int.from_bytes(leaf[33:41], "big"), leaf[41:]
            before, head, _ = chains.get(chain_id, (-1, b"", 0))
            if seq != before + 1:
                return False
            chains[chain_id] = (seq, _hash("link", head + chain_id + leaf[33:41] + x) if seq else x, index)
        elif leaf[0] == 2:
            values = {
                key: _hash("map-value", seq.to_bytes(8, "big") + head + at.to_bytes(8, "big"))
                for key, (seq, head, at) in chains.items()
            }
            if leaf[1:] != map_reference.build_map(values):
                return False
    return leaves[-1][0] == 2


def _hash(name: str, data: bytes) -> bytes:
    return sha3_256(b"nextcloud-audit/1/" + name.encode() + b"\0" + data).digest()


class Branch:
    """One of the logs that the server keeps: its items, and the world that they make."""

    def __init__(self, items: list[Item], honest: bool) -> None:
        self.items, self.honest = items, honest
        self.cut: dict[int, History] = {}  # by tree size, the history that its lying map speaks of
        self.world = bare_world()
        for item in items:
            self._add(item)

    def _add(self, item: Item) -> None:
        world = self.world
        if item.file_id is None:
            mapped = dict(world.map)
            if item.older:
                self._name_older_head(mapped)
            world.leaves.append(item.leaf or encode_leaf(MapLeaf(map_reference.build_map(mapped))))
            world.maps[len(world.leaves)] = mapped
        elif item.line is None:
            assert item.leaf is not None
            world.leaves.append(item.leaf)
        else:
            history = world.histories.setdefault(item.file_id, History(world.binding(item.file_id), 0, None))
            world.append(history, item.line, replay=False)
            if item.leaf is None:
                LOGGED[world.leaves[-1]] = event_of(item.file_id, item.line)
            else:
                world.leaves[-1] = item.leaf

    def _name_older_head(self, mapped: dict[bytes, bytes]) -> None:
        """The map of this tree leaves out the last entry of the chain that was written last."""
        longer = [
            history for history in self.world.histories.values() if history.chain.seq > 0 and len(history.records) > 1
        ]
        for history in sorted(longer, key=lambda h: h.records[-1].index)[-1:]:
            head, record = history.chain.heads[-2], history.records[-2]
            mapped[history.binding.chain_id] = map_value(history.chain.seq - 1, head, record.index)
            self.cut[len(self.world.leaves) + 1] = short = History(history.binding, 0, None)
            short.records = history.records[:-1]

    def record(self, event: Event) -> None:
        """Logs an operation, in store and tree."""
        file_id, operation, data, path, argument = event
        line = self.world.record(file_id, operation, data, path, argument, replay=False)
        KEYS._salts = self.world._salts
        self.items.append(Item(file_id, line))
        LOGGED[self.world.leaves[-1]] = event

    def commit_map(self, older: bool) -> None:
        item = Item(None, older=older and bool(self.world.map))
        self._add(item)
        self.items.append(item)


def bare_world() -> World:
    world = copy.copy(KEYS)
    world.leaves, world.map, world.maps, world.notes, world.histories = [], {}, {}, {}, {}
    return world


class Adversary(RuleBasedStateMachine):
    """The lying server, its honest neighbours, and two verifiers: one that remembers, one that never saw anything."""

    @initialize()
    def start(self) -> None:
        COUNTS["schedules"] += 1
        self.now, KEYS.now, KEYS._salts = START, START, 0  # the same draws give the same bytes
        LOGGED.clear()
        self.branches = [Branch([], True)]
        self.texts: dict[bytes, list[bytes]] = {}  # checkpoint text -> all leaves of its tree
        self.lines: dict[bytes, dict[str, list[Signature]]] = {}  # text -> key name -> its lines, oldest first
        self.witnessed: dict[bytes, list[tuple[int, str]]] = {}  # text -> honest witnesses' times and names
        self.published: list[tuple[int, list[bytes]]] = []  # when a witnesses' quorum stood, and for which leaves
        self.proofs: list[Proof] = []
        self.accepted: list[list[bytes]] = []  # leaves of every tree that was VERIFIED
        self.memory: dict[int, Memory] = {}
        self.seals: list[tuple[int, Seal]] = []
        self.seen_checkpoint: bytes | None = None
        self.seen_size = 0
        self.seen_leaves: list[bytes] = []
        self.honest = [Node(s, False) for s in KEYS.witnesses[1:]] + [Node(s, True) for s in KEYS.auditors[2:]]
        self.liars = [KEYS.witnesses[0], *KEYS.auditors[:2]]
        for file_id, data in ((1, b"one"), (2, b"two"), (1, b"two")):
            known = self.branches[0].world.histories.get(file_id)
            operation = Operation.WRITTEN if known else Operation.CREATED
            self.branches[0].record(Event(file_id, operation, data, f"{file_id}.txt", None))

    # -- what the server does to its logs ---------------------------------------------------------------------

    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """Logs a step that may follow, on any branch: nobody can tell whether it was made."""
        branch = data.draw(st.sampled_from(self.branches))
        file_id = data.draw(st.sampled_from(FILES))
        if len(branch.items) >= MAX_LEAVES:
            return
        history = branch.world.histories.get(file_id)
        content = data.draw(st.sampled_from([b"one", b"two", b"evil"]))
        chain = history.chain if history else None
        if chain is None:
            event = Event(file_id, Operation.CREATED, content, f"{file_id}.txt", None)
        elif chain.status == "deleted":
            event = Event(file_id, Operation.RESTORED, self.data_of(branch, file_id), "back.txt", None)
        else:
            path = str(chain.path)
            older = [seq for seq in chain.versions if seq < chain.version]
            target = data.draw(st.sampled_from(older)) if older else 0
            known = self.data_at(branch, file_id, target)
            current = self.data_of(branch, file_id)
            events = [
                Event(file_id, Operation.WRITTEN, content, path, None),
                Event(file_id, Operation.MOVED, current, path + "x", None),
                Event(file_id, Operation.DELETED, None, None, None),
            ]
            if content != current:
                events.append(Event(file_id, Operation.ALTERED, content, path, None))
            if older:
                events.append(Event(file_id, Operation.REVERTED, known, path, Reverted(target)))
            event = data.draw(st.sampled_from(events))
        branch.record(event)

    @precondition(lambda self: self.seals)
    @rule(data=st.data())
    def record_seal(self, data: st.DataObject) -> None:
        """Logs a seal that the owner's device made, wherever the server likes."""
        branch = data.draw(st.sampled_from(self.branches))
        file_id, seal = data.draw(st.sampled_from(self.seals))
        if file_id in branch.world.histories and len(branch.items) < MAX_LEAVES:
            branch.record(Event(file_id, Operation.SEALED, None, None, seal))

    @precondition(lambda self: len(self.branches) < MAX_BRANCHES)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """Starts another log that shares the beginning of one."""
        branch = data.draw(st.sampled_from(self.branches))
        cut = data.draw(st.integers(0, len(branch.items)))
        self.add_branch(branch, branch.items[:cut])

    @precondition(lambda self: len(self.branches) < MAX_BRANCHES and any(b.items for b in self.branches))
    @rule(data=st.data(), lie=st.sampled_from(["rewrite", "hide", "drop", "swap", "repeat", "forget"]))
    def tamper(self, data: st.DataObject, lie: str) -> None:
        """Edits what was recorded, in the store alone or in the tree as well."""
        branch = data.draw(st.sampled_from([b for b in self.branches if b.items]))
        items, at = list(branch.items), data.draw(st.integers(0, len(branch.items) - 1))
        item, leaf = items[at], branch.world.leaves[at]
        keeps_leaf = data.draw(st.booleans())
        if item.file_id is None:
            items[at] = item._replace(older=True, leaf=leaf if keeps_leaf else None)
        elif lie == "rewrite" and item.line is not None:
            items[at] = item._replace(line=rewritten(item.line), leaf=leaf if keeps_leaf else None)
        elif lie == "hide":
            items[at] = item._replace(line=None, leaf=leaf)
        elif lie == "drop":
            del items[at]
        elif lie == "swap" and at:
            items[at - 1], items[at] = items[at], items[at - 1]
        elif lie == "repeat":
            items.insert(at, item)
        elif lie == "forget":
            items[at:] = [Item(1, None, leaf) for leaf in branch.world.leaves[at:]]
        self.add_branch(branch, items)

    def add_branch(self, branch: Branch, items: list[Item]) -> None:
        made = Branch(list(items), False)
        for size in made.world.maps:
            text = self.text_of(made.world, size)
            if text in self.lines:
                made.world.notes[size] = self.note(text)
        self.branches.append(made)

    # -- what it gets signed ----------------------------------------------------------------------------------

    @rule(data=st.data(), asked=st.integers(0, 31), older=st.sampled_from([False, False, False, True]))
    def publish(self, data: st.DataObject, asked: int, older: bool) -> None:
        """Ends a tree, signs it, and has it cosigned by the liars and by those honest nodes that it asks."""
        branch = data.draw(st.sampled_from(self.branches))
        if len(branch.items) >= MAX_LEAVES or not branch.world.histories:
            return
        branch.commit_map(older)
        branch.honest = branch.honest and not older
        self.cosign(branch, len(branch.world.leaves), data.draw(st.sampled_from([31, 31, 31, asked])))

    @precondition(lambda self: any(b.world.notes for b in self.branches))
    @rule(data=st.data(), asked=st.integers(0, 31))
    def heartbeat(self, data: st.DataObject, asked: int) -> None:
        """Asks again for a tree that was signed before, be it the newest one or not."""
        branch = data.draw(st.sampled_from([b for b in self.branches if b.world.notes]))
        self.cosign(branch, data.draw(st.sampled_from(sorted(branch.world.notes))), asked)

    def cosign(self, branch: Branch, size: int, asked: int) -> None:
        self.now += 1
        leaves = branch.world.leaves[:size]
        text = self.text_of(branch.world, size)
        self.texts[text] = leaves
        lines = self.lines.setdefault(text, {})
        lines["log"] = [sign_note(text, KEYS.log)]
        for signer in self.liars:
            lines.setdefault(signer.verifier_key.name, []).append(cosign(text, signer, self.now + 20))
        for number, node in enumerate(self.honest):
            if asked >> number & 1 and node.accepts(leaves):
                name = node.signer.verifier_key.name
                lines.setdefault(name, []).append(cosign(text, node.signer, self.now))
                if not node.audits:
                    self.witnessed.setdefault(text, []).append((self.now, name))
        if len({name for _, name in self.witnessed.get(text, [])}) >= QUORUM - 1:
            if leaves not in [known for _, known in self.published]:
                self.published.append((self.now, leaves))
        branch.world.notes[size] = self.note(text)

    def text_of(self, world: World, size: int) -> bytes:
        return format_checkpoint(Checkpoint(ORIGIN, size, reference.mth(world.leaves[:size])))

    def note(self, text: bytes, pick: int = -1) -> bytes:
        """The checkpoint with one line of each key that has signed it: the newest, or an older one."""
        lines = self.lines[text]
        return format_note(Note(text, tuple(kept[max(pick, -len(kept))] for kept in lines.values())))

    @rule(seconds=st.sampled_from([1, 60, 60, MAX_AGE_S // 2, 2 * MAX_AGE_S]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    # -- what it shows, and what the verifiers say ------------------------------------------------------------

    @precondition(lambda self: any(b.world.notes and b.world.histories for b in self.branches))
    @rule(data=st.data())
    def show(self, data: st.DataObject) -> None:
        """Makes proofs out of the branches, bends them, and shows them for some path and bytes."""
        for _ in range(data.draw(st.integers(1, 4))):
            proof = self.make_proof(data)
            for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 1, 2])) if proof else 0):
                proof = self.bend(data, proof)
            if proof is not None:
                self.show_proof(data, proof)

    def show_proof(self, data: st.DataObject, proof: Proof) -> None:
        file_id = data.draw(st.sampled_from([proof.file_id, proof.file_id, proof.file_id, *FILES]))
        shown_path, shown = self.state_shown(proof)
        path = data.draw(st.sampled_from([shown_path, shown_path, shown_path, shown_path, "1.txt", "2.txt", "1.txtx"]))
        content = data.draw(st.sampled_from([shown, shown, shown, *BYTES]))
        self.ask(proof, file_id, path, content, Memory())
        self.ask(proof, file_id, path, content)

    @precondition(lambda self: any(b.honest and b.world.notes for b in self.branches))
    @rule()
    def show_honestly(self) -> None:
        """An honest log's honest proof, fully signed, is VERIFIED or says what stands against the file."""
        branch = self.branches[0]
        size = len(branch.world.leaves)
        if not branch.honest or size not in branch.world.notes:
            return
        leaves = branch.world.leaves
        known = [*(node.seen for node in self.honest), self.seen_leaves]
        if any(leaves[: len(seen)] != seen for seen in known):
            return
        self.cosign(branch, size, 31)
        for file_id, history in branch.world.histories.items():
            events = self.events(leaves, file_id)
            if state(events) is None or any(e.operation is Operation.SEALED for e in events):
                continue
            path, content = state(events) or ("", b"")
            proof = branch.world.prove(file_id, pinned=self.seen_size or None)
            proof = proof._replace(first=None, before=None)  # those trees may lack their quorum
            report = self.ask(proof, file_id, path, content)
            assert report is not None
            assert report.verdict is Verdict.VERIFIED, (report.findings, history.binding.file_id)
            COUNTS["honest proofs"] += 1

    def make_proof(self, data: st.DataObject) -> Proof | None:
        branch = data.draw(st.sampled_from([b for b in self.branches if b.world.notes and b.world.histories]))
        world = branch.world
        size = data.draw(st.sampled_from([max(world.notes), *world.notes, *(branch.cut.keys() & world.notes.keys())]))
        ready = [f for f, h in world.histories.items() if h.records and h.records[0].index < size]
        ready = [f for f in ready if world.histories[f].binding.chain_id in world.maps[size]]
        if not ready:
            return None
        pinned = self.seen_size if 0 < self.seen_size <= size and data.draw(st.booleans()) else None
        history = branch.cut.get(size) if data.draw(st.booleans()) else None
        file_id = data.draw(st.sampled_from(ready)) if history is None else history.binding.file_id
        proof = world.prove(file_id, size=size, pinned=pinned, history=history)
        bigger = [later for later in world.notes if later > size and history is None]
        if bigger and data.draw(st.booleans()):  # the old state, in a tree that knows a newer one
            onto = world.prove(file_id, size=max(bigger), pinned=pinned)
            proof = self.graft(proof, onto, data.draw(st.booleans()))
        self.proofs.append(proof)
        return proof

    def bend(self, data: st.DataObject, proof: Proof) -> Proof:
        """Splices in a part of another proof, an old note, or entries in another order."""
        other = data.draw(st.sampled_from(self.proofs))
        kind = data.draw(st.sampled_from(["graft", "part", "part", "note", "entries", "index", "id"]))
        if kind == "graft":
            return self.graft(proof, other, data.draw(st.booleans()))
        if kind == "part":
            field = data.draw(st.sampled_from(Proof._fields))
            return proof._replace(**{field: getattr(other, field)})
        if kind == "note":
            text = data.draw(st.sampled_from(sorted(self.texts)))
            return proof._replace(checkpoint=self.note(text, data.draw(st.integers(-3, -1))))
        if kind == "entries":
            lines = [*proof.entries, *other.entries]
            return proof._replace(entries=data.draw(st.lists(st.sampled_from(lines), max_size=6)))
        if kind == "index":
            return proof._replace(map=proof.map._replace(leaf_index=data.draw(st.integers(0, MAX_LEAVES))))
        return proof._replace(file_id=data.draw(st.sampled_from(FILES)))

    def graft(self, proof: Proof, onto: Proof, committed: bool) -> Proof:
        """The history and map of one proof in the tree of another, with all that can be made for it there."""
        leaves = self.texts[onto.checkpoint.partition(b"\n\n")[0] + b"\n"]
        indices = [proof.map.leaf_index, 0 if proof.current is None else proof.current.leaf_index]
        if max(indices) >= len(leaves):
            return onto
        last, current = (reference.path(index, leaves) for index in indices)
        size = proof.sealed.size if proof.sealed else 0
        return proof._replace(
            map=proof.map._replace(root=onto.map.root) if committed else proof.map,
            checkpoint=onto.checkpoint,
            commitment=onto.commitment,
            last=last,
            current=None if proof.current is None else Included(indices[1], current),
            first=None,
            before=None,
            pinned=onto.pinned,
            sealed=Since(size, reference.consistency(size, leaves)) if 0 < size <= len(leaves) else None,
        )

    def ask(
        self, proof: Proof, file_id: int, path: str | None, content: bytes | None, memory: Memory | None = None
    ) -> Report | None:
        """Asks the verifier that remembers, or, with an empty memory, one that never saw anything."""
        remembers = memory is None
        memory = memory or self.memory_of(file_id)
        KEYS.now = self.now
        try:
            report = KEYS.verify(proof, content, memory, path=path, file_id=file_id, max_age_s=MAX_AGE_S)
        except (Malformed, Usage):
            COUNTS["malformed"] += 1
            return None
        COUNTS[report.verdict.value] += 1
        if report.verdict is Verdict.VERIFIED:
            self.check_true(report, file_id, path, content)
            seen = self.seen_leaves if remembers else []
            assert self.accepted[-1][: len(seen)] == seen, "older than what was seen"
        if remembers and report.pins_checkpoint and report.checkpoint is not None:
            self.seen_checkpoint, self.seen_size = report.proof.checkpoint, report.checkpoint.size
            self.seen_leaves = self.texts[format_checkpoint(report.checkpoint)]
        if remembers and report.pins_chain:
            self.memory[file_id] = Memory(None, report.proof)
            self.seal(report, file_id)
        return report

    def memory_of(self, file_id: int) -> Memory:
        return Memory(self.seen_checkpoint, self.memory.get(file_id, Memory()).chain)

    def seal(self, report: Report, file_id: int) -> None:
        """The owner's device seals what it has just verified."""
        chain, tree = report.chain, report.checkpoint
        assert chain is not None
        assert tree is not None
        version, commitment = chain.carriers[chain.seq]
        unsigned = Seal(
            *(chain.seq, chain.head, commitment, version, tree.size, tree.root),
            *(chain.newest_seal_at(chain.seq), (), bytes(64)),
        )
        self.seals.append((file_id, sign_seal(unsigned, chain.binding, KEYS.owner_signer)))

    # -- what really happened -----------------------------------------------------------------------------------

    def events(self, leaves: list[bytes], file_id: int) -> list[Event]:
        """The operations that these leaves log for a file, in order."""
        chain_id = KEYS.binding(file_id).chain_id
        mine = [leaf for leaf in leaves if leaf[0] == 1 and leaf[1:33] == chain_id]
        return [LOGGED[leaf] for leaf in mine]

    def check_true(self, report: Report, file_id: int, path: str | None, content: bytes | None) -> None:
        """VERIFIED is said of the last logged state alone, in the one history, and no later than it may be said."""
        assert report.checkpoint is not None
        assert report.times is not None
        assert report.proof.file_id == file_id
        leaves = self.texts[format_checkpoint(report.checkpoint)]
        events = self.events(leaves, file_id)
        assert state(events) == (path, content), "not the last logged state"
        assert leaves in [known for _, known in self.published], "no quorum of witnesses saw this tree"
        for known in self.accepted:
            short, long = sorted((known, leaves), key=len)
            assert long[: len(short)] == short, "two histories were accepted"
        self.accepted.append(leaves)
        newest = report.times.still_newest_at
        assert self.now - newest <= MAX_AGE_S
        for time, known in self.published:
            assert time >= newest or len(known) <= len(leaves), "a newer tree had its quorum before"
        last = leaves[: report.proof.map.leaf_index + 1]
        seen = [t for text, times in self.witnessed.items() if self.texts[text][: len(last)] == last for t, _ in times]
        assert min(seen) <= report.times.not_later_than, "no honest witness had seen the last step by then"

    @invariant()
    def witnesses_keep_one_history(self) -> None:
        """The model itself: with ov - 1 liars no two trees with a quorum exclude each other."""
        for (_, one), (_, two) in pairwise(self.published if hasattr(self, "published") else []):
            short, long = sorted((one, two), key=len)
            assert long[: len(short)] == short

    def data_of(self, branch: Branch, file_id: int) -> bytes | None:
        return self.data_at(branch, file_id, branch.world.histories[file_id].chain.version)

    def data_at(self, branch: Branch, file_id: int, seq: int) -> bytes | None:
        """The bytes behind a step as the branch's store shows it."""
        records = branch.world.histories[file_id].records
        opening = records[seq].line.content if seq < len(records) else None
        return plain(opening)

    def state_shown(self, proof: Proof) -> tuple[str | None, bytes | None]:
        """The path and bytes that the entries of a proof speak of."""
        path, content = None, None
        for line in proof.entries:
            path = line.path[32:].decode() if line.path and line.path[32:] else path
            content = plain(line.content) or content
        return path, content


def state(events: list[Event]) -> tuple[str | None, bytes | None] | None:
    """Path and bytes after these operations; None when the file is gone or something stands against it."""
    path, content, versions, tainted, gone = None, None, {}, set(), False
    for seq, event in enumerate(events):
        if event.operation is Operation.DELETED:
            gone = True
        elif event.operation is not Operation.SEALED:
            gone, path, content = False, event.path, event.data
            versions[seq] = event.data
        if event.operation is Operation.ALTERED:
            tainted.add(seq)
        if isinstance(event.argument, Reverted):
            tainted = {t for t in tainted if t <= event.argument.target}
    return None if gone or tainted or not events else (path, content)


def plain(opening: bytes | None) -> bytes | None:
    """The bytes that an opened content part speaks of."""
    for data in BYTES:
        if opening is not None and opening[32:] == encode_content(content_of(data)):
            return data
    return None


def event_of(file_id: int, line: Line) -> Event:
    """What an entry says, all of its parts open."""
    entry = decode_entry(line.entry)
    path = None if line.path is None else decode_path(line.path[32:])
    return Event(file_id, entry.operation, plain(line.content), path, entry.argument)


def rewritten(line: Line) -> Line:
    """The same entry over other bytes, with its own opening."""
    opening = bytes(32) + encode_content(content_of(b"forged"))
    entry = decode_entry(line.entry)._replace(content=commit(Part.CONTENT, opening))
    return line._replace(entry=encode_entry(entry), content=opening)


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(max_examples=200, stateful_step_count=40)


def test_adversary_was_not_idle() -> None:
    """The schedules above reached VERIFIED by honest proofs, and refused lies of every kind."""
    print("\nadversary:", ", ".join(f"{COUNTS[name]} {name}" for name in sorted(COUNTS)))
    assert COUNTS["schedules"] > 50
    for word in ("honest proofs", *(verdict.value for verdict in Verdict)):
        assert COUNTS[word] > 0
