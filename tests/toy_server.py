"""A server that speaks enough of OpenAI's protocol, and fails as told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Answers with what stands in `script`, one entry a request; else, for embeddings, with what `embed` makes of the
    body; else with the text that `answers` has for the seed; else with the prompt and the seed.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Any] = []
        self.answers: dict[int, str] = {}
        self.embed: Callable[[dict[str, Any]], str] | None = None
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers))
        self.server.paths.append(self.path)
        answer = self.server.script.pop(0) if self.server.script else None
        if answer is None and self.server.embed:
            answer = 200, self.server.embed(body)
        if answer is None:
            answer = self.server.answers.get(body["seed"])
        if answer is None:
            answer = f"{body['messages'][0]['content']} {body['seed']}"
        if answer == "hang up":
            return
        if answer == "silence":
            time.sleep(1)
            return
        status, text = answer if isinstance(answer, tuple) else (200, completion(answer))
        self.send_response(status)
        if status in (301, 307):
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


def completion(text: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
