"""The log over HTTP: who gets what, the form of every refusal, bounds, caching, and the description."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from audit import api as api_module
from audit import enrolment as enrolment_module
from audit import openapi
from audit.api import IMMUTABLE, MAX_BODY, Bucket, TooMany, decode_seal, encode_json, parse_question
from audit.batch import Observation
from audit.chains import find_current, load_chain
from audit.directory import new_token
from audit.enrolment import find_own, parse_enrolment
from audit.prover import Prover
from audit.publisher import Target
from tests.audit.log_setup import content_of
from tests.audit.town import Town
from tests.fakes import NOW
from verifier import ed25519
from verifier.chain import NO_SEAL, seal_message
from verifier.checkpoint import open_checkpoint
from verifier.client import Signer
from verifier.encoding import decode_base64, decode_hashes, encode_base64
from verifier.entry import Operation, Seal, encode_seal_body
from verifier.errors import Malformed
from verifier.keys import owner_root
from verifier.leaf import EnrolmentLeaf, encode_leaf
from verifier.merkle import leaf_hash, verify_inclusion
from verifier.note import cosign, format_signature_line, parse_note, parse_vkey
from verifier.proof import Proof, parse_proof
from verifier.request import MAX_SKEW_S, MAX_TARGET, verify_enrolment
from verifier.tile import ENTRIES, Tile, decode_entry_bundle, decode_hash_tile, format_tile_path

PATH = "ä b+c.txt"
QUOTED = "%C3%A4%20b%2Bc.txt"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path, quorum=2, nodes=3)
    yield made
    made.close()


@pytest.fixture
def enrolled(town: Town) -> Town:
    """An owner with two files, published; and another source with a file of nobody's."""
    assert asyncio.run(town.enrol()).status_code == 202
    see(town, 1, b"one", PATH)
    see(town, 2, b"two", "b")
    publish(town)
    return town


def see(town: Town, file_id: int, data: bytes, path: str, source: int | None = None) -> None:
    row = source or town.source.row
    o = Observation(row, file_id, Operation.CREATED, NOW, content_of(data), path)
    town.service.recorder.record([o])


def publish(town: Town) -> Target:
    """Signs what is pending; every node cosigns in both roles."""
    target = town.service.publisher.integrate_and_sign(town.clock.now)
    assert target is not None
    text = parse_note(target.note).text
    for node in town.nodes:
        for signer in (node.witness, node._auditor_key):
            line = format_signature_line(cosign(text, signer, town.clock.now))
            town.service.publisher.accept_cosignatures(target.size, line, town.clock.now)
    return target


def get(town: Town, target: str, signer: Signer | None = None, **more: Any) -> httpx.Response:
    return asyncio.run(town.send("GET", target, signer=signer, **more))


def reason(answer: httpx.Response) -> tuple[int, str]:
    """The status and the word of a refusal, whose form is checked."""
    assert list(answer.json()) == ["error"]
    assert list(answer.json()["error"]) == ["reason", "message"]
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["error"]["reason"]


# Proofs


@pytest.mark.parametrize("target", ["/proof/1", f"/proof?path={QUOTED}", f"/proof?path={QUOTED}&from=0&size=4"])
def test_proof_is_given_to_the_owner(enrolled: Town, target: str) -> None:
    """By file id and by path, percent-encoded and in Unicode, the owner gets the canonical proof of that file."""
    answer = get(enrolled, target, enrolled.signer())
    assert answer.status_code == 200
    proof = parse_proof(answer.content)
    assert (proof.file_id, proof.source, proof.log) == (1, enrolled.source.source_id, enrolled.made.log_name)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_proof_names_its_source_or_means_the_only_one(enrolled: Town) -> None:
    """With two sources of one owner the request has to say which."""
    other = enrolled.service.store.add_source("folder:/elsewhere", "folder:f1")
    named = f"/proof/1?source={enrolled.source.source_id}"
    assert get(enrolled, "/proof/1", enrolled.signer()).status_code == 200
    assert get(enrolled, named, enrolled.signer()).status_code == 200
    keys = enrolled.keys()
    enrolled.service.recorder.enrol(None, "alice", keys.public, enrolled.keys("x").blinding)
    assert reason(get(enrolled, "/proof/1", enrolled.signer())) == (400, "malformed")
    assert get(enrolled, named, enrolled.signer()).status_code == 200
    assert other != enrolled.source.row


