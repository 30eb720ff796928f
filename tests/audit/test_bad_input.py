"""What strangers send to a node, over real HTTP on loopback: the right status, in bounded time, and nothing stored.

And what peers answer to us: endless data, redirects, other content types, compressed bombs.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from audit import federation
from audit import http as http_module
from audit import node as node_module
from audit.errors import PeerFailed
from audit.federation import Peer, make_client
from audit.http import HttpFetch
from audit.node import Node, allow_log, create_node, open_node
from audit.witness import FORK, MAX_REQUEST_SIZE, format_request
from tests.audit.wire import running, talk
from tests.fakes import FakeLog, digest
from verifier.merkle import MAX_PROOF_HASHES
from verifier.note import MAX_NOTE_SIZE

HASH = b"A" * 43 + b"=\n"


class Served(NamedTuple):
    """A node that listens, and the log that it watches."""

    node: Node
    port: int
    log: FakeLog

    def post(self, body: bytes, path: str = "/add-checkpoint", head: str = "") -> int:
        """The status of a request with these bytes."""
        lines = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        return int(talk(self.port, lines.encode() + body).split(b" ", 2)[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The log has 12 leaves, of which the node has cosigned 8."""
    folder = tmp_path_factory.mktemp("bad") / "node"
    log = FakeLog().grow(11)
    create_node(folder, "node.example/w")
    allow_log(folder, log.vkey, log.url)
    node = open_node(folder, log.fetch)
    with running(node) as port:
        found = Served(node, port, log)
        assert found.post(format_request(0, (), log.checkpoint(8))) == 200
        yield found
    node.close()


def contents(node: Node) -> list[str]:
    """Everything that the node's store holds."""
    conn = node.store._conn
    assert conn is not None
    return list(sqlite3.Connection.iterdump(conn))


def honest(log: FakeLog, old: bytes = b"8", proof: bytes | None = None, size: int = 12) -> bytes:
    """A request that only what was asked for makes a bad one."""
    hashes = format_request(8, log.proof(8, size), b"").removeprefix(b"old 8\n").removesuffix(b"\n")
    return b"old %b\n%b\n%b" % (old, hashes if proof is None else proof, log.checkpoint(size))


def loosened(log: FakeLog) -> bytes:
    """The honest request, in which one proof hash has its unused bits set: the same bytes, another spelling."""
    body = honest(log)
    first = body.split(b"\n")[1]
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".index(first[42:43])
    twin = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[last + 1 : last + 2]
    return body.replace(first, first[:42] + twin + b"=", 1)


def broken_signature(log: FakeLog) -> bytes:
    """A known name and key id whose signature is another one's."""
    return honest(log).replace(log.checkpoint(12), FakeLog(log.origin, b"\x08" * 32).checkpoint(12))


def flipped_signature(log: FakeLog) -> bytes:
    """The log's own line, over other text."""
    return honest(log).replace(log.checkpoint(12), log.checkpoint(12).replace(b"\n12\n", b"\n13\n"))


MALFORMED: list[tuple[str, Callable[[FakeLog], bytes], int]] = [
    ("64 proof lines", lambda log: honest(log, proof=HASH * (MAX_PROOF_HASHES + 1)), 400),
    ("1,000 proof lines", lambda log: honest(log, proof=HASH * 1_000), 400),
    *[
        (f"old {old!r}", lambda log, old=old: honest(log, old=old), 400)  # type: ignore[misc]
        for old in (b"+8", b"-8", b"08", b"0_8", b"8_0", b" 8", b"8 ", b"", b"8.0", b"8e0", b"0x8", b"8x", b"\xd9\xa8")
    ],
    ("old of 30 digits", lambda log: honest(log, old=b"9" * 30), 400),
    ("old above the checkpoint's size", lambda log: honest(log, old=b"13"), 400),
    ("loose bits in base64", loosened, 400),
    ("no padding", lambda log: honest(log).replace(b"=\n", b"\n", 1), 400),
    ("base64 with a space", lambda log: honest(log, proof=b" " + HASH), 400),
    ("URL alphabet", lambda log: honest(log, proof=HASH.replace(b"A", b"_", 1)), 400),
    ("CRLF everywhere", lambda log: honest(log).replace(b"\n", b"\r\n"), 400),
    ("CRLF after old", lambda log: honest(log).replace(b"\n", b"\r\n", 1), 400),
    ("no empty line", lambda log: honest(log).replace(b"\n\n", b"\n", 1), 400),
    ("no old line", lambda log: log.checkpoint(12), 400),
    ("empty", lambda log: b"", 400),
    ("zero bytes", lambda log: bytes(1000), 400),
    ("no line feed at the end", lambda log: honest(log)[:-1], 400),
    ("size with a zero in front", lambda log: honest(log).replace(b"\n12\n", b"\n012\n"), 400),
    ("size with a sign", lambda log: honest(log).replace(b"\n12\n", b"\n+12\n"), 400),
    ("one line too many of the log's key", lambda log: honest(log) + log.checkpoint(12).split(b"\n\n")[1], 400),
    ("another key under the log's name", broken_signature, 403),
    ("a line of the log's key that does not hold", flipped_signature, 403),
    ("no line of the log's key", lambda log: honest(log).replace("\u2014 log".encode(), "\u2014 lag".encode()), 403),
    ("an unknown origin", lambda log: honest(FakeLog("log.example/two").grow(11)), 404),
]


