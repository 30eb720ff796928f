"""Run by this environment's Python: same_bytes.py DIRECTORY. A FastAPI route that returns files as they are.

Same server, same settings as the log's; the path `/proof/17` answers with the bytes of DIRECTORY/17.
"""

from __future__ import annotations

import os
import sys

from fastapi import FastAPI, Response

from audit.server import serve


def create_app(directory: str) -> FastAPI:
    answers = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as file:
            answers[name] = file.read()
    app = FastAPI()

    @app.get("/proof/{name}", response_class=Response)
    async def answer(name: str) -> Response:
        return Response(answers[name], media_type="application/json")

    return app


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    serve(lambda stop: create_app(sys.argv[1]), "127.0.0.1", 0, say)
