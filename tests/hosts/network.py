"""Network namespaces for the hosts, and what can go wrong between them.

    nca-hosts-1 .. nca-hosts-5    one for each host: eth0, 10.203.77.1 .. 10.203.77.5
    nca-hosts-bridge              the other ends, n1 .. n5, on a bridge; faults are nftables rules there

The addresses exist in these namespaces alone, and nothing leads out of them. Every process in a namespace with our
prefix is ours: `remove` ends all of them, also those that an earlier run left when it was killed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

PREFIX = "nca-hosts-"
BRIDGE = f"{PREFIX}bridge"
SUBNET = "10.203.77"
HOSTS = range(1, 6)
CLONE_NEWNET = 0x40000000  # of sched.h

T = TypeVar("T")


def namespace(host: int) -> str:
    return f"{PREFIX}{host}"


def address(host: int) -> str:
    return f"{SUBNET}.{host}"


def why_not() -> str | None:
    """Why namespaces can't be made here; None where they can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing or not find_faketime():
        return f"needs {', '.join(missing) or 'libfaketime'}: apt-get install iproute2 nftables faketime"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"network namespaces: {probe.stderr.strip()}" if probe.returncode else None


def find_faketime() -> Path | None:
    """Debian's library: the `faketime` command stays in front of its program, so a kill would miss that."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def ip(*words: str | int) -> str:
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


def create() -> None:
    remove()
    ip("netns", "add", BRIDGE)
    ip("-n", BRIDGE, "link", "add", "br0", "type", "bridge")
    ip("-n", BRIDGE, "link", "set", "br0", "up")
    for host in HOSTS:
        ns = namespace(host)
        ip("netns", "add", ns)
        ip("link", "add", "eth0", "netns", ns, "type", "veth", "peer", "name", f"n{host}", "netns", BRIDGE)
        ip("-n", BRIDGE, "link", "set", f"n{host}", "master", "br0", "up")
        ip("-n", ns, "address", "add", f"{address(host)}/24", "dev", "eth0")
        ip("-n", ns, "link", "set", "lo", "up")
        ip("-n", ns, "link", "set", "eth0", "up")


def remove() -> None:
    """Ends every process in our namespaces and removes them, whoever left them."""
    names = [line.split()[0] for line in ip("netns", "list").splitlines()]
    for name in names:
        if name.startswith(PREFIX):
            for pid in ip("netns", "pids", name).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            ip("netns", "delete", name)


class Inside:
    """One thread that lives in a host's namespace: sockets that it opens belong there."""

    def __init__(self, host: int) -> None:
        self._pool = ThreadPoolExecutor(1, initializer=_enter, initargs=(namespace(host),))

    def run(self, what: Callable[[], T]) -> T:
        return self._pool.submit(what).result()

    def close(self) -> None:
        self._pool.shutdown()


def _enter(name: str) -> None:
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(fd)


# Faults


def cut(one: Iterable[int], other: Iterable[int]) -> None:
    """No frame passes between the two groups."""
    a, b = _ports(one), _ports(other)
    _rules(f"iifname {a} oifname {b} drop", f"iifname {b} oifname {a} drop")


def deafen(host: int) -> None:
    """The host is heard by all, and hears nothing."""
    _rules(f"oifname {_ports([host])} drop")


def lose(percent: int) -> None:
    """So many of a hundred frames are dropped, by chance."""
    _rules(f"numgen random mod 100 < {percent} drop")


def heal() -> None:
    _nft("add table bridge faults\ndelete table bridge faults\n")


def redirect(host: int, port: int, to: int) -> None:
    """What comes to a port of the host from the network goes to another one; connections that stand stay."""
    chain = "add chain ip relay way { type nat hook prerouting priority -100; }"
    rule = f"add rule ip relay way iifname eth0 tcp dport {port} redirect to :{to}"
    _nft(f"add table ip relay\n{chain}\n{rule}\n", namespace(host))


def redirect_no_more(host: int) -> None:
    _nft("delete table ip relay\n", namespace(host))


def _ports(hosts: Iterable[int]) -> str:
    names = ", ".join(f'"n{host}"' for host in hosts)
    return f"{{ {names} }}"


def _rules(*rules: str) -> None:
    heal()
    chain = "add chain bridge faults way { type filter hook forward priority 0; }"
    lines = ["add table bridge faults", chain, *[f"add rule bridge faults way {rule}" for rule in rules]]
    _nft("\n".join(lines) + "\n")


def _nft(text: str, ns: str = BRIDGE) -> None:
    command = ["ip", "netns", "exec", ns, "nft", "-f", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}{done.stderr}"
