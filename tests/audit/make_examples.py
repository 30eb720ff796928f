"""Writes audit/examples.json, the examples of /openapi.json: what one log really answered.

python -m tests.audit.make_examples
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx

from audit.batch import Observation
from tests.audit.log_setup import content_of
from tests.audit.test_api import publish, seal_body
from tests.audit.town import Town
from tests.fakes import NOW
from tests.nextcloud.events import APP, HOOK, NODE_EVENT, WEBHOOK, appapi, bearer, hooked
from verifier.entry import Operation

FILE = Path(__file__).resolve().parents[2] / "audit" / "examples.json"


async def ask(town: Town, target: str, body: bytes = b"") -> httpx.Response:
    answer = await town.send("POST" if body else "GET", target, body, town.signer())
    assert answer.status_code in (200, 202), answer.text
    return answer


async def collect(town: Town) -> dict[str, Any]:
    """Every answer, in the order in which a client meets them."""
    examples: dict[str, Any] = {"offer": (await ask(town, "/enrolment")).json()}
    enrolled = await town.enrol()
    examples["enrolment"] = json.loads(enrolled.request.content)
    examples["enrolment accepted"] = enrolled.json()
    content = content_of(b"minutes of the board\n")
    town.service.recorder.record(
        [Observation(town.source.row, 1, Operation.CREATED, NOW, content, "Board/minutes.txt")]
    )
    publish(town)
    examples["enrolled"] = (await ask(town, f"/enrolment/{enrolled.json()['root']}")).json()
    examples["proof"] = (await ask(town, "/proof/1")).json()
    body = seal_body(town)
    examples["seal"] = json.loads(body)
    examples["seal accepted"] = (await ask(town, "/seals", body)).json()
    examples["status"] = (await ask(town, "/status")).json()
    examples["checkpoint"] = (await ask(town, "/checkpoint")).text
    examples["refusal"] = (await town.send("GET", "/proof/2", signer=town.signer())).json()
    hooked(town)
    examples["webhook"], examples["node event"] = WEBHOOK, NODE_EVENT
    queued = [
        await town.send("POST", "/hook", json.dumps(WEBHOOK).encode(), headers=bearer(HOOK)),
        await town.send("POST", "/nodes", json.dumps(NODE_EVENT).encode(), headers=appapi(APP)),
    ]
    (examples["event queued"],) = {answer.text: answer.json() for answer in queued}.values()
    return examples


def make() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        town = Town(Path(directory), quorum=2, nodes=3)
        try:
            return asyncio.run(collect(town))
        finally:
            town.close()


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
