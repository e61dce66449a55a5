"""A small OpenAI-compatible server of our own on loopback, that does what a test tells it."""

import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Said:
    """What the server answers to one request."""

    content: Any = ""
    status: int = 200
    raw: bytes | None = None  # instead of a chat completion
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    hang_up: bool = False


@dataclass
class Server:
    options: dict[str, Any]  # for `endpoint`
    requests: list[dict[str, Any]]
    headers: list[dict[str, str]]

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


def code_in(prompt: str) -> str:
    return re.search(r'"check": "(\w+)"', prompt.rpartition("The texts end here")[2])[1]


def text_in(prompt: str, name: str) -> str:
    """What stands in the frame of that name."""
    return re.search(rf"<<<{name} {code_in(prompt)}\n(.*?)\n{name} {code_in(prompt)}>>>", prompt, re.DOTALL)[1]


def verdict(prompt: str, score: Any, before: str = "It does what it should.") -> str:
    return f"{before}\n" + json.dumps({"reason": "so", "check": code_in(prompt), "score": score})


def honest(prompt: str) -> str:
    """Full marks exactly for an answer that is the reference."""
    return verdict(prompt, int(text_in(prompt, "ANSWER") == text_in(prompt, "REFERENCE")))


@contextmanager
def serving(answer: Callable[[str], str] | Callable[[dict, int], Said]):
    """`answer(prompt) -> text`, or `answer(request, number) -> Said` where `number` counts requests from 0."""
    served = Server({}, [], [])
    lock = threading.Lock()
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(served.requests)
                served.requests.append(body)
                served.headers.append(dict(self.headers))
            if answer.__code__.co_argcount == 1:
                said = Said(answer(body["messages"][0]["content"]))
            else:
                said = answer(body, number)
            stopped.wait(said.after_s)
            if said.hang_up or stopped.is_set():
                self.close_connection = True
                return
            completion = {"choices": [{"message": {"content": said.content}}], "usage": {"prompt_tokens": 1000}}
            raw = json.dumps(completion).encode() if said.raw is None else said.raw
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(raw)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # some tests are about clients that do not wait
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.options = {
        "url": f"http://127.0.0.1:{server.server_address[1]}/v1",
        "model": "tiny-judge",
        "timeout_s": 10.0,
        "backoff_s": 0.01,
    }
    try:
        yield served
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def unreachable() -> dict[str, Any]:
    """Options of an endpoint where nobody listens."""
    with serving(honest) as server:
        return {**server.options, "attempts": 2}
