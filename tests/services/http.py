"""What these servers have in common: JSON over HTTP in a thread, an administrator's token, and a way to be killed."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
Routes = Callable[[str, str, Any], Reply]


class KilledError(Exception):
    """The server is gone in the middle of a request."""


@contextlib.contextmanager
def serving(routes: Routes, token: str | None = None, header: str | None = None) -> Iterator[str]:
    """Answer requests (method, path, body) until the end of the block; gives the URL.

    `bytes` as a reply's body are sent as they are, anything else as JSON.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_more: object) -> None:
            pass

        def _answer(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            wanted = token if header else f"Bearer {token}"
            if token is not None and self.headers.get(header or "Authorization") != wanted:
                status, found = 401, {"error": "Unauthorized"}
            else:
                try:
                    status, found = routes(method, self.path.lstrip("/"), body)
                except KilledError:
                    self.close_connection = True
                    return
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", found["to"])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # Whoever asked has heard enough.
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
