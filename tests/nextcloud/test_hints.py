"""Events of every kind become hints; what is no event is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.nextcloud.hints import MAX_EVENT, NODE_EVENTS, Hint, parse_audit_line, parse_listener, parse_webhook
from verifier.errors import Malformed

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"


def webhook(kind: str, **places: object) -> bytes:
    event = {**places, "class": f"OCP\\Files\\Events\\Node\\{kind}"}
    return json.dumps({"event": event, "user": None, "time": 1}).encode()


def audit(message: str, **other: object) -> bytes:
    return json.dumps({"app": "admin_audit", "user": "alice", "message": message, **other}).encode()


def node(path: str, number: int | None = None) -> dict[str, object]:
    return {"path": path} if number is None else {"id": number, "path": path}


def test_hint_of_a_webhook_is_file_and_view() -> None:
    """The path is the actor's own; whose it is stands in it, and is not taken from `user`, which a link lacks."""
    assert parse_webhook(webhook("NodeWrittenEvent", node=node("/alice/files/a/b.txt", 80))) == [
        Hint(80, "alice", "a/b.txt")
    ]


def test_hint_of_a_webhook_without_file_id_is_a_place() -> None:
    """`NodeDeleted` has no id: the place is looked at, and both ends of a rename are."""
    assert parse_webhook(webhook("NodeDeletedEvent", node=node("/alice/files/a.txt"))) == [Hint(None, "alice", "a.txt")]
    renamed = webhook("NodeRenamedEvent", source=node("/alice/files/a.txt"), target=node("/alice/files/b.txt", 80))
    assert parse_webhook(renamed) == [Hint(None, "alice", "a.txt"), Hint(80, "alice", "b.txt")]


def test_hint_of_a_restore_leaves_out_the_trash() -> None:
    """A place in the trash is none to look at; the file itself is."""
    event = {"source": node("/alice/files_trashbin/files/a.d1"), "target": node("/alice/files/a", 80)}
    body = {"event": {**event, "class": "OCA\\Files_Trashbin\\Events\\NodeRestoredEvent"}, "user": None, "time": 1}
    assert parse_webhook(json.dumps(body).encode()) == [Hint(80, "alice", "a")]


def test_hint_of_other_events_is_none() -> None:
    """Subscribed by somebody else, or new in a later Nextcloud: nothing to do, and no error."""
    assert parse_webhook(webhook("BeforeNodeReadEvent", node=node("/alice/files/a.txt", 80))) == []
    assert parse_listener(b'{"event_type":"talk_event","event_data":{}}') == []
    assert parse_audit_line(b'{"app":"core","message":"x"}') == []


@pytest.mark.parametrize(
    ("message", "hints"),
    [
        ('File with id "5" created: "/bob/files/a.txt"', [Hint(5, "bob", "a.txt")]),
        ('File with id "5" written to: "/bob/files/a\nb"', [Hint(5, "bob", "a\nb")]),
        ('File renamed with id "5" from "/bob/files/a" to "/bob/files/b"', [Hint(5, "alice", None)]),
        ('File id copied from: "5" to "6", path from "/a/files/x" to "/a/files/y"', [Hint(6, "alice", None)]),
        ('Version "17" of "/d/a.txt" was restored.', [Hint(None, "alice", "d/a.txt")]),
        ('Version "/d/a.txt1795374393" was deleted.', [Hint(None, "alice", "d")]),
        ('Version "/a2024.1795374393" was deleted.', [Hint(None, "alice", "")]),
        ('File "/a.txt" restored from trash bin.', [Hint(None, "alice", "a.txt")]),
        ('File "/files_trashbin/files//a.txt.d1" deleted from trash bin.', []),
        ('File with id "5" accessed: "/bob/files/a.txt"', []),
        ('Login attempt: "File with id "5" created: "/bob/files/x""', []),
    ],
)
def test_hint_of_an_audit_line(message: str, hints: list[Hint]) -> None:
    """Each message of admin_audit that concerns a file, with names that try to look like another message."""
    assert parse_audit_line(audit(message)) == hints


BAD_NODES = (
    node("/alice/files/a", 0),
    node("/alice/files/a", -1),
    node("/alice/files/a", 2**64),
    {"id": "80", "path": "/alice/files/a"},
    {"id": True, "path": "/alice/files/a"},
    {"id": 80},
    {"id": 80, "path": 7},
    node(f"/alice/files/{'x' * 5_000}", 80),
    node(f"/{'u' * 70}/files/a", 80),
    node("/alice/files/\ud800", 80),
    [],
)


@pytest.mark.parametrize("bad", BAD_NODES)
def test_hint_refuses_what_is_no_node(bad: object) -> None:
    """Wrong types, numbers out of bounds, names beyond Nextcloud's own bounds."""
    with pytest.raises(Malformed):
        parse_webhook(webhook("NodeWrittenEvent", node=bad))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"event":7}', b"{" * 100_000, b'{"event":{}}' + b" " * MAX_EVENT, b"\xff"]
)
def test_hint_refuses_what_is_no_event(body: bytes) -> None:
    """Cut short, too long, nested without end, not JSON."""
    with pytest.raises(Malformed):
        parse_webhook(body)
    if body != b'{"event":7}' and body != b"{}":  # an object that is another event gives no hint there
        with pytest.raises(Malformed):
            parse_listener(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)


@given(json_values, st.sampled_from(NODE_EVENTS))
def test_hint_never_fails_otherwise(value: object, kind: str) -> None:
    """Whatever a body holds, the answer is hints or Malformed."""
    for body in (
        json.dumps(value),
        json.dumps({"event": {"class": kind, "node": value}}),
        json.dumps({"app": "admin_audit", "message": value}),
    ):
        for parse in (parse_webhook, parse_listener, parse_audit_line):
            try:
                parse(body.encode())
            except Malformed:
                pass


def test_hints_of_a_real_nextcloud() -> None:
    """Everything that Nextcloud 32 and 27 sent is understood, and each file that was written is hinted at."""
    if not RECORDINGS.is_dir():
        pytest.skip("no recordings of a real Nextcloud beside the project")
    sent = [json.loads(line) for line in (RECORDINGS / "webhook-deliveries-nc32.jsonl").read_text().splitlines()]
    hinted = [hint for one in sent for hint in parse_webhook(one["b"].encode())]
    assert Hint(80, "alice", "EvDir/ev2.txt") in hinted
    assert all(
        parse_webhook(one["b"].encode()) for one in sent if "NodeWritten" in one["b"] and "Before" not in one["b"]
    )
    pushed = [json.loads(line) for line in (RECORDINGS / "exapp-events_listener-nc27.jsonl").read_text().splitlines()]
    assert Hint(60, "alice", "e2.txt") in [
        h for one in pushed if one["p"] == "/nodes" for h in parse_listener(one["b"].encode())
    ]
    lines = (RECORDINGS / "admin_audit-sample-nc32.jsonl").read_bytes().splitlines()
    logged = [hint for line in lines for hint in parse_audit_line(line)]
    assert Hint(5342, "alice", "aud.txt") in logged
    assert Hint(None, "alice", "aud2.txt") in logged
