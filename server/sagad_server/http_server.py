"""Metrics and health over HTTP, in a thread of their own: `GET /metrics` and `GET /health`."""

import json
import threading
from collections.abc import Callable, Iterable
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from sagad_server.api.server import ListenError

_POLL_S = 0.05  # `stop` waits for as long as that


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # seconds that a client may be silent

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Scrapes are no news."""


class HttpServer:
    """Listens at once, serves from `start` until `stop`. Raises ListenError."""

    def __init__(self, address: str, registry: CollectorRegistry, serving: Callable[[], bool]) -> None:
        host, _, port = address.rpartition(":")
        self._metrics = make_wsgi_app(registry)
        self._serving = serving
        try:
            self._server = make_server(host.strip("[]"), int(port), self._app, _Server, _QuietHandler)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {address} (http.address): {error}; does another process, or another sagad, do so?"
            ) from error
        serve = partial(self._server.serve_forever, poll_interval=_POLL_S)
        self._thread = threading.Thread(target=serve, name="http", daemon=True)
        self.port = self._server.server_port

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():  # else nobody would answer the shutdown
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/health":
            serving = self._serving()
            start_response("200 OK" if serving else "503 Service Unavailable", [("Content-Type", "application/json")])
            return [json.dumps({"status": "SERVING" if serving else "NOT_SERVING"}).encode() + b"\n"]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /metrics and /health\n"]
