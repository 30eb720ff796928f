"""Registering this log's hook with Nextcloud's webhook_listeners (30 and later): what is there, what is missing.

    GET  /ocs/v2.php/apps/webhook_listeners/api/v1/webhooks?uri=URL      what is registered for this very address
    POST /ocs/v2.php/apps/webhook_listeners/api/v1/webhooks[/ID]         a new one; or one that is there, changed

    {"httpMethod":"POST","uri":"https://audit.example.org/hook","event":"OCP\\\\Files\\\\Events\\\\Node\\\\NodeWrittenEvent",
     "headers":{"X-Nextcloud-Audit":"b5bb9d8014a0f9b1"},"authMethod":"header","authData":{"Authorization":"Bearer ..."}}

A registration that is deleted takes the events that wait for it along, so a changed one is changed in place. Nextcloud
shows the secret to nobody, so a few digits of its hash travel in a header: they tell whether it is still this one.
Other people's registrations are left alone; ours are those for our address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from audit.answers import read_answer
from audit.errors import PeerFailed, Refused
from audit.nextcloud.client import Secret, Server
from audit.nextcloud.hints import NODE_EVENTS
from verifier.errors import Malformed

WEBHOOKS = "/ocs/v2.php/apps/webhook_listeners/api/v1/webhooks"
MARK = "X-Nextcloud-Audit"
MARK_SIZE = 16  # hex digits of a hash of the secret
MAX_ANSWER = 4 << 20
CREATED, UPDATED, UNCHANGED, REMOVED = "created", "updated", "unchanged", "removed"
NO_APP = (
    "nextcloud: it has no webhook_listeners: on 30 and later occ app:enable webhook_listeners; on 27 to 29 run this "
    "log as an external app, and have it POST /ocs/v1.php/apps/app_api/api/v1/events_listener "
    '{"eventType":"node_event","actionHandler":"/nodes"}; on the same host serve --audit-log PATH does without'
)


class Registered(NamedTuple):
    """A registration for our address. `is_right`: it is as we would make it."""

    number: int
    event: str
    is_right: bool


class Done(NamedTuple):
    """What became of the registration for an event."""

    event: str
    what: str


async def register(server: Server, headers: Mapping[str, str], url: str, secret: Secret) -> list[Done]:
    """One registration for each event, made or mended; those that are right stay as they are."""
    there: dict[str, Registered] = {}
    for one in await list_registered(server, headers, url, secret):
        there.setdefault(one.event, one)
    done = []
    for event in NODE_EVENTS:
        known = there.get(event)
        if known is None or not known.is_right:
            at = WEBHOOKS if known is None else f"{WEBHOOKS}/{known.number}"
            await _ask(server, "POST", at, headers, registration(url, event, secret))
        done.append(Done(event, CREATED if known is None else UNCHANGED if known.is_right else UPDATED))
    return done


async def remove(server: Server, headers: Mapping[str, str], url: str, secret: Secret) -> list[Done]:
    """Takes all registrations for this address away, also such as we would not make today."""
    done = []
    for one in await list_registered(server, headers, url, secret):
        await _ask(server, "DELETE", f"{WEBHOOKS}/{one.number}", headers)
        done.append(Done(one.event, REMOVED))
    return done


async def list_registered(server: Server, headers: Mapping[str, str], url: str, secret: Secret) -> Sequence[Registered]:
    return parse_registered(await _ask(server, "GET", f"{WEBHOOKS}?uri={quote(url, safe='')}", headers), url, secret)


def registration(url: str, event: str, secret: Secret) -> dict[str, object]:
    """What is asked for."""
    return {
        "httpMethod": "POST",
        "uri": url,
        "event": event,
        "eventFilter": {},
        "userIdFilter": "",
        "headers": {MARK: _mark(secret)},
        "authMethod": "header",
        "authData": {"Authorization": f"Bearer {secret.reveal()}"},
    }


def parse_registered(data: bytes, url: str, secret: Secret) -> list[Registered]:
    """The registrations for our address, in OCS's answer."""
    try:
        rows = json.loads(data)["ocs"]["data"]
        ours = [row for row in rows if row["uri"] == url]
        return [Registered(_number(row["id"]), str(row["event"]), _is_right(row, secret)) for row in ours]
    except (ValueError, TypeError, KeyError, RecursionError, Malformed):
        raise PeerFailed("nextcloud: the list of webhooks is not as OCS says") from None


def _is_right(row: Mapping[str, object], secret: Secret) -> bool:
    as_asked = registration("", "", secret)
    same = all(row.get(name) == as_asked[name] for name in ("httpMethod", "headers", "authMethod"))
    return same and not row.get("eventFilter") and not row.get("userIdFilter")


def _mark(secret: Secret) -> str:
    return sha256(b"nextcloud-audit hook " + secret.reveal().encode("ascii")).hexdigest()[:MARK_SIZE]


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise Malformed("want a number", "id")
    return value


async def _ask(
    server: Server, method: str, path: str, headers: Mapping[str, str], body: dict[str, object] | None = None
) -> bytes:
    sent = {**headers, "OCS-APIRequest": "true", "Accept": "application/json", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode("ascii")
    async with server.ask(method, path, sent, "webhooks", content) as response:
        if response is None:
            raise Refused(NO_APP)
        return await read_answer(response, MAX_ANSWER, "nextcloud: the list of webhooks")
