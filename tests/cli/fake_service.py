"""A server on loopback that answers what it is told to, at a clock of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def fake_service(
    answers: dict[str, Any], *, skew_seconds: float = 0.0, password: str = "", denied: str = "", port: int = 0
) -> Iterator[str]:
    """Serve values by path, as JSON unless they are bytes; all else is 404. With a password, all but /health asks for that header.

    `denied` is the body of every answer, with status 403: an S3 server's refusal. `port` is where it listens; 0: anywhere.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            if denied:
                self.answer(403, denied.encode())
            elif password and not path.endswith("/health") and self.headers.get("Authorization") != password:
                self.answer(401, b"{}")
            elif path in answers:
                value = answers[path]
                self.answer(200, value if isinstance(value, bytes) else json.dumps(value).encode())
            else:
                self.answer(404, b"{}")

        do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + skew_seconds)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
