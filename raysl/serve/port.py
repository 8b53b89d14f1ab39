"""One listening socket that the replicas of a machine share, held by the process that serves.

Connections wait in its queue until some replica takes them, so none is refused or reset while versions change or while a
killed replica is replaced. (Sockets of their own on a shared port, SO_REUSEPORT, lose what waits in the queue of the one
that closes.)
"""

import contextlib
import errno
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from raysl.errors import ServeError

BACKLOG = 2048


class SharedPort:
    """Holds `host:port` and hands the socket to every process of this user that asks at `path`.

    Raises ServeError naming the key to change, where the address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = _bind(host, port)
            self._socket.listen(BACKLOG)
        except OSError as error:
            raise ServeError(_explained(error, host, port)) from error
        self._folder = Path(tempfile.mkdtemp(prefix="raysl-"))  # open to this user alone
        self.path = str(self._folder / "port")
        self._desk = socket.socket(socket.AF_UNIX)
        self._desk.bind(self.path)
        self._desk.listen()
        threading.Thread(target=self._hand_out, name="shared-port", daemon=True).start()

    def _hand_out(self) -> None:
        while True:
            try:
                asking, _ = self._desk.accept()
                with asking:
                    socket.send_fds(asking, [b"p"], [self._socket.fileno()])
            except OSError:
                if self._desk.fileno() == -1:  # closed
                    return

    def close(self) -> None:
        """Frees the port once the replicas have closed theirs too."""
        with contextlib.suppress(OSError):
            self._desk.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._desk.close()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def borrow(path: str) -> socket.socket:
    """The socket that a SharedPort holds, in this process too."""
    with socket.socket(socket.AF_UNIX) as desk:
        desk.settimeout(10)
        desk.connect(path)
        _, descriptors, _, _ = socket.recv_fds(desk, 1, 1)
    return socket.socket(fileno=descriptors[0])


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def check_port(host: str, port: int) -> None:
    """ServeError where `host:port` cannot be listened on."""
    SharedPort(host, port).close()


def _explained(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        free = _free_port(host, port)
        return f"Port {port} of {host} is in use. Stop what listens there, or choose another one: serve.port={free}."
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} is not allowed to this user. Choose one from 1024 on: serve.port=8000."
    return f"serve.host={host} is no address of this machine ({error.strerror}). Use 127.0.0.1, or 0.0.0.0 for all."


def _free_port(host: str, port: int) -> int:
    for candidate in range(port + 1, min(port + 100, 65536)):
        try:
            _bind(host, candidate).close()
            return candidate
        except OSError:
            continue
    return 8000
