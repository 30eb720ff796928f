"""Run as upload.py URL USER PASSWORD COUNT: uploads so many small files one by one; prints the median's seconds."""

from __future__ import annotations

import sys
import time
from statistics import median

import httpx

if __name__ == "__main__":
    url, user, password, number = sys.argv[1:]
    taken = []
    with httpx.Client(auth=(user, password), trust_env=False, timeout=60) as client:
        for count in range(int(number)):
            start = time.perf_counter()
            answer = client.put(f"{url}/remote.php/dav/files/{user}/upload-{count % 4}.txt", content=b"x" * 20_000)
            taken.append(time.perf_counter() - start)
            assert answer.status_code in (201, 204), answer.status_code
    print(median(taken))
