"""Run by this environment's Python: same_bytes.py DIRECTORY [plain]. A FastAPI route that returns files as they are.

Same server, same settings as the log's; the path `/proof/17` answers with the bytes of DIRECTORY/17. With `plain` the
application is bare ASGI, as the log's own route is: what then is left is the server, the sockets and the scheduler.
"""

from __future__ import annotations

import os
import sys

from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from audit.server import serve


def read_answers(directory: str) -> dict[str, bytes]:
    answers = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as file:
            answers[name] = file.read()
    return answers


def create_plain(answers: dict[str, bytes]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = answers[scope["path"].removeprefix("/proof/")]
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def create_app(answers: dict[str, bytes]) -> FastAPI:
    app = FastAPI()

    @app.get("/proof/{name}", response_class=Response)
    async def answer(name: str) -> Response:
        return Response(answers[name], media_type="application/json")

    return app


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    create = create_plain if sys.argv[2:] == ["plain"] else create_app
    serve(lambda stop: create(read_answers(sys.argv[1])), "127.0.0.1", 0, say)
