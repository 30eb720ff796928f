"""Run by this environment's Python: node_server.py DIRECTORY. A node as `nextcloud-audit node serve` runs it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn

from audit.node import create_app, open_node, server_config

if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server = uvicorn.Server(server_config(create_app(open_node(Path(sys.argv[1])))))
    server.run(sockets=[listener])
