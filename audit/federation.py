"""Asking witnesses and auditors, over HTTP: each one has a courier that keeps it up to date.

    witnesses (all at once)    POST URL/add-checkpoint    old size, consistency proof, signed checkpoint
    auditors (one target)      POST URL/audit             signed checkpoint; they fetch the leaves from us
    before the first signing   GET  URL/ORIGINHASH/checkpoint    has a witness seen more of this log than we have?
    while our clock is wrong   the same GET                      what time is it there now?

A Desk holds what is asked for; couriers work in parallel, each with one request at a time, and always take the newest
target. So the quorum never waits for a slow cosigner, whose line is added when it comes, and one that was down
for a day gets one request, not all it missed. What comes back is verified and stored by `Publisher`, which knows
the keys. After a failure a courier waits, twice as long each time and up to MAX_BACKOFF_S, with jitter, or as long as
the cosigner asked for, or until there is something newer.

A witness that answers 409 says which size it knows (the body, a decimal), and is asked again from there. If it knows
more than we do, or answers 422, our store may be older than what we signed: its checkpoint with our own signature
proves it, and a Regression stops the signing for good. A size without that checkpoint is only the witness's word.

Before anything is signed, so many witnesses have said what they saw of this log that those who have not could not
publish a tree on their own (`check_heard`): any tree that was published, one of the others has seen. A checkpoint is an
answer, and so is a 4xx or 501 ("none", or no such endpoint, as at many public witnesses); a network that fails, another
5xx as of a proxy, or a page that is no checkpoint of ours is none.

Each answer's Date says what time it is elsewhere. The median of what witnesses say is compared with our clock before
anything is signed (`Clocks`): fewer than half of them can't stop the log. Where it is too far away, all are asked anew.

Answers are bounded in size and time, redirects are not followed, proxies and the environment not used. Connections are
kept open.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import NamedTuple, Protocol

import httpx

from audit.answers import parse_retry_after, read_answer
from audit.errors import AuditError, Busy, Conflict, Fatal, PeerFailed, TryLater
from audit.health import Kept
from audit.publisher import CLOCK_TOLERANCE_S, Accepted, Cosigner, Target
from audit.witness import format_request, hash_origin
from verifier.checkpoint import Checkpoint, open_checkpoint
from verifier.encoding import decode_decimal
from verifier.errors import Error
from verifier.note import MAX_NOTE_SIZE, VerifierKey, format_vkey
from verifier.policy import Policy, Witness, quorum_met

WITNESS_TIMEOUT_S = 10
AUDIT_TIMEOUT_S = 60  # an auditor fetches and replays up to 262,144 leaves before it answers
ASK_TIMEOUT_S = 5
MAX_REFUSAL = 4_096  # bytes of an answer other than 200, enough for a size or a reason
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 15.0  # a request that hangs and the longest pause: a peer is back within 30 s
GONE_AFTER_S = 15  # a peer that left without a word (power, a cable, a forgetful router): connections to it end
MAX_RETRY_AFTER_S = 300
MAX_CONFLICTS = 3  # in a row: a witness that names a new size each time has failed
SHOWN = 200  # characters of a peer's words
WITNESS, AUDITOR = "witness", "auditor"
NEVER = Kept()
SIZE_TYPE = "text/x.tlog.size"  # tlog-witness: of the body of 409


class Regression(AuditError):
    """A witness has a checkpoint that we signed and no longer know: this store is older than what was published."""


class Unheard(TryLater):
    """Too few witnesses have said what they saw of this log."""


class Log(Protocol):
    """What couriers need of the publisher; all of it may block, and is called in threads."""

    def consistency(self, old_size: int, size: int) -> list[bytes]: ...

    def accept_cosignatures(self, size: int, lines: bytes, now: int) -> Accepted: ...


# What time it is elsewhere


def clock_that_nobody_sets() -> float:
    """Seconds that go on while the machine sleeps, where the system counts those."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clocks:
    """What time witnesses said it was, carried on by a clock that nobody sets (`monotonic`).

    That clock stands still while a virtual machine is paused, and one Date may have been wrong: `forget_before`.
    """

    def __init__(self, monotonic: Callable[[], float] = clock_that_nobody_sets) -> None:
        self._monotonic = monotonic
        self._heard: dict[str, tuple[float, float]] = {}  # name -> POSIX seconds, when we heard it

    def hear(self, name: str, date: str) -> None:
        """A Date header; one that can't be read says nothing."""
        try:
            self._heard[name] = parsedate_to_datetime(date).timestamp(), self._monotonic()
        except (ValueError, TypeError, OverflowError):
            pass

    def now(self) -> float:
        return self._monotonic()

    def forget_before(self, at: float) -> None:
        """What was heard since then is all that counts, if anything was."""
        self._heard = {name: one for name, one in self._heard.items() if one[1] >= at} or self._heard

    def check(self, now: int) -> None:
        """TryLater while our clock is more than CLOCK_TOLERANCE_S from the median of the witnesses'."""
        if not self._heard:
            return
        elapsed = self._monotonic()
        there = median([said + elapsed - at for said, at in list(self._heard.values())])
        if abs(now - there) > CLOCK_TOLERANCE_S:
            way = "ahead of" if now > there else "behind"
            raise WrongClock(
                f"clock: ours is {abs(now - there):.0f} s {way} that of the witnesses ({len(self._heard)} asked), want "
                f"at most {CLOCK_TOLERANCE_S} s. Nothing is signed until it is set right; look at NTP on this machine"
            )


