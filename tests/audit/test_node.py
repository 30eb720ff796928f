"""The node over HTTP: every status of tlog-witness, bodies that lie, and a public transcript."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn

from audit import http as http_module
from audit import node as node_module
from audit.errors import PeerFailed, PeerUnreached
from audit.http import HttpFetch
from audit.node import Node, allow_log, check_url, create_app, create_node, open_node
from audit.server import Server, check_public
from audit.witness import format_request
from audit.witness_store import Store
from tests.audit.wire import running, talk
from tests.fakes import NOW, FakeClock, FakeLog, digest
from verifier.checkpoint import open_checkpoint
from verifier.errors import Usage
from verifier.note import (
    SIGNATURE,
    format_vkey,
    make_key,
    parse_note,
    parse_signature_lines,
    parse_vkey,
    verify_cosignature,
)
from verifier.tile import decode_entry_bundle


@pytest.fixture
def log() -> FakeLog:
    return FakeLog().grow(9)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def node(tmp_path: Path, log: FakeLog) -> Iterator[Node]:
    create_node(tmp_path / "n", "node.example/w")
    allow_log(tmp_path / "n", log.vkey, log.url)
    node = open_node(tmp_path / "n", log.fetch)
    yield node
    node.close()


@pytest.fixture
def send(node: Node, clock: FakeClock) -> Callable[..., httpx.Response]:
    return sender(node, clock)


def sender(node: Node, clock: FakeClock, audits: bool = True) -> Callable[..., httpx.Response]:
    """One request to the application, without a network."""
    transport = httpx.ASGITransport(create_app(node, clock, audits))

    async def request(method: str, path: str, body: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://node.example") as client:
            return await client.request(method, path, content=body)

    return lambda method, path, body=None: asyncio.run(request(method, path, body))


def test_node_answers_as_tlog_witness_says(
    send: Callable[..., httpx.Response], node: Node, log: FakeLog, clock: FakeClock
) -> None:
    """One request for each status of the specification, in an order that a log might live through."""
    path = "/" + sha256(log.origin.encode()).hexdigest() + "/checkpoint"
    other = FakeLog("log.example/two").grow(2)
    forger = FakeLog(log.origin, b"\x08" * 32).grow(9)

    def ask(old: int, note: bytes, proof: tuple[bytes, ...] = ()) -> httpx.Response:
        return send("POST", "/add-checkpoint", format_request(old, proof, note))

    assert send("GET", path).status_code == 404
    assert ask(0, b"not a note").status_code == 400
    assert ask(0, other.checkpoint()).status_code == 404
    assert ask(0, forger.checkpoint()).status_code == 403
    assert ask(4, log.checkpoint(3)).status_code == 400
    first = ask(0, log.checkpoint(3))
    assert first.status_code == 200
    (line,) = parse_signature_lines(first.content)
    assert line.name == "node.example/w"
    conflict = ask(0, log.checkpoint(8))
    assert (conflict.status_code, conflict.text, conflict.headers["content-type"]) == (409, "3\n", "text/x.tlog.size")
    assert ask(3, log.checkpoint(8)).status_code == 422
    assert ask(3, log.checkpoint(3, digest(b"fork", 0))).status_code == 422
    assert ask(3, log.checkpoint(8), log.proof(3, 8)).status_code == 200
    clock.now += 60
    assert ask(8, log.checkpoint(8)).status_code == 200
    served = send("GET", path)
    assert (served.status_code, served.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    note, checkpoint = open_checkpoint(served.content, parse_vkey(log.vkey))
    assert checkpoint.size == 8
    assert verify_cosignature(note, node.witness.verifier_key) == NOW + 60
    clock.now -= 1
    later = ask(8, log.checkpoint(8))
    assert (later.status_code, later.headers["retry-after"]) == (503, "1")
    assert send("GET", "/add-checkpoint").status_code == 405


def test_node_audits(send: Callable[..., httpx.Response], log: FakeLog) -> None:
    """An audit target is answered with the auditor's line, a conflict with the size, a finding with 422."""
    small = log.checkpoint()
    target = log.grow(5).checkpoint()
    answer = send("POST", "/audit", target)
    assert answer.status_code == 200
    about = send("GET", "/").json()
    key = parse_vkey(about["auditor"]["vkey"])
    assert key.name == about["auditor"]["name"] == "node.example/w/auditor"
    assert verify_cosignature(parse_note(target + answer.content), key) == NOW
    conflict = send("POST", "/audit", small)
    assert (conflict.status_code, conflict.text) == (409, f"{len(log.leaves)}\n")
    assert send("POST", "/audit", b"junk").status_code == 400
    log.add_map(digest(b"wrong", 0))
    assert send("POST", "/audit", log.checkpoint()).status_code == 422
    assert send("POST", "/audit", target).status_code == 422


