"""witness-log's witness behind a small server. Runs in the peers' environment: SEED_HEX STATE ORIGIN VKEY.

Prints its vkey and its port, then answers `POST /add-checkpoint` until its standard input ends.
"""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from witness_log import WitnessService  # type: ignore[import-not-found]


def main(seed: str, state: str, origin: str, vkey: str) -> None:
    WitnessService.create_state(state)
    service = WitnessService.new("witness-log.example/w", bytes.fromhex(seed), state)
    service.add_log(origin, vkey)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status, kind, answer = service.handle_add_checkpoint_http(body)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer.encode())))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(service.vkey(), server.server_port, sep="\n", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