class WrongClock(TryLater):
    """Our clock is not that of the witnesses."""


# One peer over HTTP


class Peer:
    """A cosigner at its address: `Cosigner`, and what it has seen of a log."""

    def __init__(self, client: httpx.AsyncClient, name: str, url: str, clocks: Clocks | None = None) -> None:
        self._client, self.name, self._url, self._clocks = client, name, url.rstrip("/"), clocks

    async def cosign(self, note: bytes, old_size: int, proof: list[bytes]) -> bytes:
        body = format_request(old_size, tuple(proof), note)
        return await self._ask("POST", "/add-checkpoint", body, WITNESS_TIMEOUT_S)

    async def audit(self, note: bytes) -> bytes:
        return await self._ask("POST", "/audit", note, AUDIT_TIMEOUT_S)

    async def newest_seen(self, *keys: VerifierKey) -> Checkpoint | None:
        """The newest checkpoint of the log with these keys that the witness cosigned, signed by one; None for none.

        For a policy's witness that has no monitoring endpoint here, this is None as well.
        """
        path = f"/{hash_origin(keys[0].name)}/checkpoint"
        try:
            note = await self._ask("GET", path, b"", ASK_TIMEOUT_S)
        except Unknown:
            return None
        return open_checkpoint(note, *keys)[1]

    async def _ask(self, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        """The body of a 200; Conflict with the size of a 409; Busy or PeerFailed for all else."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream(method, self._url + path, content=body or None, timeout=timeout_s) as response,
            ):
                if "content-encoding" in response.headers:
                    raise PeerFailed(f"{self.name}: answer in an encoding that was not asked for")
                good = response.status_code == httpx.codes.OK
                if self._clocks is not None:
                    self._clocks.hear(self.name, response.headers.get("date", ""))
                data = await read_answer(response, MAX_NOTE_SIZE if good else MAX_REFUSAL, self.name)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise PeerFailed(f"{self.name}: {type(error).__name__}") from None
        return data if good else self._refused(response, data)

    def _refused(self, response: httpx.Response, data: bytes) -> bytes:
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        if status == httpx.codes.CONFLICT and kind == SIZE_TYPE:
            try:
                raise Conflict(decode_decimal(data.decode("ascii").removesuffix("\n"), "known size"))
            except (Error, UnicodeDecodeError):
                pass
        words = data.decode("utf-8", "replace").strip()[:SHOWN]
        message = f"{self.name}: got status {status} ({words!a})"
        if status in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
            raise Busy(message, parse_retry_after(response, MAX_RETRY_AFTER_S, 0.0))
        if status == httpx.codes.UNPROCESSABLE_ENTITY:
            raise Disagrees(message)
        is_answer = httpx.codes.is_client_error(status) and status != httpx.codes.REQUEST_TIMEOUT
        is_answer = is_answer or status == httpx.codes.NOT_IMPLEMENTED  # a small server that takes POST alone
        raise (Unknown if is_answer else PeerFailed)(message)


class Unknown(PeerFailed):
    """The peer answers 404, another 4xx or 501: it does not know the log, or has nothing at this address."""


class Disagrees(PeerFailed):
    """The peer answers 422: what we sent does not follow from what it has seen."""


def make_client() -> httpx.AsyncClient:
    """The client for all peers; connections are kept."""
    headers = {"accept-encoding": "identity", "user-agent": "nextcloud-audit"}
    transport = httpx.AsyncHTTPTransport(trust_env=False, socket_options=_keep_alive())
    return httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False, headers=headers)


def _keep_alive() -> list[tuple[int, int, int]]:
    """Socket options that notice a peer which is gone while its answer is waited for, where the system has them."""
    each_s = GONE_AFTER_S // 3
    times = {"TCP_KEEPIDLE": each_s, "TCP_KEEPINTVL": each_s, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": GONE_AFTER_S * 1000}
    known = [(socket.IPPROTO_TCP, getattr(socket, name), time) for name, time in times.items() if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]


def backoff(failures: int, chance: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many failures in a row: doubling, bounded, and no two peers at the same moment."""
    longest: float = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16))
    return longest * (0.5 + chance() / 2)


