"""The arrow: `audit` imports `verifier`, never back, and verifying loads nothing heavy.

verifier   standard library (nothing POSIX-only), `cryptography`, `verifier`; `Crypto` and `mnemonic` inside a function
audit      all of that, `audit`, and the libraries of the extra `server`

`audit/__init__.py` and `audit/__main__.py` are read by the base install and keep to the verifier's rule at module
level. Imports are read off the syntax tree, so one inside a function or under TYPE_CHECKING counts as well; what is
really loaded is asked of a fresh interpreter.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

POSIX_ONLY = frozenset(
    "crypt curses fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty".split()
)
STDLIB = sys.stdlib_module_names - POSIX_ONLY
LAZY = frozenset({"Crypto", "mnemonic"})
BASE = STDLIB | {"cryptography", "verifier"}
SERVER = frozenset(
    "anyio defusedxml fastapi httptools httpx pydantic sqlalchemy sqlmodel starlette uvicorn uvloop".split()
)
HEAVY = frozenset("Crypto asyncio fastapi httpx mnemonic pydantic sqlalchemy sqlmodel".split())
# What verifying has no use for and a process pays for: a millisecond each, or their makers' dozens of modules.
SLOW = frozenset("dataclasses datetime email getpass http inspect locale logging pathlib shutil socket ssl".split())
SLOW |= frozenset("string subprocess tempfile threading traceback unittest urllib uuid zipfile".split())
# Each module costs a process 0.15 ms. `evidence` waits for a fork, `request` and `client` for a server.
VERIFYING = frozenset(
    "canonical chain checkpoint cli commands digest ed25519 encoding entry errors files home keys leaf map merkle note "
    "outcome policy proof record report state verdict verify words".split()
)

# Written in pieces, so that this file does not hold what it looks for.
REGISTRIES = ["py" + "pi.org", "python" + "hosted.org", "registry.np" + "mjs", "deb.deb" + "ian.org", "crates" + ".io"]
MACHINE_ROOTS = ["work", "root", "farm", "home/run" + "ner", "opt/wh" + "eels"]
FOREIGN = re.compile(
    "|".join([re.escape(host) for host in REGISTRIES] + [rf"(?<![\w.~-])/{place}/" for place in MACHINE_ROOTS]).encode()
)
NOT_OURS = frozenset({".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "dist", "build"})


class Import(NamedTuple):
    """One imported module by its first word, and whether it waits until a function runs."""

    top: str
    lazy: bool
    line: int


def imports(source: str) -> Iterator[Import]:
    """Every import of a module. Relative ones appear as `.`, dynamic ones as the call that makes them."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                yield from (Import(name.name.partition(".")[0], lazy, node.lineno) for name in names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield Import(module.partition(".")[0], lazy, node.lineno)
            case ast.ImportFrom():
                yield Import(".", lazy, node.lineno)
            case ast.Name(id="__import__") | ast.Attribute(attr="import_module"):
                yield Import("__import__", lazy, node.lineno)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return walk(ast.parse(source), False)


def violations(source: str, always: frozenset[str], lazily: frozenset[str]) -> list[str]:
    """The imports that a module may not have; `lazily` are allowed inside a function only."""
    return [
        f"line {found.line}: {found.top}"
        for found in imports(source)
        if found.top not in (always | lazily if found.lazy else always)
    ]