def test_node_keeps_several_logs_apart(node: Node, log: FakeLog, send: Callable[..., httpx.Response]) -> None:
    """One node serves many logs: each has its own size, mirror and halt, and a finding in one stops no other."""
    other = FakeLog("log.example/two", b"\x09" * 32).grow(4)
    node.allow_log(other.vkey, other.url)

    async def fetch(url: str, limit: int) -> bytes:
        return await (log if url.startswith(log.url + "/") else other).fetch(url, limit)

    node.auditor._fetch = fetch
    for one, size in ((log, 3), (other, 5)):
        assert send("POST", "/add-checkpoint", format_request(0, (), one.checkpoint(size))).status_code == 200
    for one, size in ((log, 3), (other, 5)):
        conflict = send("POST", "/add-checkpoint", format_request(0, (), one.checkpoint(size)))
        assert (conflict.status_code, conflict.text) == (409, f"{size}\n")
    other.add_map(bytes(32))
    assert send("POST", "/audit", other.checkpoint()).status_code == 422
    assert send("POST", "/audit", log.checkpoint()).status_code == 200
    assert [halt.origin for halt in node.store.halts()] == [other.origin]
    forged = format_request(5, other.proof(5), other.checkpoint())
    assert send("POST", "/add-checkpoint", forged).status_code == 200  # a witness says nothing about leaves


def test_node_describes_itself(send: Callable[..., httpx.Response], node: Node, log: FakeLog) -> None:
    """Names, keys and logs are public; a node whose store is closed is not healthy."""
    assert send("GET", "/").json()["logs"] == [{"origin": log.origin, "audited": True}]
    assert send("GET", "/healthz").status_code == 200
    node.store.close()
    assert send("GET", "/healthz").status_code == 500


def test_witness_alone_replays_nothing(node: Node, log: FakeLog, clock: FakeClock) -> None:
    """Without audits there is no such request, and the node says so of each log; what it has signed it still asks."""
    send, asked = sender(node, clock, audits=False), []

    async def fetch(url: str, _: int) -> bytes:
        asked.append(url)
        return log.checkpoint(3)

    node.fetch = fetch
    assert send("POST", "/audit", log.checkpoint(3)).status_code == 404
    assert send("GET", "/").json()["logs"] == [{"origin": log.origin, "audited": False}]

    async def start() -> None:
        app = create_app(node, clock, audits=False)
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(start())
    assert asked == [f"{log.url}/checkpoint"]


def test_node_reads_no_more_than_a_body_may_have(
    send: Callable[..., httpx.Response], node: Node, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is too large is refused when it is announced, and when it is not; a slow one after a while."""
    drawn = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal drawn
        for _ in range(64):
            drawn += 2**14
            yield b"x" * 2**14

    async def slow() -> AsyncIterator[bytes]:
        yield b"old 0\n"
        await asyncio.Event().wait()

    for path in ("/add-checkpoint", "/audit"):
        assert send("POST", path, b"x" * (2**17 + 1)).status_code == 413
        drawn = 0
        assert send("POST", path, large()).status_code == 413
        assert drawn <= 2**17 + 2**14
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.05)
    assert send("POST", "/add-checkpoint", slow()).status_code == 408


def test_node_is_heard_on_a_socket(node: Node, log: FakeLog) -> None:
    """Real server: an answer in a chunked body's wake, a body cut short, a Content-Length that lies."""
    body = format_request(0, (), log.checkpoint(3))
    with running(node) as port:
        host = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50))
        assert talk(port, host + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n").startswith(
            b"HTTP/1.1 200"
        )
        again = format_request(3, (), log.checkpoint(3))
        short = host + b"Content-Length: %d\r\n\r\n" % (len(again) - 1) + again
        assert talk(port, short).startswith(b"HTTP/1.1 400")
        for claim in (b"200000", b"+5", b"-1", b"999999999999999999999999"):
            reply = talk(port, host + b"Content-Length: " + claim + b"\r\n\r\n" + again)
            assert reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
        long = host + b"Content-Length: %d\r\n\r\n" % (len(again) + 9) + again
        assert not talk(port, long, half_close=True).startswith(b"HTTP/1.1 200")
        assert talk(port, host + b"Content-Length: %d\r\n\r\n" % len(again) + again).startswith(b"HTTP/1.1 200")


