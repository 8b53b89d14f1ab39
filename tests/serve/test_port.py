"""The shared port: refused when taken, and nothing that waits is lost when one of its users leaves."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from raw_http import free_port

from raysl.errors import ServeError
from raysl.serve.port import SharedPort, borrow, check_port


def test_a_port_in_use_is_refused_with_the_key_and_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"Port {port} of 127\.0\.0\.1 is in use.*serve\.port=\d+"):
            check_port("127.0.0.1", port)


def test_a_port_we_hold_is_in_use_until_it_is_closed() -> None:
    port = free_port()
    held = SharedPort("127.0.0.1", port)
    with pytest.raises(ServeError, match="in use"):
        check_port("127.0.0.1", port)
    held.close()
    check_port("127.0.0.1", port)
    assert not Path(held.path).exists()


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(ServeError, match=r"serve\.host=.* is no address of this machine"):
        check_port(host, free_port())


ANSWER = """
import sys
from raysl.serve.port import borrow
listening = borrow(sys.argv[1])
listening.settimeout(30)
connection, _ = listening.accept()
connection.sendall(b"from another process")
"""


def test_another_process_answers_what_came_before_it_was_there() -> None:
    port = free_port()
    held = SharedPort("127.0.0.1", port)
    leaving = borrow(held.path)
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        leaving.close()
        subprocess.run([sys.executable, "-c", ANSWER, held.path], check=True, timeout=60)
        assert client.recv(100) == b"from another process"
    held.close()


def test_many_can_borrow_it() -> None:
    held = SharedPort("127.0.0.1", free_port())
    sockets = [borrow(held.path) for _ in range(20)]
    assert {one.getsockname() for one in sockets} == {sockets[0].getsockname()}
    for one in sockets:
        one.close()
    held.close()