def allowed(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """What a module of the project may import at once, and what inside a function only."""
    if path.is_relative_to(ROOT / "verifier"):
        return BASE, LAZY
    full = BASE | POSIX_ONLY | SERVER | {"audit"}
    if path.relative_to(ROOT / "audit").as_posix() in ("__init__.py", "__main__.py"):
        return BASE, full | LAZY
    return full, LAZY


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no modules in {package}"
    return found


@pytest.mark.parametrize("package", ["verifier", "audit"])
def test_imports_follow_the_arrow(package: str) -> None:
    """Each module imports only what its side of the arrow may know."""
    wrong = {
        path.relative_to(ROOT).as_posix(): bad
        for path in modules(package)
        if (bad := violations(path.read_text(encoding="utf-8"), *allowed(path)))
    }
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "import audit",
        "from audit.log import x",
        "import os, fcntl",
        "import httpx",
        "def f():\n    import fastapi",
        "def f():\n    import pwd",
        "from Crypto.Hash import KMAC256",
        "if TYPE_CHECKING:\n    import mnemonic",
        "class C:\n    import Crypto",
        "from . import merkle",
        "from .. import audit",
        "import importlib\nimportlib.import_module('audit')",
        "def f():\n    return __import__('audit')",
        "def f(x=1, *, y=(lambda: __import__('audit'))): ...",
    ],
)
def test_imports_of_the_verifier_are_refused(line: str) -> None:
    """The check sees every way in which the verifier could break the arrow."""
    assert violations(line, BASE, LAZY)


@pytest.mark.parametrize(
    "line", ["import hashlib", "from verifier.errors import Error", "def f():\n    from Crypto.Hash import KMAC256"]
)
def test_imports_of_the_verifier_are_allowed(line: str) -> None:
    """The check lets through what the verifier needs."""
    assert not violations(line, BASE, LAZY)


def loaded_by(module: str) -> set[str]:
    """The modules that a fresh interpreter holds after `import module`; fails where the import does."""
    return loaded_after(f"import {module}")


def loaded_after(statements: str) -> set[str]:
    """The modules that a fresh interpreter holds after these statements; fails where they do."""
    program = f"{statements}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


def test_import_of_the_command_line_loads_nothing_heavy() -> None:
    """Verifying starts without the service's libraries, key derivation or an event loop."""
    if (ROOT / "verifier" / "cli.py").exists():
        assert not loaded_by("verifier.cli") & HEAVY


def test_import_of_the_entry_point_loads_nothing_of_the_service() -> None:
    """The entry point itself brings in neither a library of the service nor another module of `audit`."""
    if (ROOT / "audit" / "__main__.py").exists():
        loaded = loaded_by("audit.__main__")
        assert not loaded & HEAVY
        assert {name for name in loaded if name.partition(".")[0] == "audit"} == {"audit", "audit.__main__"}


def test_verifying_loads_what_it_needs_and_no_more() -> None:
    """A run of `verify`, up to a file that is not there, loads its own modules, no slow ones, and no translations."""
    words = ["verify", "absent", "--owner-key", "key", "--state", "absent"]
    loaded = loaded_after(f"from verifier.cli import main; assert main({words!r}) == 4")
    assert not loaded & (HEAVY | SLOW)
    assert {name.split(".")[1] for name in loaded if name.startswith("verifier.")} == VERIFYING
    assert {name for name in loaded if name.startswith("verifier.commands.")} == {
        "verifier.commands.common",
        "verifier.commands.verify",
    }


def project_files() -> Iterator[Path]:
    """The files that git tracks or would add; without git, the tree without what the tools leave."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True).stdout.decode()
        paths = {ROOT / name for name in listed.split("\0") if name}
    except (FileNotFoundError, subprocess.CalledProcessError):
        paths = {path for path in ROOT.rglob("*") if not NOT_OURS & set(path.relative_to(ROOT).parts)}
        paths = {path for path in paths if "__pycache__" not in path.parts}
    return (path for path in sorted(paths) if path.is_file() and not path.is_symlink())


def test_files_name_no_registry_and_no_machine() -> None:
    """Nothing in the tree depends on where it was made: no registry's host, no path of a build machine."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in project_files()
        if (match := FOREIGN.search(path.read_bytes()))
    ]
    assert not found


@pytest.mark.parametrize("text", [REGISTRIES[0], f"see /{MACHINE_ROOTS[0]}/x", f'"/{MACHINE_ROOTS[3]}/a"'])
def test_foreign_places_are_seen(text: str) -> None:
    """The search finds a registry's host and a machine's path, and leaves a path inside the project alone."""
    assert FOREIGN.search(text.encode())
    assert not FOREIGN.search(b"docs/work/x and https://example.org/root")