@pytest.mark.parametrize(("make", "status"), [pytest.param(make, want, id=name) for name, make, want in MALFORMED])
def test_node_refuses_and_keeps_nothing(served: Served, make: Callable[[FakeLog], bytes], status: int) -> None:
    """Another spelling of any value, and a signature that does not hold: refused, with no trace of it in the store."""
    before = contents(served.node)
    assert served.post(make(served.log)) == status
    assert contents(served.node) == before


def test_honest_request_is_what_the_bad_ones_are_made_of(tmp_path: Path) -> None:
    """The request that the table above bends is cosigned as it is: so each refusal is for its own reason."""
    log = FakeLog().grow(11)
    create_node(tmp_path / "n", "node.example/w")
    allow_log(tmp_path / "n", log.vkey)
    node = open_node(tmp_path / "n")
    with running(node) as port:
        served = Served(node, port, log)
        assert served.post(format_request(0, (), log.checkpoint(8))) == 200
        assert served.post(honest(log)) == 200
    node.close()


def test_node_keeps_what_the_log_signed_and_should_not_have(served: Served) -> None:
    """A root for size 0, another root for the size cosigned, a proof that fails: 422, 422, 422; notes are kept."""
    log = served.log
    before = len(served.node.store.evidence())
    assert served.post(format_request(8, (), log.checkpoint(8, digest(b"fork", 0)))) == 422
    assert served.post(format_request(8, (digest(b"proof", 0),), log.checkpoint(12))) == 422
    assert served.post(format_request(0, (), log.checkpoint(0, digest(b"fork", 1)))) == 409  # 8 is known, so the old
    kinds = [item.kind for item in served.node.store.evidence()][before:]  # size is compared first, as the text orders
    assert kinds[0] == FORK
    assert len(kinds) == 3
    other = FakeLog("log.example/empty")
    served.node.allow_log(other.vkey)
    assert served.post(format_request(0, (), other.checkpoint(0, digest(b"fork", 2)))) == 422
    assert served.post(format_request(0, (bytes(32),), other.grow(3).checkpoint(2))) == 422
    assert served.node.store.head("witness", other.origin) is None


