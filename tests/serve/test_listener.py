"""Ports: refused when taken, shared only on purpose."""

import socket

import pytest
from raw_http import free_port

from raysl.errors import ServeError
from raysl.serve.listener import check_port, open_socket


def test_a_port_in_use_is_refused_with_the_key_and_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"Port {port} of 127\.0\.0\.1 is in use.*serve\.port=\d+"):
            check_port("127.0.0.1", port)


def test_a_port_that_replicas_share_counts_as_in_use() -> None:
    port = free_port()
    with open_socket("127.0.0.1", port, shared=True) as first, open_socket("127.0.0.1", port, shared=True):
        first.listen()
        with pytest.raises(ServeError, match="in use"):
            check_port("127.0.0.1", port)


def test_a_free_port_is_free_again_after_the_check() -> None:
    port = free_port()
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(ServeError, match=r"serve\.host=.* is no address of this machine"):
        check_port(host, free_port())
