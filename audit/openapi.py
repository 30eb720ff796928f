"""What /openapi.json says: every route, with what one log really answered.

`examples.json` holds those answers (`python -m tests.audit.make_examples` writes it); they belong together, and tests
read them with the parsers that clients use. The descriptions of the routes are their docstrings in `audit.api`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

ABOUT: dict[str, Any] = {
    "title": "nextcloud-audit",
    "version": "1",
    "summary": "A log of every operation on every file, cosigned by witnesses and replayed by auditors",
    "description": "64-bit numbers are decimal strings, byte strings canonical base64. Errors have one form.",
    "license_info": {"name": "Apache-2.0"},
}
EXAMPLES: dict[str, Any] = json.loads(files("audit").joinpath("examples.json").read_text("utf-8"))
SIGNED: dict[str, Any] = {"security": [{"owner": []}]}
SCHEME = {
    "type": "http",
    "scheme": "NextcloudAudit",
    "description": "NextcloudAudit KEY TIME SIGNATURE: the owner's key signs log, method, target, time and body",
}
SCHEMES = {
    "owner": SCHEME,
    "hook": {"type": "http", "scheme": "bearer", "description": "the secret in the log's hook.secret"},
    "appapi": {
        "type": "apiKey",
        "in": "header",
        "name": "AUTHORIZATION-APP-API",
        "description": "base64 of UID:SECRET, beside EX-APP-ID; the UID may be empty",
    },
}
_JSON, _TEXT, _BINARY = "application/json", "text/plain", "application/octet-stream"


def _answers(status: int, example: object, *refusals: int, media: str = _JSON, words: str = "") -> dict[str, Any]:
    """The `responses` of a route: its answer with an example, and the statuses of its refusals."""
    shown = {"description": words or "as in the example", "content": {media: {"example": example}}}
    refused = {"description": "refused", "content": {_JSON: {"example": EXAMPLES["refusal"]}}}
    return {"responses": {status: shown, **dict.fromkeys(refusals, refused)}}


def _body(example: object) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {_JSON: {"example": example}}}}


_LOSS = {
    "format": "nextcloud-audit/loss/1",
    "declared": [{"note": EXAMPLES["checkpoint"], "key": "base64", "signature": "base64"}],
}
_CLOSING = {
    "source": EXAMPLES["proof"]["source"],
    "file": "1",
    "generation": "0",
    **dict.fromkeys(("entry", "content", "path", "context"), "base64"),
}
ROUTES: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/healthz"): _answers(200, {"status": "ok"}),
    ("GET", "/status"): _answers(200, EXAMPLES["status"]),
    ("GET", "/checkpoint"): _answers(200, EXAMPLES["checkpoint"], 404, media=_TEXT),
    ("GET", "/loss"): _answers(200, _LOSS, 404, words="what this log has declared lost (SPEC 6.5)"),
    ("GET", "/enrolment"): _answers(200, EXAMPLES["offer"], 429),
    ("POST", "/enrolment"): {
        **_answers(202, EXAMPLES["enrolment accepted"], 400, 403, 409, 413, 429),
        "openapi_extra": _body(EXAMPLES["enrolment"]),
    },
    ("GET", "/enrolment/{root}"): _answers(200, EXAMPLES["enrolled"], 400, 404, 503),
    ("POST", "/seals"): {
        **_answers(202, EXAMPLES["seal accepted"], 400, 401, 404, 413, 422, words="logged; 200: was logged before"),
        "openapi_extra": {**_body(EXAMPLES["seal"]), **SIGNED},
    },
    ("POST", "/closings"): {
        **_answers(202, {"seq": "4"}, 400, 401, 404, 413, 422, words="logged; the next generation has begun"),
        "openapi_extra": {**_body(_CLOSING), **SIGNED},
    },
    ("POST", "/hook"): {
        **_answers(200, EXAMPLES["event queued"], 400, 401, 404, 413, 503),
        "openapi_extra": {**_body(EXAMPLES["webhook"]), "security": [{"hook": []}]},
    },
    ("POST", "/nodes"): {
        **_answers(200, EXAMPLES["event queued"], 400, 401, 404, 413, 503),
        "openapi_extra": {**_body(EXAMPLES["node event"]), "security": [{"appapi": []}]},
    },
    ("GET", "/tile/{path:path}"): _answers(200, "binary", 400, 404, media=_BINARY, words="c2sp.org/tlog-tiles"),
}


def _parameter(name: str, where: str, example: str, words: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": words,
        "schema": {"type": "string"},
        "example": example,
    }


_PROOF = {
    "summary": "Proof",
    "description": "The proof of a file's current version, for the enrolled owner of its source (SPEC 7).",
    **SIGNED,
    **_answers(200, EXAMPLES["proof"], 400, 401, 404, 414, 429, 503),
}
_ASKED = [
    _parameter("source", "query", EXAMPLES["proof"]["source"], "which source, where the key owns several"),
    _parameter("from", "query", "3", "the first seq to show, for a client that has verified before"),
    _parameter("size", "query", "40", "the tree size that the client has seen"),
    _parameter("replaces", "query", "3", "a file id that the client knew under this path; may be repeated"),
]
_PATH = _parameter("path", "query", "Board/minutes.txt", "the path in the source, percent-encoded UTF-8")
_FILE = _parameter("file", "path", "1", "the file id")
# Plain routes, which FastAPI does not look at.
PLAIN = {
    "/proof": {"get": {**_PROOF, "parameters": [_PATH, *_ASKED]}},
    "/proof/{file}": {"get": {**_PROOF, "parameters": [_FILE, *_ASKED]}},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description, made once."""
    if app.openapi_schema is None:
        made = get_openapi(**ABOUT, routes=app.routes)
        made["paths"] |= json.loads(json.dumps(PLAIN))
        made.setdefault("components", {})["securitySchemes"] = SCHEMES
        app.openapi_schema = made
    return app.openapi_schema
