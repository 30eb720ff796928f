"""Small fakes that can lie and fail, shared by all tests. None of them is a mock: each does its work in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from hashlib import sha3_256
from typing import Any

from audit.errors import PeerFailed
from tests.map_reference import build_map
from tests.reference import consistency, mth
from verifier.checkpoint import Checkpoint, format_checkpoint
from verifier.note import SIGNATURE, Note, SignerKey, format_note, format_vkey, sign_note
from verifier.tile import ENTRIES, encode_entry_bundle, encode_hash_tile, parse_tile_path

NOW = 1_800_000_000


class FakeClock:
    """A clock that moves when told."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class FakeLog:
    """A log in memory: signs whatever it is told to, and serves the tiles of its leaves, or lies.

    `lie(path, data)` may change what is served; `leaves` may be changed at will.
    """

    def __init__(self, origin: str = "log.example/one", secret: bytes = b"\x07" * 32) -> None:
        self.signer = SignerKey(origin, SIGNATURE, secret)
        self.origin, self.url = origin, f"https://{origin}"
        self.vkey = format_vkey(self.signer.verifier_key)
        self.leaves: list[bytes] = []
        self.tips: dict[bytes, tuple[int, bytes, int]] = {}
        self.fetched: list[str] = []
        self.loss = b""  # what it serves under /loss
        self.lie: Callable[[str, bytes], bytes] = lambda _path, data: data

    def copy(self) -> FakeLog:
        """The same key with a history of its own from here on."""
        other = FakeLog(self.origin, self.signer.secret_bytes())
        other.leaves, other.tips = list(self.leaves), dict(self.tips)
        return other

    # Leaves

    def add_entry(self, chain_id: bytes, x: bytes, seq: int | None = None) -> None:
        """The next entry of a chain, or one with a seq of the liar's choice."""
        last, head, _ = self.tips.get(chain_id, (-1, b"", 0))
        number = last + 1 if seq is None else seq
        self.leaves.append(b"\x01" + chain_id + number.to_bytes(8, "big") + x)
        if number > 0:
            x = sha3_256(b"nextcloud-audit/1/link\0" + head + chain_id + number.to_bytes(8, "big") + x).digest()
        self.tips[chain_id] = (number, x, len(self.leaves) - 1)

    def map_root(self) -> bytes:
        return build_map({chain_id: map_value(*tip) for chain_id, tip in self.tips.items()})

    def add_map(self, root: bytes | None = None) -> None:
        self.leaves.append(b"\x02" + (self.map_root() if root is None else root))

    def grow(self, entries: int, chains: int = 10) -> FakeLog:
        """So many entries more, spread over some chains, and a map commitment."""
        for number in range(entries):
            self.add_entry(digest(b"chain", number % chains), digest(b"x", len(self.leaves)))
        self.add_map()
        return self

    # What it says

    def checkpoint(self, size: int | None = None, root: bytes | None = None, extensions: tuple[str, ...] = ()) -> bytes:
        """A signed checkpoint over the first leaves, or over another root."""
        size = len(self.leaves) if size is None else size
        text = format_checkpoint(Checkpoint(self.origin, size, root or mth(self.leaves[:size]), extensions))
        return format_note(Note(text, (sign_note(text, self.signer),)))

    def proof(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        return tuple(consistency(old_size, self.leaves[:size]))

    async def fetch(self, url: str, limit: int) -> bytes:
        path = url.removeprefix(self.url + "/")
        self.fetched.append(path)
        if path == "loss" and self.loss:
            return self.loss
        tile = parse_tile_path(path)
        if tile.level == ENTRIES:
            begin = tile.number * 256
            items = self.leaves[begin : begin + tile.width]
        else:
            span = 256**tile.level
            begins = [(tile.number * 256 + i) * span for i in range(tile.width)]
            items = [mth(self.leaves[i : i + span]) for i in begins if i + span <= len(self.leaves)]
        if len(items) != tile.width:
            raise PeerFailed(f"{path}: not there")
        data = self.lie(path, (encode_entry_bundle if tile.level == ENTRIES else encode_hash_tile)(items))
        if len(data) > limit:
            raise PeerFailed(f"{path}: too large")
        return data


def map_value(seq: int, head: bytes, index: int) -> bytes:
    fields = seq.to_bytes(8, "big") + head + index.to_bytes(8, "big")
    return sha3_256(b"nextcloud-audit/1/map-value\0" + fields).digest()


def digest(label: bytes, number: int) -> bytes:
    """Bytes that look like a hash and are the same in every run."""
    return sha3_256(label + number.to_bytes(8, "big")).digest()


class Faults:
    """Makes the n-th write of all connections fail, before it is done or after it; 0 lets everything pass.

    `factory` goes where a `sqlite3.Connection` type is asked for. `writes` counts what was tried.
    """

    def __init__(self, fail_at: int = 0, done: bool = False) -> None:
        self.fail_at, self.done, self.writes = fail_at, done, 0
        faults = self

        class FailingConnection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return faults.run(sql, super().execute, *values)

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return faults.run(sql, super().executemany, *values)

        self.factory: type[sqlite3.Connection] = FailingConnection

    def run(self, sql: str, statement: Callable[..., sqlite3.Cursor], *values: Any) -> sqlite3.Cursor:
        if not sql.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT")):
            return statement(sql, *values)
        self.writes += 1
        if self.writes != self.fail_at:
            return statement(sql, *values)
        if self.done:
            statement(sql, *values)
        raise sqlite3.OperationalError("disk I/O error, made by the test")