# Desks and couriers


class Desk:
    """The target that a kind of cosigner is asked for. Each `put` is a new round, also for the same tree."""

    def __init__(self) -> None:
        self.round = 0
        self.target: Target | None = None
        self._changed = asyncio.Event()

    def put(self, target: Target) -> None:
        self.round += 1
        self.target = target
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, done: int) -> tuple[int, Target]:
        """The newest target, once there is one of a later round than `done`."""
        while self.round <= done or self.target is None:
            await self._changed.wait()
        return self.round, self.target

    async def newer(self, than: int, timeout_s: float) -> None:
        """Returns when there is a newer round, or after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.after(than)
        except TimeoutError:
            pass


class Health(NamedTuple):
    """How it goes with one cosigner: times as POSIX seconds, None for never. The times are kept over restarts."""

    role: str
    name: str
    failures: int  # in a row, until now, since this process began
    last_success: int | None
    failing_since: int | None
    last_error: str | None  # also of a failure that is over


class Courier:
    """Takes each newest target from the desk to one cosigner, until it is done."""

    def __init__(
        self,
        role: str,
        name: str,
        desk: Desk,
        ask: Callable[[Target], Awaitable[None]],
        pause: Callable[[int], float] = backoff,
        say: Callable[[str], None] = lambda message: None,
        clock: Callable[[], int] = lambda: 0,
        kept: Kept = NEVER,
        keep: Callable[[Kept], None] = lambda kept: None,
    ) -> None:
        self.role, self.name = role, name
        self._desk, self._ask, self._pause, self._say, self._clock = desk, ask, pause, say, clock
        self._keep = keep
        self.health = Health(role, name, 0, kept.last_success, kept.failing_since, None)

    async def run(self) -> None:
        """For ever. Only Fatal leaves: what a peer does is never our end."""
        done = 0
        while True:
            number, target = await self._desk.after(done)
            try:
                await self._ask(target)
            except Fatal:
                raise
            except (AuditError, Error) as error:
                await self._failed(error)
                asked_s = error.retry_s if isinstance(error, Busy) else 0
                await self._desk.newer(number, asked_s or self._pause(self.health.failures))
            else:
                done = number
                was_failing = self.health.failing_since is not None
                self.health = self.health._replace(failures=0, last_success=self._clock(), failing_since=None)
                if was_failing:
                    self._say(f"{self.role} {self.name}: cosigns again")
                    await self._changed()

    async def _failed(self, error: Exception) -> None:
        if not self.health.failures:
            self._say(f"{self.role} {error}")
        is_new = self.health.failing_since is None
        since = self._clock() if is_new else self.health.failing_since
        failures = self.health.failures + 1
        self.health = self.health._replace(failures=failures, failing_since=since, last_error=str(error))
        if is_new:
            await self._changed()

    async def _changed(self) -> None:
        """Its times are kept; that they cannot be written now is no reason to stop asking."""
        try:
            await asyncio.to_thread(self._keep, Kept(self.health.last_success, self.health.failing_since))
        except Fatal:
            raise
        except AuditError as error:
            self._say(f"{self.role} {self.name}: {error}")


async def _trust() -> None:
    """For a witness whose word is all there is."""


class WitnessCourier:
    """What a courier does at a witness: the consistency proof from the size that it knows, then its line."""

    def __init__(
        self,
        name: str,
        peer: Cosigner,
        log: Log,
        clock: Callable[[], int],
        accepted: Hear,
        suspect: Callable[[], Awaitable[None]] = _trust,
    ) -> None:
        self.name, self._peer, self._log, self._clock, self._accepted = name, peer, log, clock, accepted
        self._suspect = suspect  # looks at what the witness has seen of this log
        self.known_size = 0  # of the newest tree it cosigned, as far as we know; its 409 corrects that

    async def ask(self, target: Target) -> None:
        for _ in range(MAX_CONFLICTS):
            if self.known_size > target.size:
                await self._suspect()
                claimed, self.known_size = self.known_size, 0  # its word alone: it is asked for it again the next time
                raise PeerFailed(f"{self.name}: has seen size {claimed}, this tree has {target.size}")
            proof = await asyncio.to_thread(self._log.consistency, self.known_size, target.size)
            try:
                lines = await self._peer.cosign(target.note, self.known_size, proof)
            except Conflict as conflict:
                self.known_size = conflict.known_size
                continue
            except Disagrees:
                await self._suspect()
                raise
            await accept(self.name, self._log, target, lines, self._clock, self._accepted)
            self.known_size = target.size
            return
        raise PeerFailed(f"{self.name}: names another size each time")


class AuditorCourier:
    """What a courier does at an auditor: names the target, and comes again while it catches up."""

    def __init__(self, name: str, peer: Cosigner, log: Log, clock: Callable[[], int], accepted: Hear) -> None:
        self.name, self._peer, self._log, self._clock, self._accepted = name, peer, log, clock, accepted

    async def ask(self, target: Target) -> None:
        try:
            lines = await self._peer.audit(target.note)
        except Conflict as conflict:
            if conflict.known_size > target.size:
                return  # it signs ascending sizes, and has signed a later target: nothing is to be had for this one
            raise PeerFailed(f"{self.name}: says it knows size {conflict.known_size} only") from None
        await accept(self.name, self._log, target, lines, self._clock, self._accepted)


Hear = Callable[[Target, Accepted], None]
RootOf = Callable[[int], bytes | None]


async def accept(name: str, log: Log, target: Target, lines: bytes, clock: Callable[[], int], accepted: Hear) -> None:
    """Hands a cosigner's lines to the publisher, which verifies and stores them; its own line has to be among them."""
    result = await asyncio.to_thread(log.accept_cosignatures, target.size, lines, clock())
    if result.valid:
        accepted(target, result)
    if name not in result.valid:
        why = (
            "its line does not hold, is from the future, or goes back"
            if name in result.refused
            else "no line of its key"
        )
        raise PeerFailed(f"{name}: {why}")


