from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest
from conftest import Flow, free_port

from dataflow.errors import UserError
from dataflow.metrics import counters, server
from dataflow.settings import Settings


def serve(**settings: object) -> int:
    port = free_port()
    server.start(Settings(_env_file=None, metrics_port=port, **settings))  # type: ignore[arg-type]
    return port


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


def test_health_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "OPENED", set())
    port = serve()
    assert ask(port, "/healthz") == (200, "alive\n")
    assert ask(port, "/readyz") == (503, "no partition is open yet\n")
    counters.partition("topic", 0)
    assert ask(port, "/readyz") == (200, "ready\n")
    status, text = ask(port, "/metrics")
    assert status == 200
    assert 'anomaly_records_read_total{partition="0",topic="topic"} 0.0\n' in text
    assert 'anomaly_build_info{detector="calibrated",version="' in text
    assert ask(port, "/")[0] == 404


def test_no_address_is_looked_up_in_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer would hold up the start."""

    def silent(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(socket, "getfqdn", silent)
    monkeypatch.setattr(socket, "gethostbyaddr", silent)
    assert ask(serve(), "/healthz")[0] == 200


def test_a_silent_client_does_not_block_others() -> None:
    port = serve()
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_refused_in_one_line(run_flow: Flow) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_flow(metrics_port=port, input="nowhere.csv")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: metrics cannot be served on 127.0.0.1:{port} (Address already in use): give each "
        "process an ANOMALY_METRICS_PORT of its own, and set ANOMALY_METRICS_HOST to an address of "
        "this machine.\n"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(UserError, match="cannot be served on"):
        serve(metrics_host=host)


def test_without_a_port_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(server, "_Server", never)
    server.start(Settings(_env_file=None))
