"""A file of 5 GiB over WebDAV, from the first walk to its chain: streamed, hashed once, in bounded memory."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.audit.wire import on_loopback
from tests.nextcloud.fake import FakeNextcloud

SIZE = int(os.environ.get("LARGE_FILE_GIB", "5")) << 30
ZEROS = {5 << 30: "7cdb8fee94e4e69934640535baaca477b947751256ff86cac965d2b6c9708ef4"}  # sha3-256, by openssl
CHUNK = 1 << 20
MAX_RSS_KIB = 160 << 10
# The command as its script runs it, and then the peak of its own memory (the kernel's count for a child starts with
# what the parent had when it forked).
MEASURED = """
import sys
from audit.__main__ import main
code = main(sys.argv[2:])
with open("/proc/self/status") as status, open(sys.argv[1], "w") as peak:
    peak.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
sys.exit(code)
"""


class Length(bytes):
    """As long as it says, and holds nothing."""

    def __len__(self) -> int:
        return SIZE


@pytest.mark.skipif(
    "CI" not in os.environ and "LARGE_FILE_GIB" not in os.environ, reason="takes half a minute: CI=1 runs it"
)
def test_large_file_is_streamed(tmp_path: Path) -> None:
    """5 GiB of a sparse file, more than 32 bits count: its digest is right, and the process stays small."""
    fake = FakeNextcloud()
    alice = fake.cloud.add_user("alice", "alice-pw")
    file = fake.cloud.put(alice, ("big.bin",), b"")
    file.data = Length()
    sparse = tmp_path / "big.bin"
    with open(sparse, "wb") as made:
        made.truncate(SIZE)
    sent = [0]

    def stream(request: Request) -> Response | None:
        if request.method != "GET" or not request.url.path.endswith("/big.bin"):
            return None
        return StreamingResponse(chunks(), headers={"OC-ETag": file.etag, "Content-Length": str(SIZE)})

    async def chunks() -> AsyncIterator[bytes]:
        with open(sparse, "rb", buffering=0) as source:
            while chunk := source.read(CHUNK):
                sent[0] += len(chunk)
                yield chunk

    fake.lie = stream
    data = str(tmp_path / "log")
    audit = [sys.executable, "-m", "audit"]
    subprocess.run([*audit, "init", "--data", data, "--origin", "log.example/files"], check=True, capture_output=True)
    with on_loopback(fake.app) as url:
        account = {"user": "alice", "password": "alice-pw"}
        with open(os.open(f"{data}/nextcloud.json", os.O_CREAT | os.O_WRONLY, 0o600), "w") as config:
            json.dump({"url": url, "accounts": [account], "limits": {"again_hours": "0"}}, config)
        command = [sys.executable, "-c", MEASURED, str(tmp_path / "peak")]
        command += ["record", "--data", data, "--source", f"nextcloud:{url}", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    said = json.loads(done.stdout)
    assert (done.returncode, said["adopted"], said["problems"]) == (0, "1", [])
    conn = sqlite3.connect(f"file:{data}/log.db?mode=ro", uri=True)
    assert conn.execute("SELECT size FROM chains").fetchone() == (SIZE,)
    if SIZE in ZEROS:
        assert conn.execute("SELECT hex(digest) FROM chains").fetchone()[0].lower() == ZEROS[SIZE]
    conn.close()
    assert sent[0] == SIZE
    peak = int((tmp_path / "peak").read_text())
    assert peak < MAX_RSS_KIB
