"""Run by this environment's Python: node_server.py DIRECTORY. A node as `nextcloud-audit node serve` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from audit.node import create_app, open_node
from audit.server import serve

if __name__ == "__main__":
    app = create_app(open_node(Path(sys.argv[1])))
    serve(lambda _: app, "127.0.0.1", 0, lambda url: print(url, flush=True))
