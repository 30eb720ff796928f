"""Rows on reading and hashing files: one large file against openssl, and many files on two cores against one.

What two cores can give here is measured in the same rounds by two openssl processes against one: on a machine that
others use as well, that is less than two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from audit.hashing import Hashed, Seen, hash_file, hash_files, open_root, seen_from_stat
from bench.measure import MS, Row, S, at_least, at_most, interleave, ratio_of, skipped
from verifier.digest import hash_file as hash_for_verify

MIB = 2**20
BLOCK = os.urandom(MIB)


def rows(temporary: str, rounds: int, large: int, files: int, size: int) -> list[Row]:
    """`large` bytes in one file; `files` files of `size` bytes."""
    directory = os.path.join(temporary, "hashing")
    os.makedirs(directory)
    try:
        return [*large_rows(directory, rounds, large), *folder_rows(directory, rounds, files, size)]
    finally:
        shutil.rmtree(directory)


def large_rows(directory: str, rounds: int, size: int) -> list[Row]:
    path = write(directory, "large", size)
    what = f"hash {size // MIB:,} MiB"
    openssl = shutil.which("openssl")
    if openssl is None:
        return [skipped(what, "<= 1.05x", "openssl is not installed")]
    root = open_root(directory)
    seen = look_at(directory, "large")
    times = interleave(
        rounds,
        scan=lambda: timed(lambda: hash_file(root, seen)),
        verify=lambda: timed(lambda: hash_for_verify(path)),
        openssl=lambda: timed(lambda: run_openssl(openssl, [path])),
    )
    os.close(root)
    os.remove(path)
    against = "openssl dgst -sha3-256, a whole process"
    return [
        at_most(f"{what}, as a scan does", times["scan"], times["openssl"], 1.05, S, against),
        at_most(f"{what}, as verify does", times["verify"], times["openssl"], 1.05, S, against),
    ]


def folder_rows(directory: str, rounds: int, files: int, size: int) -> list[Row]:
    """Two workers against one; and, as the limit of the machine, two openssl against one."""
    paths = [write(directory, f"{number:05}", size) for number in range(files)]
    root = open_root(directory)
    seen = [look_at(directory, os.path.basename(path)) for path in paths]
    openssl = shutil.which("openssl") or ""
    halves = paths[::2], paths[1::2]
    limit = {"one": lambda: timed(lambda: run_openssl(openssl, paths))} if openssl else {}
    limit |= {"two": lambda: timed(lambda: run_openssl(openssl, *halves))} if openssl else {}
    times = interleave(
        rounds,
        two_workers=lambda: timed(lambda: scan(root, seen, 2)),
        one_worker=lambda: timed(lambda: scan(root, seen, 1)),
        **limit,
    )
    os.close(root)
    name = f"hash a folder of {files:,} files of {size // 1024:,} KiB on two cores"
    row = at_least(name, times["two_workers"], times["one_worker"], 1.7, MS, "on one")
    if openssl and not row.met:
        reached = ratio_of(times["one"], times["two"])
        row = row._replace(why=f"two openssl processes reach {reached:.2f}x one of them here, in the same rounds")
    return [row]


def write(directory: str, name: str, size: int) -> str:
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        for start in range(0, size, MIB):
            file.write(BLOCK[: size - start])
    return path


def look_at(directory: str, name: str) -> Seen:
    return seen_from_stat(name, os.stat(os.path.join(directory, name)))


def scan(root: int, seen: list[Seen], workers: int) -> None:
    results = list(hash_files(root, seen, workers))
    assert all(isinstance(result, Hashed) for result in results)


def timed(call: object) -> float:
    assert callable(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run_openssl(openssl: str, *parts: list[str]) -> None:
    """One process for each list of files, at the same time."""
    command = [openssl, "dgst", "-sha3-256"]
    running = [subprocess.Popen([*command, *paths], stdout=subprocess.DEVNULL) for paths in parts]
    assert [process.wait() for process in running] == [0] * len(running)