# All of them


class Federation:
    """Couriers for every cosigner of both policies that has an address. `kept`: by vkey, what an earlier run knew."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        log: Log,
        witnesses: Policy,
        auditors: Policy,
        clock: Callable[[], int],
        accepted: Hear,
        pause: Callable[[int], float] = backoff,
        say: Callable[[str], None] = lambda message: None,
        regressed: Callable[[Regression], None] = lambda error: None,
        clocks: Clocks | None = None,
        kept: Mapping[str, Kept] = MappingProxyType({}),
        keep: Callable[[VerifierKey, Kept], None] = lambda key, kept: None,
    ) -> None:
        self.witness_desk, self.audit_desk = Desk(), Desk()
        self._regressed, self._policy, self._clocks = regressed, witnesses, clocks or Clocks()
        self._unheard = set(witnesses.witnesses)  # have not said yet what they saw of this log
        self._ours: tuple[Sequence[VerifierKey], RootOf] | None = None
        self._peers = [Peer(client, name, witness.url, self._clocks) for name, witness in _reachable(witnesses)]
        witness_work = [
            WitnessCourier(peer.name, peer, log, clock, accepted, partial(self._suspect, peer)) for peer in self._peers
        ]
        auditor_peers = [Peer(client, name, auditor.url) for name, auditor in _reachable(auditors)]
        auditor_work = [AuditorCourier(peer.name, peer, log, clock, accepted) for peer in auditor_peers]
        self._witness_work = witness_work

        def courier(role: str, policy: Policy, desk: Desk, work: WitnessCourier | AuditorCourier) -> Courier:
            key = policy.witnesses[work.name].key
            known = kept.get(format_vkey(key), NEVER)
            return Courier(role, work.name, desk, work.ask, pause, say, clock, known, partial(keep, key))

        self.witnesses = [courier(WITNESS, witnesses, self.witness_desk, work) for work in witness_work]
        self.auditors = [courier(AUDITOR, auditors, self.audit_desk, work) for work in auditor_work]

    async def run(self) -> None:
        """All couriers, until cancelled or Fatal."""
        async with asyncio.TaskGroup() as group:
            for courier in (*self.witnesses, *self.auditors):
                group.create_task(courier.run())

    async def check_regression(self, keys: Sequence[VerifierKey], root_of: RootOf) -> None:
        """Asks every witness that was not heard yet what it saw last of this log.

        Regression if that is not part of our tree: `root_of(size)` is the root that it has at a size, None beyond its
        end. A witness that does not answer is passed over, and asked the next time. One that contradicts us later is
        asked again.
        """
        self._ours = keys, root_of
        asked = [pair for pair in zip(self._peers, self._witness_work, strict=True) if pair[0].name in self._unheard]
        seen = await asyncio.gather(*[self._ask_newest(peer, keys) for peer, _ in asked])
        for (peer, work), checkpoint in zip(asked, seen, strict=True):
            if checkpoint is not None:
                await _check_part(peer.name, checkpoint, root_of)
                work.known_size = checkpoint.size

    def check_heard(self) -> None:
        """[R] Unheard while the witnesses that have not answered could have published a tree that nobody told us of."""
        silent = sorted(self._unheard)
        if quorum_met(self._policy, dict.fromkeys(silent, 1)):
            raise Unheard(
                f"nothing is signed yet: no answer from {', '.join(silent)}, and they are enough to have published "
                "what this store has lost, if it was restored from an older copy. They are asked until they answer"
            )

    async def ask_time(self, keys: Sequence[VerifierKey]) -> None:
        """Asks every witness anew, so that neither an old answer nor a single wrong one lasts."""
        began = self._clocks.now()
        await asyncio.gather(*[self._ask_newest(peer, keys) for peer in self._peers])
        self._clocks.forget_before(began)

    async def _ask_newest(self, peer: Peer, keys: Sequence[VerifierKey]) -> Checkpoint | None:
        try:
            seen = await peer.newest_seen(*keys)
        except (AuditError, Error):
            return None
        self._unheard.discard(peer.name)
        return seen

    async def _suspect(self, peer: Peer) -> None:
        """Has this witness, which contradicts us, a tree that we signed and do not have? Then `regressed` hears it."""
        if self._ours is None:
            return
        keys, root_of = self._ours
        checkpoint = await self._ask_newest(peer, keys)
        if checkpoint is None:
            return
        try:
            await _check_part(peer.name, checkpoint, root_of)
        except Regression as error:
            self._regressed(error)


async def _check_part(name: str, checkpoint: Checkpoint, root_of: RootOf) -> None:
    """Regression where a checkpoint that we signed is not part of our tree."""
    root = await asyncio.to_thread(root_of, checkpoint.size)
    if root != checkpoint.root:
        raise Regression(
            f"witness {name} has a tree of size {checkpoint.size} that this log signed, and that is not in this store: "
            "it was restored from an older copy, or changed. Nothing is signed any more. Stop it, and run "
            "`nextcloud-audit recover --data DIR --from NODE`: a node that mirrors this log has what is missing "
            "(where none has, `--declare-loss`)"
        )


def _reachable(policy: Policy) -> Iterable[tuple[str, Witness]]:
    """Those with an address; the others can only be waited for in vain."""
    return [(name, witness) for name, witness in policy.witnesses.items() if witness.url]
