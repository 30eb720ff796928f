"""Rows over HTTP: the log's application, every request signed and checked, against servers that only return the bytes.

One keep-alive connection to each server, over a raw socket, so that a client library is not what is measured; what a
program that uses one sees is a row of its own. The raw client never sleeps while it waits: being woken costs next to
nothing after a short sleep and some 100 us after a longer one, and so the scheduler would be compared. All servers get
the same requests for the same files and answer with the same bodies; what a round counts is its median request (p50).
The log's process, with the whole store, is also the one whose memory is read.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TypeVar

import httpx

from bench.dataset import Data, now
from bench.environment import PEERS, Failed
from bench.measure import US, Round, Row, at_most, below, explained, interleave, loop, middle, over, shown, skipped
from bench.progress import say
from bench.proving import some_files
from verifier.ed25519 import load_private_key
from verifier.request import Authorization, format_authorization, request_message

START_S = 30
KEPT = 256  # files whose proofs the peers hold ready
SERVED = 20_000  # proofs before memory is read
MAX_MEMORY_MB = 300
NAME = "proof over HTTP, p50"
PARTS = {"signature": "to verify the request's signature", "proof": "to make the proof"}
_T = TypeVar("_T")
NGINX = """
{user}worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log stderr error;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; default_type application/json;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{ listen 127.0.0.1:{port}; location /proof/ {{ alias {files}/; }} }}
}}
"""


class Connection:
    """One keep-alive connection. `get` returns the body of a 200; anything else is an error.

    Unless it `sleeps`, it asks for the answer again and again, which takes a processor of its own.
    """

    def __init__(self, port: int, sleeps: bool = False) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(sleeps)

    def get(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        data = self._more()
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            raise AssertionError(data.decode("utf-8", "replace"))
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        body = data[end + 4 :]
        while len(body) < length:
            body += self._more()
        return body

    def _more(self) -> bytes:
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                continue
            if not data:
                raise AssertionError("the server closed the connection")
            return data

    def close(self) -> None:
        self._socket.close()


def rows(data: Data, temporary: str, rounds: int, calls: int, served: int) -> list[Row]:
    """p50 against FastAPI and nginx; then the peak memory of the log's process."""
    files = sorted(set(some_files(data, KEPT)))
    directory = write_proofs(data, files, os.path.join(temporary, "proofs"))
    with ExitStack() as stack:
        process, port = stack.enter_context(python_server("log_server.py", data.directory))
        _, peer = stack.enter_context(python_server("same_bytes.py", directory))
        _, plain = stack.enter_context(python_server("same_bytes.py", directory, "plain"))
        ports = {"log": port, "fastapi": peer, "plain": plain}
        why_no_nginx = ""
        try:
            ports["nginx"] = stack.enter_context(nginx(temporary, directory))
        except Failed as error:
            why_no_nginx = str(error)
        connections = {name: Connection(port) for name, port in ports.items()}
        check_same(data, files, connections)
        servers = {name: p50(data, files, connection, calls) for name, connection in connections.items()}
        for name in ("log", "fastapi"):
            client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports[name]}"))
            servers[f"{name}_httpx"] = p50_httpx(data, files, client, calls)
        times = interleave(rounds, **servers, **alone(data, files, calls))
        parts = [f"{middle(times[part], US):.0f} us {what}" for part, what in PARTS.items()]
        why = f"of it, measured alone in the same rounds: {', '.join(parts)}; the other route does neither"
        found = [
            explained(at_most(NAME, times["log"], times["fastapi"], 2, US, "FastAPI route, same bytes"), why),
            shown(f"{NAME}, by httpx", times["log_httpx"], times["fastapi_httpx"], US, "FastAPI route, same bytes"),
            shown(NAME, times["log"], times["plain"], US, "plain ASGI, same server and bytes"),
        ]
        if why_no_nginx:
            found.append(skipped(f"{NAME}, against nginx", "", why_no_nginx))
        else:
            found.append(shown(NAME, times["log"], times["nginx"], US, "nginx static, same bytes"))
        found.append(memory_row(data, process, connections["log"], served))
        for connection in connections.values():
            connection.close()
    return found