def test_node_answers_in_one_write(node: Node, log: FakeLog) -> None:
    """Head and body of an answer are one write on the socket, also where the connection closes after it."""
    writes: list[bytes] = []

    class Wire(asyncio.Transport):
        closed = False

        def write(self, data: bytes | bytearray | memoryview) -> None:
            assert not self.closed
            writes.append(bytes(data))

        def is_closing(self) -> bool:
            return self.closed

        def close(self) -> None:
            self.closed = True

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def resume_reading(self) -> None:
            pass

    async def talk_to_protocol() -> None:
        config = Server(create_app(node, FakeClock()), lambda _: None).config
        config.load()
        protocol = config.http_protocol_class(config, uvicorn.server.ServerState(), {})  # type: ignore[call-arg]
        protocol.connection_made(Wire())
        for number, (old, end) in enumerate([(0, ""), (3, ""), (3, "Connection: close\r\n")], 1):
            body = format_request(old, (), log.checkpoint(3))
            head = f"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n{end}Content-Length: {len(body)}\r\n\r\n".encode()
            protocol.data_received(head + body)  # type: ignore[attr-defined]
            for _ in range(1000):
                if len(writes) >= number:
                    break
                await asyncio.sleep(0)
            await asyncio.gather(*protocol.tasks)  # type: ignore[attr-defined]
        protocol.connection_lost(None)

    asyncio.run(talk_to_protocol())
    assert [write.count(b"\r\n\r\n\xe2\x80\x94 node.example/w ") for write in writes] == [1, 1, 1]


def test_fetch_is_bounded_and_follows_nothing(node: Node) -> None:
    """Redirects, errors, large bodies and refused connections are the peer's failure."""

    async def fetches(port: int) -> None:
        fetch = HttpFetch()
        try:
            base = f"http://127.0.0.1:{port}"
            assert await fetch(f"{base}/healthz", 3) == b"ok\n"
            for url, limit in [("/healthz", 2), ("/nothing", 99), ("/healthz/", 99)]:
                with pytest.raises(PeerFailed):
                    await fetch(base + url, limit)
            with pytest.raises(PeerUnreached):
                await fetch("http://127.0.0.1:1/", 9)
        finally:
            await fetch.aclose()

    with running(node) as port:
        asyncio.run(fetches(port))


