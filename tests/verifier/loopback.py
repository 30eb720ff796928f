"""A log behind HTTP on this machine, honest until a test bends it. It checks what a client signs, as a log does."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests import reference
from tests.builder import World
from verifier.encoding import Reader, decode_base64, encode_base64, encode_hashes
from verifier.entry import Operation, _decode_seal
from verifier.errors import Error
from verifier.keys import owner_root
from verifier.leaf import EnrolmentLeaf, encode_leaf
from verifier.loss import format_loss
from verifier.note import format_vkey
from verifier.proof import Line, format_proof
from verifier.request import Enrolment, parse_authorization, verify_enrolment, verify_request

NONCE = bytes(range(32, 64))
TOKEN = "one-time-token"


Answered = tuple[int, dict[str, str], bytes]


class Log:
    """The world of a test, and what a client asked of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[str] = []
        self.enrolments: dict[bytes, int] = {}  # root -> index of its leaf
        self.pending = 0  # so many times the enrolment is not published yet
        self.publish_seals = True
        self.name, self.vkey = world.log_name, format_vkey(world.log.verifier_key)  # as it says of itself
        self.degraded_since: object = None  # what its status says
        self.kept = b""  # the bytes that a closed chain goes on with
        self.answer: Answered | None = None  # to everything, when a test sets it

    def respond(self, method: str, target: str, authorization: str | None, body: bytes) -> Answered:
        if target == "/status" and self.answer is None:
            return _json(200, {"log": self.world.log_name, "degraded_since": self.degraded_since})
        self.asked.append(f"{method} {target}")
        if self.answer is not None:
            return self.answer
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        if parts.path == "/enrolment":
            return self._offer() if method == "GET" else self._enrol(json.loads(body))
        if parts.path == "/loss" and self.world.declared:
            return 200, {}, format_loss(self.world.declared)
        if parts.path == "/loss":
            return _error(404, "not-found", "nothing was lost")
        if parts.path.startswith("/enrolment/"):
            return self._enrolled(bytes.fromhex(parts.path.rpartition("/")[2]))
        try:
            given = parse_authorization(authorization or "")
            owner = verify_request(given, self.world.log_name, method, target, body, int(time.time()))
        except Error as error:
            return _error(401, "unauthorized", str(error))
        if owner != self.world.owner.public:
            return _error(401, "unauthorized", "not enrolled")
        if parts.path == "/seals":
            return self._seal(json.loads(body))
        if parts.path == "/closings":
            return self._close(json.loads(body))
        return self._proof(parts.path.removeprefix("/proof").removeprefix("/"), query)

    def _offer(self) -> Answered:
        return _json(
            200,
            {
                "log": self.name,
                "vkey": self.vkey,
                "sources": [self.world.source],
                "nonce": encode_base64(NONCE),
            },
        )

    def _enrol(self, fields: dict[str, str]) -> Answered:
        owner, blinding = decode_base64(fields["owner"], "owner"), decode_base64(fields["blinding"], "blinding")
        enrolment = Enrolment(
            fields["log"],
            fields["source"],
            fields["user"],
            fields["token"],
            decode_base64(fields["nonce"], "nonce"),
            owner,
            blinding,
        )
        verify_enrolment(enrolment, decode_base64(fields["signature"], "signature"))
        if (enrolment.token, enrolment.nonce) != (TOKEN, NONCE):
            return _error(403, "token", "this token is not open")
        root = owner_root(owner, blinding)
        self.enrolments[root] = len(self.world.leaves)
        self.world.leaves.append(encode_leaf(EnrolmentLeaf(root)))
        self.world.publish()
        return _json(202, {"root": root.hex()})

    def _enrolled(self, root: bytes) -> Answered:
        index = self.enrolments.get(root)
        if index is None:
            return _error(404, "unknown", "no such enrolment")
        if self.pending:
            self.pending -= 1
            status, headers, body = _error(503, "not-published", "not yet")
            return status, headers | {"Retry-After": "0"}, body
        size = max(self.world.notes)
        hashes = encode_hashes(reference.path(index, self.world.leaves[:size]))
        note = self.world.notes[size].decode()
        return _json(200, {"root": root.hex(), "index": str(index), "checkpoint": note, "hashes": hashes})

    def _proof(self, file: str, query: dict[str, list[str]]) -> Answered:
        file_id = int(file) if file else self._find(query["path"][0])
        if file_id not in self.world.histories:
            return _error(404, "not-found", "no such file, or not for you")
        first = int(query.get("from", ["0"])[0])
        size = int(query["size"][0]) if "size" in query else None
        proof = self.world.prove(
            file_id,
            pinned=size if size is not None and size <= max(self.world.notes) else None,
            first_seq=first if first < len(self.world.histories[file_id].records) else 0,
            replaces=tuple(int(old) for old in query.get("replaces", [])),
        )
        return 200, {"Content-Type": "application/json"}, format_proof(proof)

    def _find(self, path: str) -> int:
        live = [n for n, h in self.world.histories.items() if h.chain.path == path and h.chain.status == "live"]
        return live[-1] if live else -1

    def _seal(self, fields: dict[str, str]) -> Answered:
        seal = _decode_seal(Reader(decode_base64(fields["seal"], "seal"), "seal"))
        self.world.record(int(fields["file"]), Operation.SEALED, argument=seal)
        if self.publish_seals:
            self.world.publish()
        return _json(202, {"seq": str(self.world.histories[int(fields["file"])].chain.seq)})

    def _close(self, fields: dict[str, str]) -> Answered:
        """Takes the owner's end of a chain, and goes on with the content that it keeps."""
        file_id = int(fields["file"])
        history = self.world.histories[file_id]
        parts = [decode_base64(fields[name], name) for name in Line._fields]
        self.world.append(history, Line(*parts))
        step = history.chain.steps[-1]
        assert isinstance(step.path, str)
        self.world.continue_(file_id, self.kept, step.path)
        self.world.publish()
        return _json(202, {"seq": str(step.entry.seq)})


class Served:
    """`with Served(Log(world)) as url:` answers on a free port of this machine."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __enter__(self) -> str:
        log = self.log

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                status, headers, data = log.respond(self.command, self.path, self.headers["Authorization"], body)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def _json(status: int, value: object) -> Answered:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(status: int, reason: str, message: str) -> Answered:
    return _json(status, {"error": {"reason": reason, "message": message}})