def alone(data: Data, files: list[int], calls: int) -> dict[str, Round]:
    """What the log does for each request and the others do not, in this process."""
    message = b"a request"
    private = load_private_key(data.owner.private)
    public, signature = private.public_key(), private.sign(message)
    return {
        "signature": loop(lambda: public.verify(signature, message), calls),
        "proof": over(files, lambda file_id: data.prover.prove(data.source, file_id), calls),
    }


def memory_row(data: Data, process: int, connection: Connection, served: int) -> Row:
    """Peak resident memory of the log's process once it has served proofs of files from all over the log."""
    say(f"  serving {served:,} proofs ...")
    for file_id in some_files(data, served):
        connection.get(signed_request(data, file_id))
    with open(f"/proc/{process}/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    name = f"server memory, peak, after {served:,} proofs at {data.files * 10:,} entries"
    return below(name, peak * 1024 / 1e6, "MB", MAX_MEMORY_MB)


def p50(data: Data, files: list[int], connection: Connection, calls: int) -> Round:
    """A round: the median request of so many, signed before the clock starts."""
    return median_of(lambda file_id: signed_request(data, file_id), connection.get, files, calls)


def p50_httpx(data: Data, files: list[int], client: httpx.Client, calls: int) -> Round:
    """The same as a program sees it that asks with a client library, and sleeps till the answer is there."""

    def get(request: httpx.Request) -> None:
        client.send(request).raise_for_status()

    def prepare(file_id: int) -> httpx.Request:
        target, header = signed(data, file_id)
        return client.build_request("GET", target, headers={"Authorization": header})

    return median_of(prepare, get, files, calls)


def median_of(prepare: Callable[[int], _T], get: Callable[[_T], object], files: list[int], calls: int) -> Round:
    def one_round() -> float:
        requests = [prepare(files[i % len(files)]) for i in range(calls)]
        taken = []
        for request in requests:
            start = time.perf_counter()
            get(request)
            taken.append(time.perf_counter() - start)
        return median(taken)

    return one_round


def signed_request(data: Data, file_id: int) -> bytes:
    """The request for a file's proof by its owner; every server gets it like this."""
    target, header = signed(data, file_id)
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {header}\r\n\r\n".encode()


def signed(data: Data, file_id: int) -> tuple[str, str]:
    """Its target, and the header that its owner's key makes for it."""
    target, at = f"/proof/{file_id}", now()
    signature = load_private_key(data.owner.private).sign(request_message(data.store.log_name, "GET", target, at, b""))
    return target, format_authorization(Authorization(data.owner.public, at, signature))


def write_proofs(data: Data, files: list[int], directory: str) -> str:
    os.makedirs(directory)
    for file_id in files:
        with open(os.path.join(directory, str(file_id)), "wb") as file:
            file.write(data.prover.prove(data.source, file_id))
    return directory


def check_same(data: Data, files: list[int], connections: dict[str, Connection]) -> None:
    """All servers answer with the same bytes."""
    for file_id in files[:16]:
        answers = {connection.get(signed_request(data, file_id)) for connection in connections.values()}
        assert answers == {data.prover.prove(data.source, file_id)}


@contextmanager
def python_server(script: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """The process id and port of one of our scripts that is a server."""
    with server([sys.executable, os.path.join(PEERS, script), *arguments]) as found:
        yield found


@contextmanager
def server(command: list[str]) -> Iterator[tuple[int, int]]:
    """The process id and port of a server that says where it listens."""
    root = os.path.dirname(os.path.dirname(PEERS))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "http://" not in line:
            raise AssertionError(f"{command[1:3]} did not start: {line}")
        yield process.pid, int(line.rsplit(":", 1)[1])
    finally:
        end(process)
        process.stdout.close()


@contextmanager
def nginx(temporary: str, files: str) -> Iterator[int]:
    """The port of an nginx that serves the same files."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise Failed("nginx is not installed")
    directory = os.path.join(temporary, "nginx")
    os.makedirs(directory)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.path.join(directory, "nginx.conf")
    user = "user root; " if os.geteuid() == 0 else ""  # its workers read what only this user may
    with open(path, "w") as file:
        file.write(NGINX.format(user=user, directory=directory, port=port, files=files))
    process = subprocess.Popen([program, "-p", directory, "-c", path], stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        end(process)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            Connection(port).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failed("nginx does not start here")


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
