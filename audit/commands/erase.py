"""`nextcloud-audit erase`: takes what is stored of one step out of a log, and logs that it did."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from audit.chains import Current, find_at_path, find_current, read_lines
from audit.commands import common
from audit.directory import locked, open_log
from audit.enrolment import find_source, list_sources
from audit.errors import Refused
from audit.recorder import Recorder
from audit.store import Store
from verifier.commands.inspect import step_text
from verifier.encoding import decode_decimal
from verifier.entry import Part
from verifier.errors import Usage
from verifier.words import escape

DESCRIPTION = "Erase the content's digest, the path or the context of one step. Stop `serve` for it."
EXAMPLES = """examples:
  nextcloud-audit erase --data /var/lib/nextcloud-audit "letters/to the doctor.txt"      lists its steps
  nextcloud-audit erase --data ... "letters/to the doctor.txt" --step 2 --part path
  nextcloud-audit erase --data ... --file 17 --step 2 --part content --part context

An entry holds salted hashes; what they stand for (size and digest, path, who did it) is stored beside it, and this
is what is erased: the chain still verifies, and `erased` is logged for everybody to see. What rested on it can no
longer be checked. The content of the current version can't be erased, nor that of what a cleared alteration rests on.
Backups, and proofs that somebody has, keep what they hold. The file itself is not touched."""

_PARTS = {part.word: part for part in Part}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="?", help="the file, by its path in the source")
    common.add_data(parser, "the log's directory")
    parser.add_argument("--file", metavar="ID", help="the file, by its id in the source")
    parser.add_argument("--source", metavar="ID", help="the source (default: the only one)")
    parser.add_argument("--step", metavar="N", help="the step (default: all are listed, none is changed)")
    parser.add_argument("--part", action="append", choices=_PARTS, help="what of it; may be given several times")
    common.add_json(parser)


def run(args: Namespace) -> int:
    if (args.path is None) == (args.file is None):
        raise Usage("say which file: its PATH, or its id with --file")
    if (args.step is None) != (args.part is None):
        raise Usage("say what is erased: --step N and --part, together; without them the steps are listed")
    with locked(args.data):
        log = open_log(args.data)
        try:
            current = _find(log.store, args)
            recorder = Recorder(log.store, time.time)
            erased = [
                recorder.erase(current.source, current.file_id, decode_decimal(args.step, "step"), _PARTS[word]).seq
                for word in args.part or ()
            ]
            with log.store.snapshot() as conn:
                lines = read_lines(conn, current.id)
        finally:
            log.store.close()
    steps = [step_text(seq, line) for seq, line in enumerate(lines)]
    data = {"file": str(current.file_id), "erased": [str(seq) for seq in erased], "steps": steps}
    common.emit(args, data, "\n".join([_title(current, erased), *steps]))
    return 0


def _find(store: Store, args: Namespace) -> Current:
    conn = store.reader()
    ids = list_sources(conn)
    name = args.source or (ids[0] if len(ids) == 1 else None)
    source = None if name is None else find_source(conn, name)
    if source is None:
        raise Usage(f"source: want --source with one of {', '.join(ids) or '(the log has none)'}")
    if args.file is not None:
        current = find_current(conn, source, decode_decimal(args.file, "file"))
    else:
        current = find_at_path(conn, source, args.path)
    if current is None:
        raise Refused(f"{escape(args.path or args.file)}: no such file in {name}")
    return current


def _title(current: Current, erased: list[int]) -> str:
    what = f"file {current.file_id}, generation {current.generation}"
    if not erased:
        return f"{what}: nothing was erased"
    return f"{what}: erased, as step {', '.join(map(str, erased))} says; published when `serve` runs"
