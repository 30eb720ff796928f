"""A log that is told what happens in a Nextcloud: the fake one, whose webhooks come when the test lets them.

town.deliver()                       every event so far, in order, each once
town.deliver(lose=..., times=2)      some never come, others twice
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from audit.chains import find_current, load_chain
from audit.directory import open_log
from audit.nextcloud.client import Account, AppAPI, Config, Secret, open_sessions
from audit.nextcloud.inbox import EventKeys, Inbox
from audit.nextcloud.known import count_dirty, next_due
from audit.nextcloud.limits import Budget, Limits
from audit.nextcloud.source import NextcloudSource, add_nextcloud
from tests.audit.town import Town
from tests.nextcloud.fake import FakeNextcloud, webhook_bodies
from tests.nextcloud.model import User

HOOK = Secret("5a" * 32)
APP = AppAPI("nc_audit", "1.0.0", Secret("app-secret"))
URL = "https://cloud.example"
WEBHOOK = {
    "event": {
        "node": {"id": 80, "path": "/alice/files/ev.txt"},
        "class": "OCP\\Files\\Events\\Node\\NodeWrittenEvent",
    },
    "user": {"uid": "alice", "displayName": "Alice"},
    "time": 1_795_372_693,
}
NODE_EVENT = {
    "event_type": "node_event",
    "event_subtype": "NodeWrittenEvent",
    "event_data": {"target": {"fileId": 80, "name": "ev.txt", "directory": "", "userId": "alice"}},
}


def bearer(secret: Secret) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret.reveal()}"}


def appapi(app: AppAPI, user: str = "") -> dict[str, str]:
    token = b64encode(f"{user}:{app.secret.reveal()}".encode()).decode()
    return {"EX-APP-ID": app.app, "AUTHORIZATION-APP-API": token}


def hooked(town: Town) -> None:
    """This log, whatever its source, takes in events."""
    service = town.service
    service.event_keys = EventKeys(HOOK, APP)
    service.inbox = Inbox(service.store, [town.source.row], town.clock, service.hinted)


class CloudTown(Town):
    """The log of a fake Nextcloud with one user, alice."""

    def __init__(self, directory: Path) -> None:
        self.fake = FakeNextcloud()
        self.alice: User = self.fake.cloud.add_user("alice", "alice-pw")
        self.delivered = 0
        super().__init__(directory, quorum=2, nodes=3)

    def open(self, enrol_first: bool = False) -> None:
        log = open_log(str(self.path / "log"))
        config = Config(URL, (Account("alice", Secret("alice-pw")),), None)
        file = self.path / "log" / "nextcloud.json"
        file.write_text(json.dumps({"url": URL, "accounts": [{"user": "alice", "password": "alice-pw"}]}))
        os.chmod(file, 0o600)
        opener = partial(open_sessions, config, httpx.ASGITransport(self.fake.app))
        self.cloud: NextcloudSource = add_nextcloud(log.store, f"nextcloud:{URL}", opener)._replace(
            limits=Limits(budget=Budget(hours=0), share=1)
        )
        self._serve(log, self.cloud, enrol_first, EventKeys(HOOK, APP))

    def put(self, path: str, data: bytes) -> int:
        self.fake.cloud.now += 1
        self.clock.now += 1
        return self.fake.cloud.put(self.alice, (path,), data).file_id

    async def hook(self, body: bytes) -> httpx.Response:
        return await self.send("POST", "/hook", body, headers=bearer(HOOK))

    async def deliver(self, lose: Callable[[int], bool] = lambda number: False, times: int = 1) -> None:
        """What webhook_listeners does: one attempt each, whatever comes of it."""
        bodies = webhook_bodies(self.fake)
        for number in range(self.delivered, len(bodies)):
            for _ in range(0 if lose(number) else times):
                assert (await self.hook(bodies[number])).status_code == 200
        self.delivered = len(bodies)

    def told(self, file_id: int) -> list[str]:
        """What is recorded of a file, by operation."""
        with self.service.store.snapshot() as conn:  # looks go on meanwhile
            current = find_current(conn, self.cloud.row, file_id)
            if current is None:
                return []
            chain = load_chain(conn, self.service.store, current)
        return [step.entry.operation.word for step in chain.steps]

    async def until(self, probe: Callable[[], object]) -> None:
        """Lets the loops run. A look that met a change is tried again when it is due: the clock goes on till then."""

        def after_pauses() -> object:
            due = next_due(self.service.store.reader(), self.cloud.row)
            self.clock.now = max(self.clock.now, due or 0)
            return probe()

        await super().until(after_pauses)

    def waiting(self) -> int:
        return count_dirty(self.service.store.reader(), self.cloud.row)
