"""A whole log in memory, small and honest, that tests bend: chains, leaves, map, signed trees, proofs.

It uses the formats of `verifier` to write, and the slow references to hash trees and maps. Everything is
deterministic. A test that wants a lie changes an attribute, or the proof that `prove` returns, and says which.

    world = World()
    world.record(7, Operation.CREATED, b"one", path="a.txt")
    world.publish()
    report = world.verify(world.prove(7), b"one", path="a.txt")
"""

from __future__ import annotations

from hashlib import sha3_256

from tests import map_reference, reference
from verifier import keys
from verifier.chain import (
    NO_SEAL,
    Binding,
    Chain,
    Ending,
    Step,
    Version,
    close_message,
    genesis,
    link,
    open_step,
    seal_message,
)
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.entry import (
    MAX_LISTED,
    Argument,
    Closed,
    CloseReason,
    Content,
    ContextField,
    Entry,
    Operation,
    Part,
    Predecessor,
    Seal,
    Seen,
    commit,
    encode_content,
    encode_context,
    encode_entry,
    encode_path,
)
from verifier.errors import NotVerified
from verifier.leaf import LOSS, MAP, EntryLeaf, MapLeaf, encode_leaf
from verifier.loss import loss_leaf, loss_message
from verifier.map import map_value
from verifier.note import COSIGNATURE, SIGNATURE, Note, SignerKey, cosign, format_note, format_vkey, sign_note
from verifier.policy import AUDITORS, WITNESSES, parse_policy
from verifier.proof import Absence, Bracket, Declared, Earlier, Included, InMap, Line, Loss, Proof, Replaced, Since
from verifier.verdict import Memory, Question, Report, Trust
from verifier.verify import verify

ORIGIN = "log.example/files"
SOURCE = "folder:test"
SEED = bytes(range(32))
START = 1_800_000_000  # POSIX seconds of the first moment in a world


def content_of(data: bytes) -> Content:
    return Content(len(data), sha3_256(data).digest())


class Record:
    """One entry as the server keeps it: bytes, openings, and the index of its leaf."""

    def __init__(self, line: Line, index: int) -> None:
        self.line, self.index = line, index


class History:
    """One chain as the server keeps it; `chain` is its honest replay."""

    def __init__(self, binding: Binding, generation: int, predecessor: Ending | None) -> None:
        self.binding, self.generation = binding, generation
        self.chain = Chain(binding, predecessor)
        self.records: list[Record] = []
        self.previous: History | None = None