def test_ten_thousand_unknown_origins_leave_nothing(served: Served) -> None:
    """Each gets 404; no row, lock, mirror or memory grows with their number."""
    sample = FakeLog("log.example/number-00000").grow(1).checkpoint()

    def send(first: int, last: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as client:
            for number in range(first, last):
                note = sample.replace(b"number-00000", b"number-%05d" % number)
                assert client.post("/add-checkpoint", content=b"old 0\n\n" + note).status_code == 404
                if number % 10 == 0:
                    assert client.post("/audit", content=note).status_code == 404

    before = contents(served.node)
    send(0, 500)  # whatever is made once is there now
    tracemalloc.start()
    try:
        held, _ = tracemalloc.get_traced_memory()
        for number in range(500, 10_000):
            note = sample.replace(b"number-00000", b"number-%05d" % number)
            with pytest.raises(node_module.UnknownLog):
                served.node.add_checkpoint(b"old 0\n\n" + note, 0)
        assert tracemalloc.get_traced_memory()[0] - held < 300_000  # a name alone would take twice that
    finally:
        tracemalloc.stop()
    assert contents(served.node) == before
    assert served.node.auditor._locks == served.node.auditor._mirrors == {}


@pytest.mark.parametrize(("path", "limit"), [("/add-checkpoint", MAX_REQUEST_SIZE), ("/audit", MAX_NOTE_SIZE)])
def test_large_bodies_are_not_read(served: Served, path: str, limit: int) -> None:
    """A byte over the bound is 413, announced or in chunks; the answer does not wait for the rest of the body."""
    assert served.post(b"x" * limit, path) == 400
    assert served.post(b"x" * (limit + 1), path) == 413
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode()
    assert talk(served.port, head).startswith(b"HTTP/1.1 413")
    chunk = b"%x\r\n%b\r\n" % (limit + 1, b"x" * (limit + 1))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert talk(served.port, head + chunk).startswith(b"HTTP/1.1 413")


def test_compressed_bodies_are_not_unpacked(served: Served) -> None:
    """A body is what its bytes say: one that unpacks to an honest request is malformed, whatever its headers claim."""
    packed = gzip.compress(honest(served.log))
    assert served.post(packed, head="Content-Encoding: gzip\r\n") == 400


def test_slow_senders_are_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stops arriving is 408 after READ_TIMEOUT_S and closes the connection; others are served meanwhile."""
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.2)
    head = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nold "
    slow = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(20)]
    for connection in slow:
        connection.sendall(head)
    assert served.post(b"") == 400
    for connection in slow:
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
        assert reply.startswith(b"HTTP/1.1 408")
        connection.close()


# What peers answer to us


@contextmanager
def peer_that_sends(head: bytes, body: bytes = b"", endless: bool = False) -> Iterator[tuple[str, list[int]]]:
    """A peer on a real socket that answers every request with these bytes; `endless` repeats the body until nobody
    reads. The list counts bytes sent for each request."""
    sent: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                read_request(connection)
                sent.append(0)
                try:
                    connection.sendall(head + b"\r\n\r\n")
                    while True:
                        connection.sendall(body)
                        sent[-1] += len(body)
                        if not endless:
                            break
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def read_request(connection: socket.socket) -> None:
    """Takes the whole request: closing with some of it unread would cut the answer off."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    while found and len(body) < int(found[1]):
        body += connection.recv(65536)


def cosign_at(url: str) -> bytes:
    async def run() -> bytes:
        async with make_client() as client:
            return await Peer(client, "ada", url).cosign(b"note\n", 0, [])

    return asyncio.run(run())


def fetch_at(url: str) -> bytes:
    async def run() -> bytes:
        fetch = HttpFetch()
        try:
            return await fetch(f"{url}/tile/0/000", 8192)
        finally:
            await fetch.aclose()

    return asyncio.run(run())


BOMB = gzip.compress(bytes(50_000_000))
ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close"


@pytest.mark.parametrize("ask", [cosign_at, fetch_at])
@pytest.mark.parametrize(
    ("head", "body", "endless"),
    [
        pytest.param(ENDLESS, b"x" * 65536, True, id="endless data"),
        pytest.param(b"HTTP/1.1 500 No\r\nConnection: close", b"x" * 65536, True, id="an endless refusal"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 4_000_000, b"", False, id="an endless header"),
        pytest.param(b"HTTP/1.1 302 Go\r\nLocation: /other\r\nContent-Length: 0", b"", False, id="a redirect"),
        pytest.param(
            b"HTTP/1.1 307 Go\r\nLocation: /other\r\nContent-Length: 0", b"", False, id="a redirect of a POST"
        ),
        pytest.param(ENDLESS + b"\r\nContent-Encoding: gzip", BOMB, False, id="a compressed bomb"),
        pytest.param(b"not HTTP at all", b"", False, id="no HTTP"),
    ],
)
def test_peers_that_misbehave_cost_little(ask: Callable[[str], bytes], head: bytes, body: bytes, endless: bool) -> None:
    """Whatever a peer sends is its failure, after one request, and a few megabytes at most are taken from it."""
    with peer_that_sends(head, body, endless) as (url, sent):
        tracemalloc.start()
        try:
            with pytest.raises(PeerFailed):
                ask(url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(sent) == 1
    assert peak < 20_000_000


@pytest.mark.parametrize("kind", [b"text/plain", b"application/json", b"text/x.tlog.size2", b""])
def test_conflict_of_another_type_is_no_conflict(kind: bytes) -> None:
    """A 409 without the specification's content type names no size that anybody goes on from."""
    head = b"HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Type: " + kind
    with peer_that_sends(head, b"7\n") as (url, _), pytest.raises(PeerFailed, match="got status 409"):
        cosign_at(url)


def test_peer_that_sends_drop_by_drop_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole answer has a time limit, not each read: a peer that says something now and then does not hold us."""
    monkeypatch.setattr(federation, "WITNESS_TIMEOUT_S", 0.3)
    with peer_that_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1000", b"x") as (url, _):
        with pytest.raises(PeerFailed, match="ada: "):
            cosign_at(url)
