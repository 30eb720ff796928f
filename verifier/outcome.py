"""Exit codes, and errors as words or data. One table, so that no command has its own idea of them (SPEC 9).

    0 VERIFIED   1 CHANGED   2 NOT PROVEN   3 FORK   4 malformed input or usage   70 a fault of the program itself
    130 interrupted   141 whoever read the output went away

Of many, the worst: FORK, CHANGED, 70, 4, NOT PROVEN, VERIFIED.
"""

from __future__ import annotations

import json

from verifier.errors import Changed, Error, Fork, Malformed, NotProven
from verifier.verdict import Verdict
from verifier.words import escape

VERIFIED, CHANGED, NOT_PROVEN, FORK, USAGE, FAULT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 70, 130, 141
EXIT = {Verdict.VERIFIED: VERIFIED, Verdict.CHANGED: CHANGED, Verdict.NOT_PROVEN: NOT_PROVEN, Verdict.FORK: FORK}
_VERDICTS = {code: verdict for verdict, code in EXIT.items() if code != VERIFIED}  # those that an error can stand for
_BY_SEVERITY = (FORK, CHANGED, FAULT, USAGE, NOT_PROVEN, VERIFIED)
FAULT_MESSAGE = "fault of the program itself: this says nothing about the file"


def worst(codes: list[int]) -> int:
    """The exit code of a run over several files."""
    return next((code for code in _BY_SEVERITY if code in codes), VERIFIED)


def error_code(error: Exception) -> int:
    """The exit code that an error stands for."""
    if isinstance(error, Fork):
        return FORK
    if isinstance(error, Changed):
        return CHANGED
    if isinstance(error, NotProven):
        return NOT_PROVEN
    return USAGE if isinstance(error, Error) else FAULT


def error_reason(error: Exception) -> str:
    """A stable word for an error."""
    if isinstance(error, NotProven | Changed):
        return error.reason
    if isinstance(error, Fork):
        return "fork"
    if isinstance(error, Malformed):
        return "malformed"
    return "usage" if isinstance(error, Error) else "fault"


def format_error(error: Exception, name: str | None = None) -> str:
    """An error for people, in one line."""
    message = escape(str(error)) if isinstance(error, Error) else f"{FAULT_MESSAGE} ({escape(repr(error))})"
    subject = "" if name is None else f"{escape(name)}: "
    word = _VERDICTS.get(error_code(error))
    return f"{subject}{f'{word.value}: ' if word else ''}{message}"


def error_data(error: Exception, name: str | None = None) -> dict[str, object]:
    """An error as JSON data."""
    word = _VERDICTS.get(error_code(error))
    message = str(error) if isinstance(error, Error) else FAULT_MESSAGE
    return {
        "verdict": word.value if word else None,
        "exit": error_code(error),
        "name": name,
        "error": {"reason": error_reason(error), "message": message},
    }


def format_json(data: object) -> str:
    """One line of JSON. ASCII alone, so that nothing in it can steer a terminal."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"))