class World:
    """A log with its owner, `nodes` witnesses and auditors, and a clock that only `tick` moves."""

    def __init__(self, nodes: int = 4, threshold: int = 3, seed: bytes = SEED, source: str = SOURCE) -> None:
        self.now = START
        self.source = source
        self.log = SignerKey(ORIGIN, SIGNATURE, secret("log"))
        self.old_logs: list[SignerKey] = []  # of origins before this one
        self.declared: list[Declared] = []  # losses, the newest first
        self.log_name = keys.format_log_name(ORIGIN, self.log.verifier_key.public_key)
        self.owner = keys.derive_keys(seed, self.log_name)
        self.owner_signer = SignerKey("owner", SIGNATURE, self.owner.private)
        self.root = keys.owner_root(self.owner.public, self.owner.blinding)
        names = [f"n{i}.example" for i in range(nodes)]
        self.witnesses = [SignerKey(name, COSIGNATURE, secret(f"witness {name}")) for name in names]
        self.auditors = [SignerKey(f"{name}/auditor", COSIGNATURE, secret(f"auditor {name}")) for name in names]
        self.policy_text = self.policy_file(self.witnesses, threshold)
        self.auditors_text = self.policy_file(self.auditors, threshold)
        self.leaves: list[bytes] = []
        self.map: dict[bytes, bytes] = {}
        self.maps: dict[int, dict[bytes, bytes]] = {}  # tree size -> the map that it commits to
        self.notes: dict[int, bytes] = {}  # tree size -> signed and cosigned note
        self.histories: dict[int, History] = {}  # file id -> newest generation
        self.signers: list[SignerKey] = []  # whose lines a checkpoint gets, where that is not the log's key alone
        self._salts = 0

    def policy_file(self, cosigners: list[SignerKey], threshold: int) -> bytes:
        lines = [f"log {format_vkey(log.verifier_key)}" for log in (*self.old_logs, self.log)]
        lines += [f"witness w{i} {format_vkey(signer.verifier_key)}" for i, signer in enumerate(cosigners)]
        lines += [f"group g {threshold} {' '.join(f'w{i}' for i in range(len(cosigners)))}", "quorum g"]
        return "".join(line + "\n" for line in lines).encode()

    @property
    def trust(self) -> Trust:
        return Trust(
            self.log_name,
            self.source,
            parse_policy(self.policy_text, WITNESSES),
            parse_policy(self.auditors_text, AUDITORS),
            self.owner.public,
            self.owner.blinding,
        )

    def tick(self, seconds: int = 10) -> None:
        self.now += seconds

    # -- recording ------------------------------------------------------------------------------------------

    def binding(self, file_id: int, generation: int = 0) -> Binding:
        chain_id = keys.chain_id(self.owner.blinding, self.source, file_id, generation)
        return Binding(self.log_name, self.source, self.root, file_id, chain_id, self.owner.public)

    def record(
        self,
        file_id: int,
        operation: Operation,
        data: bytes | None = None,
        path: str | None = None,
        argument: Argument | None = None,
        context: dict[ContextField, str] | None = None,
        *,
        replay: bool = True,
        leaf: bool = True,
    ) -> Line:
        """Appends an entry. `replay=False` skips the honest check of legality, `leaf=False` hides it from the log."""
        history = self.histories.get(file_id)
        if history is None:
            history = self.histories[file_id] = History(self.binding(file_id), 0, None)
        content = None if data is None else content_of(data)
        openings = tuple(
            self._salt() + part for part in (encode_content(content), encode_path(path), encode_context(context or {}))
        )
        commitments = [commit(part, opening) for part, opening in zip(Part, openings, strict=True)]
        seq = len(history.records)
        line = Line(encode_entry(Entry(operation, seq, self.now, self.now, *commitments, argument)), *openings)
        self.append(history, line, replay=replay, leaf=leaf)
        return line

    def append(self, history: History, line: Line, *, replay: bool = True, leaf: bool = True) -> None:
        """Chains a line and puts its leaf and its place in the map into the log."""
        step = open_step(line.entry, (line.content, line.path, line.context))
        if replay:
            history.chain.append(step)
        else:
            lie(history.chain, step)
        chain = history.chain
        index = len(self.leaves)
        history.records.append(Record(line, index))
        if leaf:
            x = step.hash if step.entry.seq else chain.head
            self.leaves.append(encode_leaf(EntryLeaf(history.binding.chain_id, step.entry.seq, x)))
            self.map[history.binding.chain_id] = map_value(step.entry.seq, chain.head, index)

    def erase(self, history: History, seq: int, part: Part) -> None:
        """Forgets an opening, as the server does with an `erased` entry."""
        line = history.records[seq].line
        history.records[seq].line = line._replace(**{part.word: None})

    def seal(self, file_id: int, accepts: tuple[tuple[bytes, int], ...] = (), signer: SignerKey | None = None) -> Seal:
        """What the owner's device signs for the newest published state of the file."""
        history = self.histories[file_id]
        chain, size = history.chain, max(self.notes)
        version, commitment = chain.carriers[chain.seq]
        unsigned = Seal(
            *(chain.seq, chain.head, commitment, version, size, reference.mth(self.leaves[:size])),
            *(chain.newest_seal_at(chain.seq) if chain.seals else NO_SEAL, accepts, bytes(64)),
        )
        return sign_seal(unsigned, history.binding, signer or self.owner_signer)

    def record_seal(self, file_id: int, **how: object) -> None:
        self.record(file_id, Operation.SEALED, argument=self.seal(file_id, **how))  # type: ignore[arg-type]

    def close(
        self,
        file_id: int,
        reason: CloseReason = CloseReason.FULL,
        *,
        signed: bool = True,
        seen: Seen | None = None,
        signer: SignerKey | None = None,
        replay: bool = True,
    ) -> None:
        """Ends the newest generation of a file; `continue_` starts the next one."""
        history = self.histories[file_id]
        chain = history.chain
        taints = tuple(sorted(chain.taints.values())[:MAX_LISTED])
        live = chain.status == "live" and isinstance(chain.content, Content)
        parts = (encode_content(chain.content if live else None), encode_path(chain.path if live else None), b"")
        openings = [self._salt() + part for part in parts]
        commitments = [commit(part, opening) for part, opening in zip(Part, openings, strict=True)]
        entry = Entry(
            *(Operation.CLOSED, chain.seq + 1, self.now, self.now, *commitments, Closed(reason, taints, b"", seen)),
        )
        if signed:
            signature = (signer or self.owner_signer).sign(close_message(history.binding, chain.head, entry))
            entry = entry._replace(argument=Closed(reason, taints, signature, seen))
        self.append(history, Line(encode_entry(entry), *openings), replay=replay)

    def continue_(self, file_id: int, data: bytes, path: str, *, argument: Argument | None = None) -> None:
        """Starts the next generation with `adopted`."""
        old = self.histories[file_id]
        ending = old.chain.ending()
        generation = old.generation + 1
        history = History(self.binding(file_id, generation), generation, ending)
        history.previous = old
        self.histories[file_id] = history
        named = argument or Predecessor(ending.chain_id, ending.seq, ending.head)
        self.record(file_id, Operation.ADOPTED, data, path, named)

    # -- publishing -----------------------------------------------------------------------------------------

    def publish(self, witnesses: int | None = None, auditors: int | None = None) -> int:
        """Ends the tree with a map commitment, signs it, and has it cosigned by so many of each kind."""
        self.leaves.append(encode_leaf(MapLeaf(map_reference.build_map(self.map))))
        size = len(self.leaves)
        self.maps[size] = dict(self.map)
        self.notes[size] = self.note(size, reference.mth(self.leaves), witnesses, auditors)
        self.tick()
        return size

    def note(self, size: int, root: bytes, witnesses: int | None = None, auditors: int | None = None) -> bytes:
        """A checkpoint signed by the log now, and by the first so many witnesses and auditors."""
        text = format_checkpoint(Checkpoint(self.log.verifier_key.name, size, root))
        cosigners = self.witnesses[:witnesses] + self.auditors[:auditors]
        lines = [sign_note(text, key) for key in self.signers or [self.log]] + [
            cosign(text, signer, self.now) for signer in cosigners
        ]
        return format_note(Note(text, tuple(lines)))

    # -- losing --------------------------------------------------------------------------------------------

    def declare_loss(self, kept: int, name: str = "log.example/files/2") -> None:
        """Goes on under another origin with the leaves below `kept`, after the newest note (SPEC 6.5)."""
        note = self.notes[max(self.notes)]
        old, self.log = self.log, SignerKey(name, SIGNATURE, secret(f"log {name}"))
        key = self.log.verifier_key.public_key
        self.declared.insert(0, Declared(note, key, kept, old.sign(loss_message(name, key, kept, note))))
        self.old_logs.append(old)
        self.policy_text, self.auditors_text = [
            text.replace(b"witness", f"log {format_vkey(self.log.verifier_key)}\nwitness".encode(), 1)
            for text in (self.policy_text, self.auditors_text)
        ]
        shift = 0 if self.leaves[0][0] == LOSS else 1
        survivors = self.leaves[1 - shift : kept]
        self.leaves, self.notes, self.maps, self.map = [loss_leaf(self.declared)], {}, {}, {}
        for history in self.histories.values():
            history.records = [record for record in history.records if record.index < kept]
            history.chain = Chain(history.binding, history.chain.predecessor)
            for record in history.records:
                record.index += shift
                lie(history.chain, open_step(record.line.entry, record.line[1:]))
        tips = {
            record.index: (history, seq)
            for history in self.histories.values()
            for seq, record in enumerate(history.records)
        }
        for leaf in survivors:
            index = len(self.leaves)
            if leaf[0] == MAP:
                leaf = encode_leaf(MapLeaf(map_reference.build_map(self.map)))
            elif index in tips:
                history, seq = tips[index]
                self.map[history.binding.chain_id] = map_value(seq, history.chain.heads[seq], index)
            self.leaves.append(leaf)
        size = len(self.leaves)
        self.maps[size], self.notes[size] = dict(self.map), self.note(size, reference.mth(self.leaves))
        self.tick()

    def close_declared(self, file_id: int, seen: Seen, signer: SignerKey | None = None) -> None:
        """The owner ends a chain of which steps were lost that the owner's device had seen (SPEC 4.7)."""
        self.close(file_id, CloseReason.DECLARED, seen=seen, signer=signer)

    # -- proving --------------------------------------------------------------------------------------------

    def prove(
        self,
        file_id: int,
        size: int | None = None,
        *,
        pinned: int | None = None,
        first_seq: int = 0,
        replaces: tuple[int, ...] = (),
        history: History | None = None,
    ) -> Proof:
        """The proof of a file in the tree of `size`, by default the newest one."""
        size = size or max(self.notes)
        leaves, mapped = self.leaves[:size], self.maps[size]
        history = history or self.histories[file_id]
        records = [record for record in history.records if record.index < size]
        chain = Chain(history.binding, history.chain.predecessor)
        for record in records:
            lie(chain, open_step(record.line.entry, record.line[1:]))
        version, last = chain.version, records[-1].index
        sizes = sorted(s for s in self.notes if s <= size)
        first = next((s for s in sizes if s > last), None)
        before = next((s for s in reversed(sizes) if s <= last), None)
        return Proof(
            *(self.log_name, self.source, file_id, history.generation, history.binding.root, history.binding.chain_id),
            first_seq,
            [record.line for record in records[first_seq:]],
            InMap(
                *(map_reference.build_map(mapped), chain.seq, chain.head, last),
                map_reference.prove(mapped, history.binding.chain_id)[1],
            ),
            self.notes[size],
            reference.path(size - 1, leaves),
            reference.path(last, leaves),
            None
            if version == chain.seq
            else Included(records[version].index, reference.path(records[version].index, leaves)),
            None if first is None else self._bracket(first, leaves),
            None if before is None else self._bracket(before, leaves),
            None if pinned is None else Since(pinned, reference.consistency(pinned, leaves)),
            self._sealed(chain, leaves),
            self._earlier(history, mapped),
            [self._replaced(self.histories[old], mapped) for old in replaces],
            Loss(list(self.declared), reference.path(0, leaves)) if self.declared else None,
        )

    def _bracket(self, size: int, leaves: list[bytes]) -> Bracket:
        return Bracket(self.notes[size], reference.consistency(size, leaves))

    def _sealed(self, chain: Chain, leaves: list[bytes]) -> Since | None:
        size = chain.seals[-1].seal.tree_size if chain.seals else 0
        if not 0 < size <= len(leaves):
            return None
        if self.declared and chain.seals[-1].seal.tree_root != reference.mth(leaves[:size]):
            return None  # of an origin before this one
        return Since(size, reference.consistency(size, leaves))

    def _earlier(self, history: History, mapped: dict[bytes, bytes]) -> list[Earlier]:
        found: list[Earlier] = []
        old = history.previous
        while old is not None:
            chain_id = old.binding.chain_id
            siblings = map_reference.prove(mapped, chain_id)[1]
            found.append(Earlier(chain_id, old.chain.heads[-2], old.records[-1].line, old.records[-1].index, siblings))
            old = old.previous
        return found

    def _replaced(self, history: History, mapped: dict[bytes, bytes]) -> Replaced:
        """The last entry alone, which must be the one that freed the path."""
        record, chain = history.records[-1], history.chain
        file_id, generation = history.binding.file_id, history.generation
        before = chain.heads[-2] if len(chain.heads) > 1 else genesis(history.binding)
        siblings = map_reference.prove(mapped, history.binding.chain_id)[1]
        _, around, other = map_reference.prove(mapped, self.binding(file_id, generation + 1).chain_id)
        absence = Absence(None if other is None else b"".join(other), around) if chain.status == "closed" else None
        return Replaced(file_id, generation, before, [record.line], record.index, siblings, absence)

    def verify(self, proof: Proof, data: bytes | None, memory: Memory | None = None, **asked: object) -> Report:
        """Asks now, with this world's trust; `asked` are fields of Question."""
        content = None if data is None else content_of(data)
        question = Question(self.now, content, **asked)  # type: ignore[arg-type]
        return verify(proof, self.trust, question, memory or Memory())

    def _salt(self) -> bytes:
        self._salts += 1
        return sha3_256(b"salt" + self._salts.to_bytes(8, "big")).digest()