def test_proof_follows_the_owner_at_once(enrolled: Town) -> None:
    """[R] Once a source has another owner, the old key gets nothing any more, and the new one does."""
    assert get(enrolled, "/proof/1", enrolled.signer()).status_code == 200
    bob = enrolled.keys("bob")
    enrolled.service.recorder.enrol(enrolled.source.row, "bob", bob.public, bob.blinding, replace=True)
    assert reason(get(enrolled, "/proof/1", enrolled.signer())) == (404, "not-found")
    assert get(enrolled, "/proof/1", enrolled.signer("bob")).status_code == 200


def test_proof_is_of_one_committed_state(enrolled: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed while a request is answered is not in its answer: owner and proof belong together."""
    seen = get(enrolled, "/proof/1", enrolled.signer()).content

    def find_and_publish(*asked: Any) -> list[int]:
        found = find_own(*asked)
        see(enrolled, 3, b"new", "c")
        publish(enrolled)
        return found

    monkeypatch.setattr(api_module, "find_own", find_and_publish)
    assert get(enrolled, "/proof/1", enrolled.signer()).content == seen
    monkeypatch.undo()
    assert get(enrolled, "/proof/1", enrolled.signer()).content != seen


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_proof_has_no_other_methods(town: Town, method: str) -> None:
    """The answer says which there are."""
    answer = asyncio.run(town.send(method, "/proof/1"))
    assert reason(answer) == (405, "method")
    assert answer.headers["allow"] == "GET, HEAD"


def test_proof_refusals_do_not_tell_what_exists(enrolled: Town) -> None:
    """[R] Another one's file, a file that is not there, an unknown key or source: one answer, byte for byte."""
    other = enrolled.service.store.add_source("folder:/elsewhere", "folder:f1")
    bob = enrolled.keys("bob")
    enrolled.service.recorder.enrol(other, "bob", bob.public, bob.blinding)
    see(enrolled, 1, b"secret", "secret", source=other)
    publish(enrolled)
    assert get(enrolled, "/proof/1?source=folder:f1", enrolled.signer("bob")).status_code == 200
    asked = [
        ("/proof/1?source=folder:f1", "owner"),
        ("/proof/9?source=folder:f1", "owner"),
        ("/proof?path=secret&source=folder:f1", "owner"),
        ("/proof?path=secret", "owner"),
        ("/proof/1?source=folder:f9", "owner"),
        ("/proof/9", "owner"),
        ("/proof/1?replaces=9", "owner"),
        ("/proof/1", "nobody"),
        ("/proof/9", "nobody"),
        (f"/proof/1?source={enrolled.source.source_id}", "bob"),
    ]
    answers = [get(enrolled, target, enrolled.signer(who)) for target, who in asked]
    assert {reason(answer) for answer in answers} == {(404, "not-found")}
    assert len({(answer.content, tuple(answer.headers.items())) for answer in answers}) == 1


def test_proof_needs_a_signature_made_for_it(enrolled: Town) -> None:
    """Without a signature for this request, just now, nothing is looked up: same words for what exists and what not."""

    async def sent_elsewhere(target: str) -> httpx.Response:
        request = await enrolled.send("GET", "/proof/2", signer=enrolled.signer())
        header = {"Authorization": request.request.headers["Authorization"]}
        return await enrolled.client.get(target, headers=header)

    answers = {}
    for target in ("/proof/1", "/proof/9"):
        late = [get(enrolled, target, enrolled.signer(), at=NOW + d) for d in (MAX_SKEW_S + 1, -MAX_SKEW_S - 1)]
        answers[target] = [get(enrolled, target), *late, asyncio.run(sent_elsewhere(target))]
        assert {reason(answer) for answer in answers[target]} == {(401, "unauthorised")}
        assert answers[target][0].headers["www-authenticate"] == "NextcloudAudit"
    assert [a.content for a in answers["/proof/1"]] == [a.content for a in answers["/proof/9"]]


def test_proof_is_not_there_before_it_is_published(enrolled: Town) -> None:
    """A file that is only pending is 503 with Retry-After; one whose newest entry is pending has its older proof."""
    see(enrolled, 3, b"new", "c")
    answer = get(enrolled, "/proof/3", enrolled.signer())
    assert reason(answer) == (503, "not-published")
    assert int(answer.headers["retry-after"]) > 0
    touched = Observation(enrolled.source.row, 1, Operation.TOUCHED, NOW + 1)
    enrolled.service.recorder.record([touched])
    proof = parse_proof(get(enrolled, "/proof/1", enrolled.signer()).content)
    assert len(proof.entries) == 1


def test_long_proofs_are_made_aside(enrolled: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long chain's proof comes from a thread, and is the same."""
    short = get(enrolled, "/proof/1", enrolled.signer()).content
    monkeypatch.setattr(api_module, "LONG_CHAIN", 0)
    assert get(enrolled, "/proof/1", enrolled.signer()).content == short


def test_proof_of_a_long_earlier_generation_is_made_aside(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new generation has one entry; what the proof reads and may show is the one before it, however long."""
    see(town, 1, b"one", PATH)
    row, recorder = town.source.row, town.service.recorder
    recorder.record([Observation(row, 1, Operation.TOUCHED, NOW + n) for n in range(3)])
    assert asyncio.run(town.enrol()).status_code == 202
    recorder.migrate(row, 10)
    publish(town)
    threads, build = list[int](), Prover.build_for

    def noting(prover: Prover, *asked: Any) -> Proof:
        threads.append(threading.get_ident())
        return build(prover, *asked)

    monkeypatch.setattr(Prover, "build_for", noting)
    for long, aside in ((5, True), (6, False)):  # created, three times touched, closed; adopted
        monkeypatch.setattr(api_module, "LONG_CHAIN", long)
        assert get(town, "/proof/1", town.signer()).status_code == 200
        assert (threads.pop() != threading.get_ident()) is aside


def test_token_is_used_up_with_the_owner_or_not_at_all(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] A fault between the two would leave a token that enrols a second time."""
    with monkeypatch.context() as patch:
        patch.setattr(enrolment_module, "_USE_TOKEN", "crash here")
        assert asyncio.run(town.enrol()).status_code == 503
    assert town.service.store.reader().execute("SELECT kind FROM owners").fetchall() == []
    assert asyncio.run(town.enrol()).status_code == 202
    assert asyncio.run(town.enrol("other")).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "path=a&path=b",
        "what=1",
        "path=%ff",
        "path=%zz",
        "path=%",
        "path=",
        "path=a&from=01",
        "path=a&size=-1",
        "path=a&from=16384",
        "path=a&source=Folder",
        "path=a&",
        "path=" + "a" * 5000,
        "",
    ],
)
def test_question_is_parsed_strictly(query: str) -> None:
    """Unknown, repeated, unreadable or oversized parts of the query are malformed."""
    with pytest.raises(Malformed):
        parse_question(None, query)


def test_question_has_one_meaning() -> None:
    """A plus sign is a plus sign; an escape may be written in both cases; `replaces` may come often."""
    question = parse_question("17", "from=3&size=40&replaces=3&replaces=4&source=folder:f0")
    assert question == (17, None, "folder:f0", 3, 40, (3, 4))
    assert parse_question(None, "path=a+b%2fc%2Fd").path == "a+b/c/d"
    for file_id in ("017", "x", "9" * 20):
        with pytest.raises(Malformed):
            parse_question(file_id, "")
    with pytest.raises(Malformed, match="want a file id"):
        parse_question("1", "path=a")


# The log


def test_checkpoint_is_the_newest_published_one(enrolled: Town) -> None:
    """The published note as it is, never cached; a signed one without its quorum is not shown; 404 before the first."""
    answer = get(enrolled, "/checkpoint")
    note, checkpoint = open_checkpoint(answer.content, parse_vkey(enrolled.made.vkey))
    assert checkpoint.size == 4
    assert len(note.signatures) == 7
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    see(enrolled, 3, b"new", "c")
    enrolled.service.publisher.integrate_and_sign(NOW)
    assert get(enrolled, "/checkpoint").content == answer.content


def test_checkpoint_of_a_log_that_published_nothing(town: Town) -> None:
    """Nothing published is 404, for auditors and clients alike."""
    assert reason(get(town, "/checkpoint")) == (404, "not-found")


def test_tiles_are_served_up_to_the_signed_size(enrolled: Town) -> None:
    """Hashes and entries of the signed tree, published or not, immutable; not one beyond it."""
    see(enrolled, 3, b"new", "c")
    target = enrolled.service.publisher.integrate_and_sign(NOW)
    assert target is not None
    entries = get(enrolled, "/" + format_tile_path(Tile(ENTRIES, 0, target.size)))
    hashes = get(enrolled, "/" + format_tile_path(Tile(0, 0, target.size)))
    leaves = decode_entry_bundle(entries.content, target.size)
    assert decode_hash_tile(hashes.content, target.size) == [leaf_hash(leaf) for leaf in leaves]
    for answer in (entries, hashes):
        assert answer.headers["cache-control"] == IMMUTABLE
        assert answer.headers["content-type"] == "application/octet-stream"
    assert reason(get(enrolled, "/" + format_tile_path(Tile(0, 0, target.size + 1)))) == (404, "not-found")
    assert reason(get(enrolled, "/tile/0/000")) == (404, "not-found")


@pytest.mark.parametrize("path", ["/tile/0/0", "/tile/0/000.p/0", "/tile/0/000.p/1?x", "/tile/64/000", "/tile/%30/000"])
def test_tile_path_has_one_spelling(town: Town, path: str) -> None:
    """Whatever is not the path that tlog-tiles writes is malformed."""
    assert reason(get(town, path)) == (400, "malformed")


def test_healthz_and_status_answer_always(town: Town) -> None:
    """A log that published nothing says so; numbers are text."""
    assert get(town, "/healthz").json() == {"status": "ok"}
    status = get(town, "/status").json()
    assert (status["log"], status["origin"], status["vkey"]) == (
        town.made.log_name,
        "log.example/files",
        town.made.vkey,
    )
    assert (status["size"], status["pending"], status["published"], status["audited"]) == ("0", "0", None, None)
    assert not any(isinstance(value, int) for value in status.values())


# Enrolment


def test_enrolment_ends_in_a_verified_inclusion(town: Town) -> None:
    """Offer, enrolment, 503 until published, then an inclusion that the client's own check accepts."""
    keys = town.keys()
    root = owner_root(keys.public, keys.blinding)
    assert reason(get(town, f"/enrolment/{root.hex()}")) == (404, "not-found")
    offered = get(town, "/enrolment").json()
    assert list(offered) == ["log", "vkey", "sources", "nonce"]
    assert (offered["log"], offered["vkey"], offered["sources"]) == (
        town.made.log_name,
        town.made.vkey,
        [town.source.source_id],
    )
    answer = asyncio.run(town.enrol())
    assert (answer.status_code, answer.json()) == (202, {"root": root.hex()})
    assert reason(get(town, f"/enrolment/{root.hex()}")) == (503, "not-published")
    publish(town)
    shown = get(town, f"/enrolment/{root.hex()}").json()
    assert list(shown) == ["root", "index", "checkpoint", "hashes"]
    _, checkpoint = open_checkpoint(shown["checkpoint"].encode(), parse_vkey(town.made.vkey))
    hashes = decode_hashes(shown["hashes"], "hashes", 63)
    leaf = leaf_hash(encode_leaf(EnrolmentLeaf(root)))
    verify_inclusion(int(shown["index"]), checkpoint.size, leaf, hashes, checkpoint.root)


def test_enrolment_token_works_once(town: Town) -> None:
    """[R] A used token, a second owner and a used nonce are refused, and change nothing."""
    nonce = asyncio.run(town.offer())
    assert asyncio.run(town.enrol(nonce=nonce)).status_code == 202
    assert reason(asyncio.run(town.enrol("eve", nonce=nonce))) == (403, "refused")
    assert reason(asyncio.run(town.enrol("eve"))) == (403, "refused")
    other = town.service.store.add_source("folder:/elsewhere", "folder:f1")
    assert reason(asyncio.run(town.enrol("eve", source="folder:f1"))) == (403, "refused")
    rows = town.service.store.reader().execute("SELECT owner_key FROM owners").fetchall()
    assert rows == [(town.keys().public,)]
    assert other


def test_enrolment_of_an_owned_source_is_a_conflict(town: Town) -> None:
    """With a token of its own, a second owner of the same source is told so."""
    assert asyncio.run(town.enrol()).status_code == 202
    token = new_token(town.service.store, "eve", None)
    assert reason(asyncio.run(town.enrol("eve", user="eve", token=token))) == (409, "enrolled")


@pytest.mark.parametrize("root", ["ab", "A" * 64, "g" * 64])
def test_enrolment_root_has_one_spelling(town: Town, root: str) -> None:
    """A root is 64 lower-case hex digits."""
    assert reason(get(town, f"/enrolment/{root}")) == (400, "malformed")


# Seals


def seal_body(town: Town, who: str = "owner", generation: str = "0", **changed: Any) -> bytes:
    """A seal of file 1 as the owner's device makes it."""
    conn = town.service.store.reader()
    current = find_current(conn, town.source.row, 1)
    tree = town.service.publisher.published()
    assert current is not None
    assert tree is not None
    chain = load_chain(conn, town.service.store, current)
    accepted: tuple[tuple[bytes, int], ...] = ()
    commitment, version = chain.carriers[-1][1], current.version
    plain = Seal(
        current.last_seq, current.head, commitment, version, tree.size, tree.root, NO_SEAL, accepted, b""
    )._replace(**changed)
    signature = ed25519.load_private_key(town.keys(who).private).sign(seal_message(chain.binding, plain))
    data = encode_base64(encode_seal_body(plain) + signature)
    fields = {"source": town.source.source_id, "file": "1", "generation": generation, "seal": data}
    return json.dumps(fields, separators=(",", ":")).encode()


def post(town: Town, target: str, body: bytes, signer: Signer | None = None) -> httpx.Response:
    return asyncio.run(town.send("POST", target, body, signer))


def test_seal_is_logged_once(enrolled: Town) -> None:
    """The owner's seal gets its seq; the very same one again gets the same seq, and nothing is logged."""
    body = seal_body(enrolled)
    first, again = (post(enrolled, "/seals", body, enrolled.signer()) for _ in range(2))
    assert (first.status_code, first.json()) == (202, {"seq": "1"})
    assert (again.status_code, again.json()) == (200, {"seq": "1"})
    current = find_current(enrolled.service.store.reader(), enrolled.source.row, 1)
    assert current is not None
    assert current.last_seq == 1


def test_seal_sent_twice_at_once_is_logged_once(enrolled: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R] One of two requests looks its chain up before the other is logged: both get the same seq, and no fault."""
    recorder, body = enrolled.service.recorder, seal_body(enrolled)
    record_seal, calls, answered = recorder.record_seal, iter(range(2)), threading.Event()

    def late_once(*args: Any) -> Any:
        if next(calls) == 0:  # its chain is looked up, and nothing is written yet
            assert answered.wait(10)
        return record_seal(*args)

    async def send() -> httpx.Response:
        answer = await enrolled.send("POST", "/seals", body, enrolled.signer())
        answered.set()
        return answer

    async def both() -> list[httpx.Response]:
        return list(await asyncio.gather(send(), send()))

    monkeypatch.setattr(recorder, "record_seal", late_once)
    answers = sorted(asyncio.run(both()), key=lambda answer: answer.status_code)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"seq": "1"}), (202, {"seq": "1"})]
    current = find_current(enrolled.service.store.reader(), enrolled.source.row, 1)
    assert current is not None
    assert current.last_seq == 1


def test_seal_of_another_one_is_refused(enrolled: Town) -> None:
    """A request or a seal by another key, another generation, or a wrong head: nothing is logged."""
    good = seal_body(enrolled)
    assert reason(post(enrolled, "/seals", good)) == (401, "unauthorised")
    assert reason(post(enrolled, "/seals", good, enrolled.signer("eve"))) == (404, "not-found")
    for wrong in (seal_body(enrolled, "eve"), seal_body(enrolled, generation="1"), seal_body(enrolled, head=bytes(32))):
        assert reason(post(enrolled, "/seals", wrong, enrolled.signer())) == (422, "refused")
    gone = good.replace(b'"file":"1"', b'"file":"9"')
    assert reason(post(enrolled, "/seals", gone, enrolled.signer())) == (404, "not-found")
    current = find_current(enrolled.service.store.reader(), enrolled.source.row, 1)
    assert current is not None
    assert current.last_seq == 0


def test_seal_is_decoded_strictly() -> None:
    """Bytes after the signature, or too few, are no seal."""
    seal = Seal(1, bytes(32), bytes(32), 0, 9, bytes(32), bytes(32), (), bytes(64))
    data = encode_seal_body(seal) + seal.signature
    assert decode_seal(data) == seal
    for wrong in (data + b"\0", data[:-1], b""):
        with pytest.raises(Malformed):
            decode_seal(wrong)


# Refusals, bounds, headers


@pytest.mark.parametrize(
    ("method", "target", "want"),
    [
        ("GET", "/", (404, "not-found")),
        ("GET", "/docs", (404, "not-found")),
        ("GET", "/proof/", (404, "not-found")),
        ("GET", "/proof/1/2", (404, "not-found")),
        ("PUT", "/status", (405, "method")),
        ("DELETE", "/proof/1", (405, "method")),
        ("POST", "/enrolment", (400, "malformed")),
    ],
)
def test_refusals_have_one_form(town: Town, method: str, target: str, want: tuple[int, str]) -> None:
    """Whatever is refused, by a route or by the router, is refused in the one form."""
    assert reason(asyncio.run(town.send(method, target, b"[]" if method == "POST" else b""))) == want


def test_fault_says_nothing_of_the_inside(town: Town) -> None:
    """A fault of the log is 500 in the same form, without its message."""
    town.service.store.reader().execute("PRAGMA query_only=ON")
    town.service.publisher.published = broken  # type: ignore[method-assign]
    answer = get(town, "/checkpoint")
    assert reason(answer) == (500, "fault")
    assert "secret" not in answer.text


def test_fault_in_a_proof_is_told_to_the_server_alone(enrolled: Town) -> None:
    """The hot path goes past the framework, and its faults have the same form; the server gets the error itself."""
    enrolled.service.prover.build_for = broken  # type: ignore[method-assign, assignment]
    answer = get(enrolled, "/proof/1", enrolled.signer())
    assert reason(answer) == (500, "fault")
    assert "secret" not in answer.text
    enrolled.client = httpx.AsyncClient(transport=httpx.ASGITransport(enrolled.app), base_url="http://log.test")
    with pytest.raises(RuntimeError, match="secret"):
        get(enrolled, "/proof/1", enrolled.signer())


def broken(*_: object) -> None:
    raise RuntimeError("secret")


def test_bodies_are_bounded_while_they_are_read(town: Town) -> None:
    """A body beyond its bound is 413, whether its length is declared, chunked or lied about."""

    async def pieces() -> Any:
        for _ in range(MAX_BODY // 1000 + 2):
            yield b"x" * 1000

    async def send(**more: Any) -> httpx.Response:
        return await town.client.post("/enrolment", **more)

    for more in ({"content": b"x" * (MAX_BODY + 1)}, {"content": pieces()}):
        assert reason(asyncio.run(send(**more))) == (413, "too-large")


def test_targets_are_bounded(enrolled: Town) -> None:
    """A request line beyond its bound is 414."""

    async def send() -> httpx.Response:
        return await enrolled.client.get("/proof?path=" + "a" * MAX_TARGET)

    assert reason(asyncio.run(send())) == (414, "too-long")


def test_bucket_lets_a_burst_through_and_then_a_rate() -> None:
    """At most so many at once, then as many as time brings back; a clock that goes back brings none."""
    bucket = Bucket(0.5, 2)
    bucket.take(NOW)
    bucket.take(NOW)
    for now in (NOW, NOW + 1, NOW):
        with pytest.raises(TooMany):
            bucket.take(now)
    bucket.take(NOW + 2)


def test_offers_are_bounded(town: Town) -> None:
    """Asking for nonces without end is 429 with Retry-After."""

    async def ask() -> httpx.Response:
        answers = [await town.send("GET", "/enrolment") for _ in range(api_module.OFFERS_AT_ONCE + 1)]
        assert {answer.status_code for answer in answers[:-1]} == {200}
        return answers[-1]

    answer = asyncio.run(ask())
    assert reason(answer) == (429, "too-many")
    assert int(answer.headers["retry-after"]) > 0


def test_every_answer_has_the_security_headers(enrolled: Town) -> None:
    """Answers and refusals alike: no sniffing, no content, no referrer, and how to cache."""
    for target in ("/status", "/checkpoint", "/tile/0/000.p/1", "/proof/1", "/nowhere", "/tile/x"):
        headers = get(enrolled, target).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] in ("no-store", IMMUTABLE)


# The description


def test_openapi_describes_every_route(town: Town) -> None:
    """Every route is described, with an example of its answer and the form of its refusals."""
    described = get(town, "/openapi.json").json()
    assert {(path, method) for path, item in described["paths"].items() for method in item} == {
        ("/healthz", "get"),
        ("/status", "get"),
        ("/checkpoint", "get"),
        ("/loss", "get"),
        ("/closings", "post"),
        ("/enrolment", "get"),
        ("/enrolment", "post"),
        ("/enrolment/{root}", "get"),
        ("/seals", "post"),
        ("/hook", "post"),
        ("/nodes", "post"),
        ("/tile/{path}", "get"),
        ("/proof", "get"),
        ("/proof/{file}", "get"),
    }


def test_openapi_examples_are_real() -> None:
    """The examples are read by the parsers that clients use, and belong to one log."""
    examples = openapi.EXAMPLES
    offer, enrolled, proof = examples["offer"], examples["enrolled"], examples["proof"]
    key = parse_vkey(offer["vkey"])
    data = json.dumps(proof, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    parsed = parse_proof(data)
    assert (parsed.log, parsed.source) == (offer["log"], offer["sources"][0])
    for note in (examples["checkpoint"], enrolled["checkpoint"], proof["checkpoint"]):
        open_checkpoint(note.encode(), key)
    enrolment, signature = parse_enrolment(encode_json(examples["enrolment"]))
    verify_enrolment(enrolment, signature)
    assert owner_root(enrolment.owner, enrolment.blinding).hex() == enrolled["root"]
    seal = decode_seal(decode_base64(examples["seal"]["seal"], "seal"))
    assert seal.head == parsed.map.head
    assert examples["status"]["log"] == offer["log"]
    assert list(examples["refusal"]) == ["error"]
