"""Clients that connect and send nothing, or send without end."""

from __future__ import annotations

import resource
import signal
import socket
import time
from pathlib import Path

import pytest
from command_line import HOUR
from serving import Serving, wait


def address(server: Serving) -> tuple[str, int]:
    return "127.0.0.1", server.port


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(4_096) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_half_open_connections_are_limited_logged_and_closed(tmp_path: Path, student: Path) -> None:
    server = Serving(tmp_path / "served", f"student={student}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with server:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] >= min(hard, 4_096)
        begun = []
        for number in range(300):
            connection = socket.create_connection(address(server), 10)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-" if number % 2 else b"")
            begun.append(connection)
        assert server.get("/readyz").status_code == 200
        wait(lambda: all(is_closed(connection) for connection in begun))
        assert server.get("/readyz").status_code == 200
        for connection in begun:
            connection.close()


def test_an_idle_client_that_asks_now_and_then_keeps_its_connection(tmp_path: Path, student: Path) -> None:
    with Serving(tmp_path / "served", f"student={student}") as server, socket.create_connection(address(server)) as one:
        for _ in range(4):
            one.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                part = one.recv(65_536)
                assert part
                answer += part
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(3.5)


def test_an_endless_body_is_cut_after_the_answer(tmp_path: Path, student: Path) -> None:
    with Serving(tmp_path / "served", f"student={student}") as server, socket.create_connection(address(server)) as one:
        one.settimeout(HOUR)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
        one.sendall(head.encode())
        chunk = b"%x\r\n" % 2**20 + b" " * 2**20 + b"\r\n"
        with pytest.raises(ConnectionError):
            for _ in range(2_000):
                one.sendall(chunk)
        assert server.get("/readyz").status_code == 200


def test_sigterm_ends_with_0(tmp_path: Path, student: Path) -> None:
    server = Serving(tmp_path / "served", f"student={student}").start()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(HOUR) == 0
    server.kill()