def sign_seal(seal: Seal, binding: Binding, signer: SignerKey) -> Seal:
    return seal._replace(signature=signer.sign(seal_message(binding, seal)))


_SETS_CONTENT = {
    *(Operation.CREATED, Operation.ADOPTED, Operation.COPIED, Operation.WRITTEN),
    *(Operation.RESTORED, Operation.REVERTED, Operation.ALTERED),
}
_STATUS_AFTER = {Operation.DELETED: "deleted", Operation.CLOSED: "closed"}


def lie(chain: Chain, step: Step) -> None:
    """Appends a step to a replay whether or not it is legal, as a server that lies would.

    After a step whose seq does not follow, the lists of the replay have holes, which no honest replay ever sees.
    """
    try:
        chain.append(step)
    except (NotVerified, IndexError):
        entry = step.entry
        if entry.operation in _SETS_CONTENT:
            chain.version, chain.content, chain.status = entry.seq, step.content, "live"
            chain.versions[entry.seq] = Version(entry.content, step.content)
        chain.status = _STATUS_AFTER.get(entry.operation, chain.status)
        chain.path = step.path or chain.path
        chain.seq = entry.seq
        chain.head = link(chain.head, chain.binding.chain_id, entry.seq, step.hash)
        chain.steps.append(step)
        chain.heads.append(chain.head)
        chain.carriers.append((chain.version, entry.content))


def secret(name: str) -> bytes:
    return sha3_256(name.encode()).digest()
