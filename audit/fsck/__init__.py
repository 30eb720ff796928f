"""Verifies a whole log again, from what is stored: `nextcloud-audit fsck --data DIR`. Tests use the same code.

    report = check_log(store, keys, progress)
    report.findings        [Finding("tile", "tile 0/3", "not what its leaves lead to"), ...]; nothing where all is well

Nothing is taken on trust that can be computed:

    file        SQLite's own check of its pages, types of all values, references between rows
    owner       roots against their keys
    chain       every chain replayed from its entries and openings by the verifier's own rules; stored heads; the row
                that repeats where the chain stands; chain id, generation, predecessor; seals against the signed trees;
                what an `erased` entry names is gone, and nothing else is
    folder      what the next scan compares with, against the chains, in both directions; of a Nextcloud alike
    pending     each entry and owner that is not in the tree waits exactly once, in the order of its chain
    log         each leaf against its entry or owner, tiles with their inner nodes, roots and map commitments of every
                signed tree, the map replayed from the leaves, the log's signature and the cosignatures in every note
    map         every retained version read from disk, page by page, against the root that was signed

Signed trees are all compared with the same leaves, so they are consistent with each other. All reads see one
committed state, so a log may be checked while it runs. Memory stays flat: rows come in the order in which they are
needed, sorted by SQLite on disk; one chain, one bundle and the replayed map's cache are all that is held.

Not checked: whether a quorum was met in the past, since policies change; files on disk (a scan does that); and whether
the log was rolled back as a whole, which only its witnesses know.
"""

from __future__ import annotations

import sqlite3
import sys

from audit.directory import open_log
from audit.fsck.chains import check_chains, check_owners
from audit.fsck.findings import Check, Keys, Progress, Report, Unreadable
from audit.fsck.findings import Finding as Finding
from audit.fsck.leaves import check_leaves, check_maps
from audit.fsck.rows import check_file, check_folders, check_pending
from audit.store import Store
from verifier.outcome import format_json

_STAGES = (check_file, check_owners, check_chains, check_folders, check_pending, check_leaves, check_maps)


def check_log(store: Store, keys: Keys, progress: Progress = lambda what, done, total: None) -> Report:
    """Everything that does not hold in this log."""
    with store.snapshot() as conn:
        check = Check(store, keys, progress, conn)
        try:
            for stage in _STAGES:
                stage(check)
        except Unreadable:
            pass
        except sqlite3.DatabaseError as error:
            check.find("file", "log.db", f"cannot be read any further: {error}")
        return Report(check.findings, check.total, check.counts)


def main(directory: str, as_json: bool = False) -> int:
    """`nextcloud-audit fsck`: 0 where all is well, 1 with findings. What can't be opened at all raises."""
    log = open_log(directory)
    try:
        report = check_log(log.store, Keys(log.signer.verifier_key, log.witnesses, log.auditors), _show_progress)
    finally:
        log.store.close()
    if as_json:
        counts = {what: str(count) for what, count in report.counts.items()}
        findings = [finding._asdict() for finding in report.findings]
        print(format_json({"findings": findings, "total": str(report.total), "checked": counts}))
    else:
        for finding in report.findings:
            print(finding)
        if report.total > len(report.findings):
            print(f"and {report.total - len(report.findings)} more")
        checked = ", ".join(f"{count} {what}" for what, count in report.counts.items())
        print(f"{directory}: {report.total or 'no'} finding{'s' * (report.total != 1)} ({checked})")
    return 1 if report.total else 0


def _show_progress(what: str, done: int, total: int) -> None:
    """A line that is written over, where somebody looks at it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}: {done} of {total}", end="" if done < total else "\r\x1b[K", file=sys.stderr, flush=True)
