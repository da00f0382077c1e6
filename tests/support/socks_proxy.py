"""A SOCKS 5 proxy on a free port of 127.0.0.1, in a thread, for one destination."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading


class SocksProxy:
    """Carries connections to `port` of this machine, whatever host they ask for. Use it as a context manager.

    Args:
        port: of the server behind it.
        refusal: the code to answer each wish for a connection with; 0: it is granted.

    Attributes:
        asked: the hosts that were asked for, names as names.
        logins: users and passwords that were given.
    """

    def __init__(self, port: int, refusal: int = 0):
        self.asked: list[str] = []
        self.logins: list[tuple[str, str]] = []
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                _, count = self.rfile.read(2)
                methods = self.rfile.read(count)
                self.wfile.write(bytes([5, 2 if 2 in methods else 0]))
                if 2 in methods:
                    self.rfile.read(1)
                    user, password = (self.rfile.read(self.rfile.read(1)[0]).decode() for _ in range(2))
                    proxy.logins.append((user, password))
                    self.wfile.write(b"\x01\x00")
                kind = self.rfile.read(4)[3]
                length = self.rfile.read(1)[0] if kind == 3 else 4
                host = self.rfile.read(length)
                proxy.asked.append(host.decode() if kind == 3 else socket.inet_ntoa(host))
                self.rfile.read(2)
                self.wfile.write(bytes([5, refusal, 0, 1, 0, 0, 0, 0, 0, 0]))
                if not refusal:
                    with socket.create_connection(("127.0.0.1", port)) as server:
                        back = threading.Thread(target=_carry, args=(server, self.connection), daemon=True)
                        back.start()
                        _carry(self.connection, server)
                        back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> SocksProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