def test_mirrored_tile_is_read_beside_the_loop_and_the_store_on_it(
    send: Callable[..., httpx.Response], node: Node, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory's one connection is the loop's: a thread could read what a transaction has not committed."""
    assert send("POST", "/audit", log.checkpoint()).status_code == 200
    threads, read = set[int](), Store._read

    def noting(store: Store, sql: str, *values: str | int) -> list[Any]:
        threads.add(threading.get_ident())
        return read(store, sql, *values)

    monkeypatch.setattr(Store, "_read", noting)
    origin_hash = sha256(log.origin.encode()).hexdigest()
    width = len(log.leaves)
    tile = send("GET", f"/mirror/{origin_hash}/tile/entries/000.p/{width}")
    assert tile.status_code == 200
    assert decode_entry_bundle(tile.content, width) == log.leaves
    assert threads == {threading.get_ident()}


def test_node_tells_nobody_where_it_finds_a_log(
    tmp_path: Path, log: FakeLog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address may say more than strangers are to know, as one with a password did that was allowed once."""
    create_node(tmp_path / "other", "other.example/w")
    with monkeypatch.context() as patch:
        patch.setattr(node_module, "check_url", lambda url: url)
        allow_log(tmp_path / "other", log.vkey, "http://audit:S3cret@inner.test/log/")

    async def fetch(url: str, limit: int) -> bytes:
        raise PeerFailed(f"{url}: ConnectError")

    other = open_node(tmp_path / "other", fetch)
    answer = sender(other, clock)("POST", "/audit", log.checkpoint())
    assert answer.status_code == 503
    assert answer.text.startswith(f"{log.origin}/tile/")
    assert "S3cret" not in answer.text
    assert "inner.test" not in answer.text
    other.close()


def test_log_url_holds_no_password() -> None:
    """It is refused, and not repeated."""
    with pytest.raises(Usage, match="holds a name or a password") as caught:
        check_url("https://audit:S3cret@log.example/")
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x/", "log.example", "https://", "https://x/?a", "https://x/#a", "http://[/"])
def test_log_url_is_a_prefix(url: str) -> None:
    """Only http and https prefixes that a tile path can follow."""
    with pytest.raises(Usage, match="log url"):
        check_url(url)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_serve_stays_on_loopback(host: str) -> None:
    """Without the word that TLS is in front, nothing but loopback is listened on."""
    with pytest.raises(Usage, match="put a proxy with TLS in front"):
        check_public(host, behind_tls=False)


# The published sequence of requests and answers that litewitness is tested with (torchwood, and with the same requests
# sunlight's witness), with its log's key. Where we answer otherwise, the row says which text asks for that.

TRANSCRIPT_KEY = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
TRANSCRIPT_ORIGIN = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"


def leaf(number: int) -> str:
    return "K" + ["gA", "gE", "gI", "gM", "gQ"][number] + "A" * 40 + "="


ROOTS = {
    1: leaf(0),
    3: "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=",
    5: "QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=",
}
LINES = {
    1: "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=",
    3: "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=",
    5: "UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=",
}
FIVE = "UgIom4JTC2MerrFcJ5xDcWHzRPVB6zzGBIw4OFqcKDflqjH4q4xY5vMxUxyczvdIlEwFYf7ivQU4KoWan2bLmzLx0go="
ONE_TO_THREE = [leaf(1), leaf(2)]
ONE_TO_FIVE = [leaf(1), "+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=", leaf(4)]
THREE_TO_FIVE = [leaf(2), leaf(3), "wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE=", leaf(4)]


def signed(size: int, line: str = "", origin: str = TRANSCRIPT_ORIGIN) -> str:
    return f"{origin}\n{size}\n{ROOTS[size]}\n\n\u2014 {origin} {line or LINES[size]}\n"


def body(old: int, proof: list[str], note: str) -> bytes:
    return "".join([f"old {old}\n", *[line + "\n" for line in proof], "\n", note]).encode()


class Exchange(NamedTuple):
    """A published request, the statuses that were published for it, our status, and why that is another one."""

    what: str
    body: bytes
    published: tuple[int, ...]
    ours: int
    why: str = ""


LOOSE_BITS = (
    "signed-note v1.1.0: base64 is canonical; a line that is none is malformed, before any signature is looked at"
)
UNKNOWN = "tlog-witness v1.0.0: 404 for an unknown origin; litewitness answered 403 until it followed that"
WRONG_HASH = ONE_TO_THREE[1][:-3] + "BA="
EXCHANGES = (
    Exchange("first tree", body(0, [], signed(1)), (200,), 200),
    Exchange(
        "wrong signature, and loose bits in its base64",
        body(1, ONE_TO_THREE, signed(3, LINES[3].replace("6go=", "6gx="))),
        (403,),
        400,
        LOOSE_BITS,
    ),
    Exchange(
        "unknown log",
        body(1, ONE_TO_THREE, signed(3, origin=TRANSCRIPT_ORIGIN[:-1] + "3")),
        (403, 404),
        404,
        UNKNOWN,
    ),
    Exchange("no consistency proof", body(1, [], signed(3)), (422,), 422),
    Exchange("wrong consistency proof", body(1, [ONE_TO_THREE[0], WRONG_HASH], signed(3)), (422,), 422),
    Exchange("size 3", body(1, ONE_TO_THREE, signed(3)), (200,), 200),
    Exchange("another old size than the one it knows", body(1, ONE_TO_FIVE, signed(5)), (409,), 409),
    Exchange("size 5", body(3, THREE_TO_FIVE, signed(5)), (200,), 200),
    Exchange("old size 0", body(0, [], signed(5)), (409,), 409),
    Exchange("no signatures", body(5, [], f"{TRANSCRIPT_ORIGIN}\n5\n{ROOTS[5]}\n"), (400,), 400),
    Exchange(
        "signed, and no checkpoint",
        body(5, [], f"{TRANSCRIPT_ORIGIN}\nfive\n{ROOTS[1]}\n\n\u2014 {TRANSCRIPT_ORIGIN} {FIVE}\n"),
        (400,),
        400,
    ),
)


def test_litewitness_sequence_is_answered_as_today_s_specification_says(tmp_path: Path, clock: FakeClock) -> None:
    """Every answer is the published one, but for those that today's C2SP text asks for: each of these is named.

    Of what changed since tlog-witness v1.0.0 the sequence lacks one case, the same size with another root, which is 422
    and no longer 409: `test_bad_input.test_node_keeps_what_the_log_signed_and_should_not_have`.
    """
    create_node(tmp_path / "n", "example.com/witness")
    allow_log(tmp_path / "n", format_vkey(make_key(TRANSCRIPT_ORIGIN, SIGNATURE, TRANSCRIPT_KEY)))
    node = open_node(tmp_path / "n")
    answers = {one.what: sender(node, clock)("POST", "/add-checkpoint", one.body) for one in EXCHANGES}
    assert {what: answer.status_code for what, answer in answers.items()} == {one.what: one.ours for one in EXCHANGES}
    assert [one.what for one in EXCHANGES if set(one.published) != {one.ours}] == [
        one.what for one in EXCHANGES if one.why
    ]
    assert [answers[what].text for what in ("another old size than the one it knows", "old size 0")] == ["3\n", "5\n"]
    line = answers["size 5"]
    assert "\u2014 example.com/witness " in line.text
    assert verify_cosignature(parse_note(signed(5).encode() + line.content), node.witness.verifier_key) == NOW
    asyncio.run(node.aclose())
