"""Couriers and peers: what a cosigner may answer, and what the log makes of it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from audit.errors import Busy, Conflict, Fatal, PeerFailed
from audit.federation import (
    GONE_AFTER_S,
    MAX_BACKOFF_S,
    MAX_CONFLICTS,
    MAX_RETRY_AFTER_S,
    WITNESS_TIMEOUT_S,
    AuditorCourier,
    Clocks,
    Courier,
    Desk,
    Federation,
    Health,
    Peer,
    Regression,
    Unheard,
    Unknown,
    WitnessCourier,
    WrongClock,
    backoff,
    make_client,
)
from audit.publisher import CLOCK_TOLERANCE_S, Accepted, Target
from audit.witness import parse_request
from tests.audit.log_setup import LogSetup
from tests.fakes import NOW
from verifier.entry import Operation
from verifier.note import MAX_NOTE_SIZE, cosign, format_signature_line, parse_note
from verifier.policy import Policy

Handler = Callable[[httpx.Request], httpx.Response]
SIZE = {"content-type": "text/x.tlog.size"}


class Answers(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """A peer that answers as told, its body in pieces as from a socket."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        told = self._handler(request)
        self._body = told.content
        return httpx.Response(told.status_code, headers=told.headers, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 1000):
            yield self._body[start : start + 1000]


def ask(handler: Handler, what: Callable[[Peer], Any]) -> Any:
    """Runs one request against a peer that answers so."""

    async def run() -> Any:
        async with httpx.AsyncClient(transport=Answers(handler)) as client:
            return await what(Peer(client, "ada", "http://ada.test/prefix/"))

    return asyncio.run(run())


def answering(status: int, body: bytes = b"", **headers: str) -> Handler:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, content=body, headers=named)


def test_peer_sends_what_the_witness_parses() -> None:
    """Old size, proof and note arrive as an add-checkpoint request below the peer's prefix."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"line\n")

    note = "log.example/x\n5\n{0}=\n\n\u2014 log.example/x {0}=\n".format("A" * 43).encode()
    assert ask(handler, lambda peer: peer.cosign(note, 3, [b"\1" * 32])) == b"line\n"
    assert str(seen[0].url) == "http://ada.test/prefix/add-checkpoint"
    request = parse_request(seen[0].content)
    assert (request.old_size, request.proof, request.checkpoint.size) == (3, (b"\1" * 32,), 5)


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (answering(302, location="http://ada.test/other"), PeerFailed),
        (answering(200, b"x" * (MAX_NOTE_SIZE + 1)), PeerFailed),
        (answering(500, b"x" * 1_000_000), PeerFailed),
        (answering(409, b"7\n"), PeerFailed),
        (answering(409, b"07\n", content_type="text/x.tlog.size"), PeerFailed),
        (answering(409, b"\xff\n", content_type="text/x.tlog.size"), PeerFailed),
        (answering(404), Unknown),
        (answering(422, b"inconsistent"), PeerFailed),
        (answering(503), Busy),
    ],
)
def test_peer_refuses_what_is_no_answer(handler: Handler, error: type[Exception]) -> None:
    """Redirects are not followed, bodies are bounded, sizes strict, and every failure is the peer's."""
    with pytest.raises(error):
        ask(handler, lambda peer: peer.cosign(b"note\n", 0, []))


def test_peer_reads_the_known_size() -> None:
    """The body of a 409 is the size that the witness knows."""
    with pytest.raises(Conflict) as caught:
        ask(answering(409, b"7\n", content_type="text/x.tlog.size"), lambda peer: peer.cosign(b"note\n", 0, []))
    assert caught.value.known_size == 7


@pytest.mark.parametrize(("header", "want"), [("5", 5), ("99999", MAX_RETRY_AFTER_S), ("soon", 0), ("-1", 0)])
def test_peer_may_ask_for_patience_within_bounds(header: str, want: float) -> None:
    """Retry-After counts where it is a number, up to a bound."""
    with pytest.raises(Busy) as caught:
        ask(answering(503, retry_after=header), lambda peer: peer.audit(b"note\n"))
    assert caught.value.retry_s == want


