"""`make peers`: the witnesses of requirements/peers.txt, in an environment of their own, .venv/peers.

They need Python 3.12, and ours may be older. Interpreters are found by running candidates, on PATH, in Debian's folders
and among what pyenv has built for this account: a name may be a shim that runs nothing. Where there is none, nothing is
installed and that is said; in CI (`CI` is set) it is a failure. A package that can't be installed always is one.

    reason = why_absent()       None: `PYTHON` can import them. Else a sentence, for the test or the row that is skipped
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".venv" / "peers"
PYTHON = HOME / "bin" / "python"
LOCK = ROOT / "requirements" / "peers.txt"
STAMP = HOME / ".installed"  # the lock's SHA-256, written last

VERSIONS = ("3.12", "3.13", "3.14")
PYENV = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".pyenv"  # the account's home, whatever HOME says
WHICH = (
    "import sys, venv, ensurepip\n"
    "if sys.version_info < (3, 12): sys.exit(1)\n"
    "print(getattr(sys, '_base_executable', sys.executable))"
)
RUN_TIMEOUT_S = 30


def find_interpreter() -> str | None:
    """The path of a Python that can run them."""
    return next(filter(None, (_run(name, version) for name, version in candidates())), None)


def candidates() -> Iterator[tuple[str, str]]:
    """Names and paths to run, each with the version that a shim of pyenv has to be told."""
    for version in VERSIONS:
        for folder in ("", "/usr/bin/", "/usr/local/bin/"):
            yield f"{folder}python{version}", version
        for built in sorted(PYENV.glob(f"versions/{version}*/bin/python{version}")):
            yield str(built), version
    yield "python3", ""
    yield sys.executable, ""


def _run(name: str, version: str) -> str | None:
    env = {**os.environ, "PYENV_VERSION": version} if version else None
    try:
        done = subprocess.run([name, "-c", WHICH], capture_output=True, text=True, env=env, timeout=RUN_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def is_installed() -> bool:
    """Whether exactly what is locked is there."""
    return STAMP.is_file() and STAMP.read_text() == sha256(LOCK.read_bytes()).hexdigest()


def why_absent() -> str | None:
    return None if is_installed() else "the peers are not installed (they need Python 3.12 or newer): make peers"


def main() -> int:
    if is_installed():
        return 0
    python = find_interpreter()
    if python is None:
        print("peers: no Python 3.12 or newer was found, so nothing is tested against them", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    print(f"making {HOME.relative_to(ROOT)} with {python} from requirements/peers.txt")
    subprocess.run([python, "-m", "venv", "--clear", HOME], check=True)
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes", "-r", LOCK]
    subprocess.run(pip, check=True)
    STAMP.write_text(sha256(LOCK.read_bytes()).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
