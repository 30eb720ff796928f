"""The parser against what real Nextclouds said: ../shared/recordings, where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from audit.nextcloud.dav import (
    Multistatus,
    Response,
    parse_instance_id,
    parse_nodes,
    parse_trash,
    parse_versions,
)
from verifier.errors import Malformed

CUT_AT = 20_000  # the recorder kept no more of a body


class Recording(NamedTuple):
    name: str
    path: tuple[str, ...]
    body: bytes


@pytest.fixture
def recordings(shared_dir: Path) -> dict[str, list[Recording]]:
    """Every recorded multistatus by what it lists: files, versions, trashbin."""
    found: dict[str, list[Recording]] = {"files": [], "versions": [], "trashbin": []}
    for recording in read_all(shared_dir / "recordings"):
        found[recording.path[2]].append(recording)
    return found


def read_all(directory: Path) -> Iterator[Recording]:
    for file in sorted(directory.glob("nc*/*.txt")):
        request, status, answer = file.read_bytes().partition(b"\nHTTP/1.1 207")
        if status and request.startswith(b"PROPFIND"):
            path = request.split(b" ")[1].decode("ascii").strip("/").split("/")
            yield Recording(f"{file.parent.name}/{file.name}", tuple(path), answer.split(b"\n\n", 1)[1].strip())


def parse(recording: Recording) -> list[Response]:
    listing = Multistatus(recording.name)
    for start in range(0, len(recording.body), 1_000):
        listing.feed(recording.body[start : start + 1_000])
    return listing.close()


def test_files_as_recorded(recordings: dict[str, list[Recording]]) -> None:
    """Each listed file has an id, an etag and a time, and a whole answer is read."""
    whole = [recording for recording in recordings["files"] if len(recording.body) < CUT_AT]
    assert len(whole) > 30
    for recording in whole:
        nodes = parse_nodes(parse(recording), recording.path[:4])
        assert nodes[0].path == "/".join(recording.path[4:]), recording.name
        assert all(node.file_id and node.etag and node.mtime for node in nodes), recording.name


def test_recordings_that_were_cut_are_refused(recordings: dict[str, list[Recording]]) -> None:
    """An answer that ends early is Malformed, never a shorter listing."""
    cut = [recording for recording in recordings["files"] if len(recording.body) >= CUT_AT]
    assert cut
    for recording in cut:
        with pytest.raises(Malformed, match="no XML"):
            parse(recording)


def test_instance_ids_as_recorded(recordings: dict[str, list[Recording]]) -> None:
    """One server has one instance id."""
    single = [recording for recording in recordings["files"] if recording.body.count(b"<d:response>") == 1]
    ids = {(recording.name[:4], parse_instance_id(parse(recording))) for recording in single}
    assert len(ids) == 2
    assert all(re.fullmatch("oc[0-9a-z]{10}", instance) for _, instance in ids)


def test_versions_as_recorded(recordings: dict[str, list[Recording]]) -> None:
    """Oldest first whatever the order sent, ids are times, and a restored version leaves the ids as they were."""
    for recording in recordings["versions"]:
        found = parse_versions(parse(recording), recording.path[:6])
        assert [version.mtime for version in found] == sorted(version.mtime for version in found), recording.name
        assert all(version.version_id == str(version.mtime) for version in found), recording.name
    for server in ("nc27", "nc32"):
        ids = {
            number: [version.version_id for version in parse_versions(parse(recording), recording.path[:6])]
            for recording in recordings["versions"]
            if recording.name.startswith(server) and (number := recording.name[5:8]) in ("054", "057", "059")
        }
        assert ids["054"] == ids["057"] == ids["059"][:-1]


def test_trash_as_recorded(recordings: dict[str, list[Recording]]) -> None:
    """A deleted file says where it was and when it went."""
    assert len(recordings["trashbin"]) == 2
    for recording in recordings["trashbin"]:
        (item,) = parse_trash(parse(recording), recording.path[:5])
        assert (item.path, item.size) == ("Folder2/doc.txt", 21)
        assert item.name == f"doc.txt.d{item.deleted_at}"
