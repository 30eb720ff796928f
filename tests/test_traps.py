"""tests/README.md names a test for each trap: all of them exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def named_in(name: str) -> frozenset[str]:
    """The test functions of a file, those in classes included."""
    path = FOLDER / name
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test"))


def test_traps_name_tests_that_exist() -> None:
    """Every `file::test` of the list is a test in this folder, and every row of a table names one."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) > 50
    assert [f"{file}::{test}" for file, test in named if test not in named_in(file)] == []
    rows = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("|---", "| trap "))]
    assert [row for row in rows if not NAMED.search(row)] == []