def test_peer_that_cannot_be_reached_has_failed() -> None:
    """A network error names its kind, and shows nothing of the environment."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("secret path", request=request)

    with pytest.raises(PeerFailed, match="^ada: ConnectError$"):
        ask(handler, lambda peer: peer.audit(b"note\n"))


def test_client_follows_nothing_and_trusts_no_environment() -> None:
    """No redirects, no proxies from the environment."""
    client = make_client()
    assert not client.follow_redirects
    assert not client.trust_env
    asyncio.run(client.aclose())


def test_backoff_grows_is_bounded_and_spreads() -> None:
    """Pauses double up to a bound, and chance takes up to half of each away."""
    longest = [backoff(n, lambda: 1.0) for n in range(1, 40)]
    assert longest[:3] == [0.5, 1.0, 2.0]
    assert longest == sorted(longest)
    assert longest[-1] == MAX_BACKOFF_S
    assert backoff(40, lambda: 0.0) == MAX_BACKOFF_S / 2


def test_backoff_lets_a_peer_come_back_in_time() -> None:
    """Whatever the outage was, a request that hangs and the longest pause after it are over within 30 s."""
    assert WITNESS_TIMEOUT_S + MAX_BACKOFF_S < 30


def test_client_notices_a_peer_that_is_gone() -> None:
    """A connection is probed while an answer is waited for: an audit may take a minute, a dead peer may not."""

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def options() -> tuple[int, int]:
        server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, make_client() as client, client.stream("GET", f"http://127.0.0.1:{port}/") as response:
            used = response.extensions["network_stream"].get_extra_info("socket")
            alive = used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return alive, used.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert asyncio.run(options()) == (1, GONE_AFTER_S * 1000)


class FakeWitness:
    """Knows a size; `script` says what the next requests get instead."""

    def __init__(self, script: list[Exception | bytes]) -> None:
        self.script, self.asked = script, list[tuple[int, int]]()

    async def cosign(self, note: bytes, old_size: int, proof: list[bytes]) -> bytes:
        self.asked.append((old_size, len(proof)))
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def audit(self, note: bytes) -> bytes:
        return await self.cosign(note, 0, [])


class FakePublisher:
    """Takes the lines of those that it is told."""

    def __init__(self, valid: tuple[str, ...] = ("ada",), refused: tuple[str, ...] = ()) -> None:
        self.accepted = Accepted(valid, refused, True, True)

    def consistency(self, old_size: int, size: int) -> list[bytes]:
        return [bytes(32)] * old_size

    def accept_cosignatures(self, size: int, lines: bytes, now: int) -> Accepted:
        return self.accepted


TARGET = Target(9, bytes(32), b"note")


def witness_courier(peer: FakeWitness, log: FakePublisher, heard: list[Accepted]) -> WitnessCourier:
    return WitnessCourier("ada", peer, log, lambda: NOW, lambda target, accepted: heard.append(accepted))


def test_witness_is_asked_again_from_the_size_that_it_names() -> None:
    """After a 409 the consistency proof starts at its size; the next target starts where this one ended."""
    peer, heard = FakeWitness([Conflict(4), b"line", b"line"]), list[Accepted]()
    courier = witness_courier(peer, FakePublisher(), heard)
    asyncio.run(courier.ask(TARGET))
    asyncio.run(courier.ask(TARGET._replace(size=12)))
    assert peer.asked == [(0, 0), (4, 4), (9, 9)]
    assert len(heard) == 2


def test_witness_that_named_too_big_a_size_is_asked_again() -> None:
    """One bogus 409 is believed once: the next target goes out again, and gets its line."""
    peer, heard = FakeWitness([Conflict(2**63 - 1), b"line"]), list[Accepted]()
    courier = witness_courier(peer, FakePublisher(), heard)
    with pytest.raises(PeerFailed, match="has seen size 9223372036854775807"):
        asyncio.run(courier.ask(TARGET))
    asyncio.run(courier.ask(TARGET))
    assert peer.asked == [(0, 0), (0, 0)]
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("script", "log", "message"),
    [
        ([Conflict(10)], FakePublisher(), "has seen size 10, this tree has 9"),
        ([Conflict(n % 2) for n in range(MAX_CONFLICTS)], FakePublisher(), "another size each time"),
        ([b"line"], FakePublisher((), ("ada",)), "does not hold"),
        ([b"line"], FakePublisher(()), "no line of its key"),
    ],
)
def test_witness_that_does_not_cosign_has_failed(script: list[Any], log: FakePublisher, message: str) -> None:
    """Sizes beyond ours, sizes that jump, forged and missing lines: all are failures of that witness alone."""
    with pytest.raises(PeerFailed, match=message):
        asyncio.run(witness_courier(FakeWitness(script), log, []).ask(TARGET))


def test_auditor_that_is_ahead_is_left_alone() -> None:
    """An auditor which signed a later target has nothing to say about this one; one that is behind has failed."""

    def courier(known: int) -> AuditorCourier:
        return AuditorCourier("ada", FakeWitness([Conflict(known)]), FakePublisher(), lambda: NOW, lambda *_: None)

    asyncio.run(courier(10).ask(TARGET))
    with pytest.raises(PeerFailed, match="size 3 only"):
        asyncio.run(courier(3).ask(TARGET))


def test_courier_takes_the_newest_target_and_goes_on_after_failures() -> None:
    """Targets that came up meanwhile are skipped; failures are counted, dated and said once, success ends them."""
    sizes, said, seen = list[int](), list[str](), list[Health]()

    async def story() -> None:
        desk, failing, done = Desk(), asyncio.Event(), asyncio.Event()
        failing.set()

        async def carry(target: Target) -> None:
            sizes.append(target.size)
            if len(sizes) == 1:
                desk.put(TARGET._replace(size=2))
                desk.put(TARGET._replace(size=3))
            if len(sizes) < 4:
                seen.append(courier.health)
                raise PeerFailed(f"ada: down {len(sizes)}")
            done.set()

        times = itertools.count(NOW)
        courier = Courier("witness", "ada", desk, carry, lambda failures: 0, said.append, lambda: next(times))
        desk.put(TARGET._replace(size=1))
        task = asyncio.create_task(courier.run())
        await done.wait()
        await asyncio.sleep(0)
        assert seen == [
            Health("witness", "ada", 0, None, None, None),
            Health("witness", "ada", 1, None, NOW, "ada: down 1"),
            Health("witness", "ada", 2, None, NOW, "ada: down 2"),
        ]
        assert courier.health == Health("witness", "ada", 0, NOW + 1, None, "ada: down 3")
        task.cancel()

    asyncio.run(story())
    assert sizes == [1, 3, 3, 3]
    assert said == ["witness ada: down 1", "witness ada: cosigns again"]


def test_courier_waits_no_longer_when_there_is_something_newer() -> None:
    """A pause after a failure ends with the next target."""

    async def story() -> None:
        desk, asked = Desk(), asyncio.Queue[int]()

        async def carry(target: Target) -> None:
            asked.put_nowait(target.size)
            raise PeerFailed("ada: down")

        desk.put(TARGET)
        task = asyncio.create_task(Courier("witness", "ada", desk, carry, lambda failures: 3600).run())
        async with asyncio.timeout(10):
            assert await asked.get() == 9
            desk.put(TARGET._replace(size=10))
            assert await asked.get() == 10
        task.cancel()

    asyncio.run(story())


def test_courier_ends_on_fatal() -> None:
    """What we no longer know about our own disk is no failure of a peer."""

    async def story() -> None:
        async def carry(_: Target) -> None:
            raise Fatal("log.db")

        desk = Desk()
        desk.put(TARGET)
        await Courier("witness", "ada", desk, carry).run()

    with pytest.raises(Fatal):
        asyncio.run(story())


def test_federation_finds_a_regression(tmp_path: Path) -> None:
    """[R] A witness that shows a tree which we signed and no longer have stops us; anything else it shows does not."""
    log = LogSetup(tmp_path)
    log.see(Operation.CREATED, 1, b"one", "a")
    target = log.publish()
    key = log.signer.verifier_key
    ours = log.publisher.published()
    assert ours is not None
    policy = reaching_w0(log.witness_policy)

    def check(shown: Handler, root_of: Callable[[int], bytes | None]) -> int:
        async def run() -> int:
            async with httpx.AsyncClient(transport=Answers(shown)) as client:
                none = log.auditor_policy._replace(witnesses={})
                federation = Federation(client, log.publisher, policy, none, log.clock, lambda *_: None)
                await federation.check_regression([key], root_of)
                return federation._witness_work[0].known_size

        return asyncio.run(run())

    seen = answering(200, ours.newest_note)
    assert check(seen, lambda size: target.root if size == target.size else None) == target.size
    for root_of in (lambda size: None, lambda size: bytes(32)):
        with pytest.raises(Regression, match=f"size {target.size} that this log signed"):
            check(seen, root_of)
    text = parse_note(ours.newest_note).text
    forged = text + b"\n" + format_signature_line(cosign(text, log.witnesses[0], NOW))
    for harmless in (answering(404), answering(500), answering(200, forged), answering(200, b"nonsense")):
        assert check(harmless, lambda size: None) == 0
    log.close()


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("cut by the test", request=request)


@pytest.mark.parametrize("status", [404, 400, 405, 410, 501, 200])
def test_witness_that_answers_was_heard(tmp_path: Path, status: int) -> None:
    """[R] Our own checkpoint, none, or no monitoring endpoint at all: nothing is lost that it has published."""
    assert is_heard(tmp_path, lambda note: answering(status, note))


@pytest.mark.parametrize(
    "shown", [unreachable, *[answering(status) for status in (408, 429, 500, 502, 503)], answering(200, b"hello")]
)
def test_witness_that_cannot_be_asked_was_not_heard(tmp_path: Path, shown: Handler) -> None:
    """[R] A network that fails, a proxy in front of it, a page that is no checkpoint: it may have seen anything."""
    assert not is_heard(tmp_path, lambda note: shown)


def reaching_w0(policy: Policy) -> Policy:
    """The policy, in which w0 has an address."""
    w0 = policy.witnesses["w0"]._replace(url="http://w0.test")
    return policy._replace(witnesses={**policy.witnesses, "w0": w0})


def is_heard(directory: Path, shown: Callable[[bytes], Handler]) -> bool:
    """Whether anything may be signed after this answer of the one witness that a quorum needs."""
    log = LogSetup(directory)
    log.see(Operation.CREATED, 1, b"one", "a")
    target = log.publish()
    ours = log.publisher.published()
    assert ours is not None
    policy = reaching_w0(log.witness_policy)._replace(quorum="w0")
    handler = shown(ours.newest_note)

    async def run() -> bool:
        async with httpx.AsyncClient(transport=Answers(handler)) as client:
            none = log.auditor_policy._replace(witnesses={})
            federation = Federation(client, log.publisher, policy, none, log.clock, lambda *_: None)
            with pytest.raises(Unheard, match="no answer from w0"):
                federation.check_heard()
            await federation.check_regression([log.signer.verifier_key], lambda size: target.root)
            try:
                federation.check_heard()
            except Unheard:
                return False
            return True

    try:
        return asyncio.run(run())
    finally:
        log.close()


@pytest.mark.parametrize("answer", [answering(409, b"99\n", content_type="text/x.tlog.size"), answering(422, b"no\n")])
def test_witness_that_contradicts_us_is_asked_for_proof(tmp_path: Path, answer: Handler) -> None:
    """[R] After a 409 beyond our size, or 422, a tree that we signed and do not have stops us; a bare size does not."""
    log = LogSetup(tmp_path)
    log.see(Operation.CREATED, 1, b"one", "a")
    target = log.publish()
    ours = log.publisher.published()
    assert ours is not None
    policy = reaching_w0(log.witness_policy)
    shown = {"seen": answering(404)}

    def handler(request: httpx.Request) -> httpx.Response:
        return (shown["seen"] if request.method == "GET" else answer)(request)

    async def run() -> list[Regression]:
        found: list[Regression] = []
        async with httpx.AsyncClient(transport=Answers(handler)) as client:
            none = log.auditor_policy._replace(witnesses={})
            federation = Federation(
                client, log.publisher, policy, none, log.clock, lambda *_: None, regressed=found.append
            )
            await federation.check_regression([log.signer.verifier_key], lambda size: None)
            for seen in (answering(404), answering(200, b"nonsense"), answering(200, ours.newest_note)):
                assert not found
                shown["seen"] = seen
                with pytest.raises(PeerFailed):
                    await federation._witness_work[0].ask(target)
        return found

    (found,) = asyncio.run(run())
    assert f"size {target.size} that this log signed" in str(found)
    log.close()


def test_clocks_take_the_median_and_carry_it_on() -> None:
    """Beyond the tolerance, to either side, nothing is signed; one liar of three changes nothing; time goes on."""
    at = 0.0
    clocks = Clocks(lambda: at)
    clocks.check(5)  # nobody was heard
    for name, date in (("ada", 1_800_000_000), ("bea", 1_800_000_002), ("cem", 0)):
        clocks.hear(name, formatdate(date, usegmt=True))
    clocks.hear("ada", "yesterday")
    clocks.check(1_800_000_000 + CLOCK_TOLERANCE_S)
    clocks.check(1_800_000_000 - CLOCK_TOLERANCE_S)
    with pytest.raises(WrongClock, match="301 s ahead"):
        clocks.check(1_800_000_001 + CLOCK_TOLERANCE_S)
    with pytest.raises(WrongClock, match="301 s behind"):
        clocks.check(1_799_999_999 - CLOCK_TOLERANCE_S)
    at = 1000.0
    clocks.check(1_800_001_000)
    with pytest.raises(WrongClock):
        clocks.check(1_800_000_000)


def test_clocks_forget_what_is_older_than_what_they_heard_since() -> None:
    """Old answers count until there is a new one: silence is no proof that our clock is right."""
    at = 0.0
    clocks = Clocks(lambda: at)
    for name in ("ada", "bea"):
        clocks.hear(name, formatdate(1_800_000_000, usegmt=True))
    at = 5.0
    clocks.forget_before(5.0)
    with pytest.raises(WrongClock, match="2 asked"):
        clocks.check(1_800_003_600)
    clocks.hear("cem", formatdate(1_800_003_600, usegmt=True))
    clocks.forget_before(5.0)
    clocks.check(1_800_003_600)


def test_peer_hears_the_date_of_each_answer() -> None:
    """Also a refusal says what time it is there."""
    heard: list[str] = []

    class Heard(Clocks):
        def hear(self, name: str, date: str) -> None:
            heard.append(f"{name} {date}")

    async def run() -> None:
        handler = answering(503, date="Tue, 15 Nov 1994 08:12:31 GMT")
        async with httpx.AsyncClient(transport=Answers(handler)) as client:
            with pytest.raises(Busy):
                await Peer(client, "ada", "http://ada.test", Heard()).audit(b"note\n")

    asyncio.run(run())
    assert heard == ["ada Tue, 15 Nov 1994 08:12:31 GMT"]
