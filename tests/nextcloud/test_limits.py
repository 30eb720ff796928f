"""How fast a Nextcloud is read: one spelling for each limit, options over the file, and what they come to."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path

import pytest

from audit.commands import common
from audit.commands.coverage import budget_text, coverage_data, coverage_text
from audit.nextcloud.client import parse_config, read_limits
from audit.nextcloud.coverage import measure
from audit.nextcloud.known import Reads, put_reads
from audit.nextcloud.limits import NO_LIMITS, Budget, Limits, Rate, format_rate, parse_limits
from audit.sources import list_sources, with_limits
from tests.audit.log_setup import LogSetup
from verifier.errors import Error, Malformed

CLOUD = {"url": "https://c.example", "accounts": [{"user": "a", "password": "b"}]}


def test_limits_are_read() -> None:
    """What is given holds, what is not is as it was."""
    given = {"files": "50", "rate": "1.5MB", "again_days": "7", "again_hours": "0.5", "again_rate": "20kB/s"}
    given |= {"share": "40%"}
    assert parse_limits(given) == Limits(Rate(50, 1.5e6), Budget(7, 0.5, 20e3), 0.4)
    assert [parse_limits({"share": value}).share for value in ("1%", "100%")] == [0.01, 1.0]
    assert parse_limits({}) == NO_LIMITS
    assert parse_limits({"rate": "2GB"}, Limits(Rate(3, 4), share=0.5)) == Limits(Rate(3, 2e9), share=0.5)


@pytest.mark.parametrize(
    "given",
    [
        {"rate": "10"},
        {"rate": "0MB"},
        {"rate": "-1MB"},
        {"rate": "10mb"},
        {"rate": "1e3MB"},
        {"rate": "010MB"},
        {"rate": "10MB/h"},
        {"share": "25"},
        {"share": "0%"},
        {"share": "101%"},
        {"share": "025%"},
        {"share": "2.5%"},
        {"share": "25 %"},
        {"share": "0.25"},
        {"share": "25%\n"},
        {"files": "0"},
        {"files": "many"},
        {"again_days": "0"},
        {"again_days": "1.5"},
        {"again_days": "\u0661"},
        {"again_hours": "25"},
        {"again_hours": ""},
        {"again": "1"},
    ],
)
def test_limits_in_another_spelling_are_refused(given: dict[str, str]) -> None:
    """A limit that is not understood is no limit at all: it is said."""
    with pytest.raises(Error, match=next(iter(given))):
        parse_limits(given)


def test_limits_stand_in_the_configuration() -> None:
    """Beside accounts; strings alone."""
    assert parse_config(json.dumps(CLOUD | {"limits": {"files": "5"}}).encode()).limits == Limits(Rate(5))
    for bad in ({"files": 5}, [], {"x": "1"}, "5"):
        with pytest.raises(Malformed):
            parse_config(json.dumps(CLOUD | {"limits": bad}).encode())


def test_options_hold_over_the_file(tmp_path: Path) -> None:
    """Of a command that was given some; a folder has none."""
    log = LogSetup(tmp_path / "log")
    row = log.store.add_source("nextcloud:https://c.example", "nextcloud:oc1")
    (tmp_path / "log/nextcloud.json").write_text(json.dumps(CLOUD | {"limits": {"files": "5", "again_days": "9"}}))
    os.chmod(tmp_path / "log/nextcloud.json", 0o600)
    parser = ArgumentParser()
    common.add_limits(parser)
    given = common.limits_of(parser.parse_args(["--rate", "10MB", "--again-days", "3"]))
    (source,) = (one for one in list_sources(log.store, str(tmp_path / "log")) if one.row == row)
    assert source.limits == read_limits(str(tmp_path / "log")) == Limits(Rate(5), Budget(9))  # type: ignore[attr-defined]
    assert with_limits(source, given).limits == Limits(Rate(5, 10e6), Budget(3))  # type: ignore[attr-defined]
    assert with_limits(source, {}) is source
    log.close()


def test_coverage_says_what_the_budget_comes_to(tmp_path: Path) -> None:
    """How stored bytes are read again, how much of it was today, and that it is too little where it is."""
    log = LogSetup(tmp_path / "log")
    row = log.store.add_source("nextcloud:https://c.example", "nextcloud:oc1")
    with log.store.transaction() as conn:
        put_reads(conn, row, 10, Reads(3, 2_500_000, 1_800_000))
        values = (row, 5, "a", "a", "", "f", "e", 1, 400 * 10**9, 0, bytes(32), 0, 0)
        conn.execute(f"INSERT INTO nextcloud_known VALUES ({','.join('?' * 13)})", values)
    report = measure(log.store.reader(), row, "nextcloud:oc1", 10 * 86_400, 30, Budget(2, 1, 20e6))
    text = coverage_text(report)
    assert (
        "everything within 2 days, 1 h a day at most, 20 MB/s: TOO LITTLE, 1 files with 400.0 GB take 6 days so" in text
    )
    assert "3 files with 2.5 MB read again in 0.50 h" in text
    data = coverage_data(report)
    assert (data["budget"], data["needs_days"]) == ({"days": "2", "hours": "1", "bytes_per_s": "20000000.0"}, "5.6")
    assert "TOO LITTLE" not in budget_text(report._replace(budget=Budget(6, 1, 20e6)))
    assert "TOO LITTLE" not in budget_text(report._replace(budget=Budget(6, 1, 0)))
    slow = report._replace(files=100_000, today=Reads(100, 1, 60_000), budget=Budget(10, 1, 0))
    assert "TOO LITTLE, 100,000 files with 400.0 GB take 17 days so" in budget_text(slow)
    assert "TOO LITTLE" not in budget_text(slow._replace(budget=Budget(17, 1, 0)))
    assert "TOO LITTLE" not in budget_text(slow._replace(today=Reads(3, 1, 60_000)))
    assert "never" in budget_text(report._replace(budget=Budget(6, 0, 20e6)))
    log.close()


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "as fast as it goes"), (999, "999 B/s"), (1_500, "1.5 kB/s"), (2e9, "2 GB/s")]
)
def test_rates_are_said_in_words(rate: float, text: str) -> None:
    """In the unit that fits."""
    assert format_rate(rate) == text
