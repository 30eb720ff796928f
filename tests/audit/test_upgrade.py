"""Upgrading a store: what an older program made goes on, or is refused with what to do."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from audit.cli import main
from audit.errors import Refused
from audit.fsck import Keys, check_log
from audit.schema import SCHEMA_VERSION
from audit.store import FILE_NAME, open_store
from audit.upgrade import upgrade_store
from tests.audit.log_setup import LogSetup
from verifier.entry import Operation

VERSION_1 = Path(__file__).with_name("log_v1.sql")


def make_old(directory: Path) -> None:
    """The log that version 1 of the schema made: two files, an enrolment, two published trees, a token."""
    directory.mkdir(mode=0o700)
    conn = sqlite3.connect(directory / FILE_NAME)
    conn.executescript(VERSION_1.read_text())
    conn.close()


def shape(path: str | os.PathLike[str]) -> dict[str, list[tuple[object, ...]]]:
    """Columns and indexes of every table, in order."""
    conn = sqlite3.connect(path)
    names = [row[0] for row in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    found = {name: conn.execute(f"SELECT name, type, pk FROM pragma_table_info('{name}')").fetchall() for name in names}
    found["indexes"] = conn.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' ORDER BY name").fetchall()
    conn.close()
    return found


def test_old_store_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    """Nothing is upgraded on the way: opening says that there is a command."""
    make_old(tmp_path / "log")
    with pytest.raises(Refused, match="got schema version 1, want 3: .*nextcloud-audit upgrade"):
        open_store(os.fspath(tmp_path / "log"))


def test_upgraded_store_is_as_a_new_one_and_goes_on(tmp_path: Path) -> None:
    """After the upgrade tables are those of a new log, all that was logged verifies, and recording goes on."""
    new = LogSetup(tmp_path / "new", nodes=1, threshold=1)
    make_old(tmp_path / "log")
    new.close()
    new.directory = os.fspath(tmp_path / "log")
    assert upgrade_store(new.directory) == [1, SCHEMA_VERSION]
    assert shape(tmp_path / "log" / FILE_NAME) == shape(tmp_path / "new" / FILE_NAME)
    assert upgrade_store(new.directory) == [SCHEMA_VERSION]
    new.open()
    new.source = 1
    keys = Keys(new.signer.verifier_key, new.witness_policy, new.auditor_policy)
    assert check_log(new.store, keys).findings == []
    new.see(Operation.RESTORED, 2, path="b.txt")
    new.see(Operation.WRITTEN, 1, b"four")
    new.publish()
    assert check_log(new.store, keys).findings == []
    new.close()


def test_upgrade_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction: an error on the way leaves the version that was there."""
    make_old(tmp_path / "log")
    before = shape(tmp_path / "log" / FILE_NAME)
    monkeypatch.setattr("audit.upgrade._make_the_rest", fail)
    with pytest.raises(ZeroDivisionError):
        upgrade_store(os.fspath(tmp_path / "log"))
    assert shape(tmp_path / "log" / FILE_NAME) == before


def fail(_: object) -> None:
    raise ZeroDivisionError


def test_upgrade_of_what_is_newer_or_missing_is_refused(tmp_path: Path) -> None:
    """A version that this program does not know is left alone."""
    make_old(tmp_path / "log")
    conn = sqlite3.connect(tmp_path / "log" / FILE_NAME)
    with conn:
        conn.execute("UPDATE meta SET value = x'39' WHERE key = 'schema_version'")
    conn.close()
    with pytest.raises(Refused, match="version 9"):
        upgrade_store(os.fspath(tmp_path / "log"))
    with pytest.raises(Refused, match="there is none"):
        upgrade_store(os.fspath(tmp_path))


def test_upgrade_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what it did, as data too."""
    make_old(tmp_path / "log")
    assert main(["upgrade", "--data", os.fspath(tmp_path / "log"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == ["1", "3"]
    assert main(["upgrade", "--data", os.fspath(tmp_path / "log")]) == 0
    assert "nothing to do" in capsys.readouterr().out
