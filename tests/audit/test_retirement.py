"""A node put back to an older copy of its store signs nothing any more."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit import node as node_module
from audit.node import Node, create_app, open_node
from audit.publisher import Target
from audit.witness import Retired, format_request
from tests.audit.town import Switch, Town


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """`ada` stands where it stood before the newest tree was published."""
    made = Town(tmp_path)
    asyncio.run(publish(made))
    made.nodes[0].close()
    shutil.copytree(tmp_path / "ada", tmp_path / "yesterday")
    reopen_ada(made)
    made.clock.now += 10
    made.write("a.txt", "one")
    asyncio.run(publish(made))
    yield made
    made.close()


def reopen_ada(town: Town) -> Node:
    town.nodes[0].close()
    node = town.nodes[0] = open_node(town.path / "ada", town._fetch)
    town.switches["ada"] = Switch(create_app(node, town.clock))
    return node


def put_back(town: Town) -> Node:
    town.nodes[0].close()
    shutil.rmtree(town.path / "ada")
    shutil.copytree(town.path / "yesterday", town.path / "ada")
    return reopen_ada(town)


async def publish(town: Town) -> None:
    before = town.service.status()["size"]
    async with town.service.running():
        await town.until(lambda: town.all_published() and town.service.status()["size"] != before)


def newest(town: Town) -> Target:
    published = town.service.publisher.published()
    assert published is not None
    return Target(published.size, published.root, published.newest_note)


def test_node_put_back_to_yesterday_retires_at_start(town: Town) -> None:
    """[R] Its own cosignature, which the log publishes, is for more than it knows: it signs nothing again, ever."""
    node = put_back(town)
    asyncio.run(node.check_memory())
    for _ in range(2):
        target = newest(town)
        head = node.store.head("witness", town.service.store.origin)
        assert head is not None
        proof = town.service.publisher.consistency(head.size, target.size)
        with pytest.raises(Retired, match="older copy"):
            node.add_checkpoint(format_request(head.size, tuple(proof), target.note), town.clock.now)
        with pytest.raises(Retired, match="older copy"):
            asyncio.run(node.auditor.audit(target.note, town.clock))
        assert "older copy" in str(node.describe()["retired"])
        node = reopen_ada(town)  # also after a start at which the log is not asked


def test_node_retires_on_a_request_with_its_own_line(town: Town) -> None:
    """[R] A log that was out of reach at the start may send the proof itself; nothing is signed for that request."""
    node = put_back(town)
    assert node.store.retired() is None
    target = newest(town)
    head = node.store.head("witness", town.service.store.origin)
    assert head is not None
    proof = town.service.publisher.consistency(head.size, target.size)
    with pytest.raises(Retired):
        node.add_checkpoint(format_request(head.size, tuple(proof), target.note), town.clock.now)


def test_node_starts_though_a_log_is_silent(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is cut off never answers; the node is there for the others all the same, and soon."""
    monkeypatch.setattr(node_module, "MEMORY_TIMEOUT_S", 0.01)
    asked: list[str] = []

    async def silence(url: str, limit: int) -> bytes:
        asked.append(url)
        return await asyncio.Future()

    node = town.nodes[0]
    node.fetch = silence

    async def start() -> None:
        async with asyncio.timeout(10):
            await node.check_memory()

    asyncio.run(start())
    assert len(asked) == 1


def test_node_with_its_memory_goes_on(town: Town) -> None:
    """What it signed and knows, also an older tree, retires nobody; nor does a line that only looks like its own."""
    node = town.nodes[0]
    asyncio.run(node.check_memory())
    with town.service.store.snapshot() as conn:
        notes = [bytes(row[0]) for row in conn.execute("SELECT newest_note FROM trees ORDER BY size")]
    assert len(notes) > 1
    from verifier.note import Note, parse_note

    for data in notes:
        note = parse_note(data)
        node.remember(note)
        lines = tuple([line._replace(blob=line.blob[:-1] + bytes([line.blob[-1] ^ 1])) for line in note.signatures])
        put = Note(note.text.replace(b"log.example", b"log.examplf"), lines)
        node.remember(put)
    assert node.store.retired() is None
