"""The demo's two ends: an HTTP server and its client. Real programs, real protocol.

Run as a program inside a lab namespace: ``web.py serve ADDRESS`` or
``web.py get|linger ADDRESS PATH…``.
"""

from __future__ import annotations

import fcntl
import http.client
import io
import socket
import struct
import sys
import termios
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

PORT = 80


class Handler(BaseHTTPRequestHandler):
    """Answers GET; closes a POST without reading its body, as careless servers do."""

    protocol_version = "HTTP/1.1"
    timeout = 1.0  # then the server closes an idle connection

    def do_GET(self) -> None:
        """A page."""
        body = f"the page {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """No: and the body stays unread, all of it here (or its rest would draw more resets)."""
        wanted = int(self.headers["Content-Length"])
        buffered = cast(io.BufferedReader, self.rfile)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            taken = len(buffered.peek())  # first, for it takes from what FIONREAD counts
            waiting = fcntl.ioctl(self.connection, termios.FIONREAD, b"\0" * 4)
            if struct.unpack("i", waiting)[0] + taken >= wanted:
                break
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Quiet about connections that are reset: that is what the demo is about."""

    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        """Only close: a FIN first would race with the reset for the unread data."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet."""


def serve(address: str) -> None:
    """Serve until killed."""
    Server.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = Server((address, PORT), Handler)
    print("serving", flush=True)
    server.serve_forever()


def get(address: str, paths: list[str]) -> None:
    """Ask for pages over one connection and say how it went."""
    connection = http.client.HTTPConnection(address, timeout=10)
    for path in paths:
        try:
            if path.startswith("POST "):
                connection.request("POST", path[5:], body=b"x" * 20_000)
            else:
                connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            print(f"{path}: {answer.status} {answer.reason}")
        except OSError as error:
            print(f"{path}: {error.strerror or error}")
            return
        except http.client.HTTPException as error:
            print(f"{path}: {error}")
            return


def linger(address: str, paths: list[str]) -> None:
    """Get pages, then close with SO_LINGER 0, as impatient clients and health checks do."""
    connection = http.client.HTTPConnection(address, PORT, timeout=10)
    for path in paths:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        print(f"{path}: {answer.status} {answer.reason}")
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def main() -> None:
    """Do what the command line says."""
    what, address, *paths = sys.argv[1:]
    if what == "serve":
        serve(address)
    elif what == "linger":
        linger(address, paths)
    else:
        get(address, paths)


if __name__ == "__main__":
    main()
