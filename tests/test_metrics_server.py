from __future__ import annotations

import contextlib
import re
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Flow, PausableBroker, await_ready, environment, fill_topic, free_port
from test_flow import keyed, made_rows

from dataflow.errors import UserError
from dataflow.kafka import health
from dataflow.metrics import counters, http, server
from dataflow.settings import Settings


def serve(**settings: object) -> int:
    port = free_port()
    server.start(Settings(_env_file=None, metrics_port=port, **settings))  # type: ignore[arg-type]
    return port


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
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


@contextlib.contextmanager
def tricklers(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that send a byte now and then, and connect again when they are ended."""
    stop = threading.Event()
    clients: list[socket.socket] = []

    def trickle() -> None:
        while not stop.is_set():
            while len(clients) < count and not stop.is_set():
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                clients.append(client)
            for client in list(clients):
                try:
                    client.send(b"G")
                    ended = client.recv(1000) == b""
                except (BlockingIOError, InterruptedError):
                    ended = False
                except OSError:
                    ended = True
                if ended:
                    clients.remove(client)
                    client.close()
            stop.wait(0.05)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield clients
    finally:
        stop.set()
        thread.join()
        for client in clients:
            client.close()


def test_many_slow_clients_do_not_hold_up_a_scrape() -> None:
    port = serve()
    with tricklers(port, 400) as clients:
        while len(clients) < 400:
            time.sleep(0.01)
        for path in ("/metrics", "/healthz", "/metrics"):
            assert ask(port, path)[0] == 200
    before = threading.active_count()
    assert ask(port, "/metrics")[0] == 200
    assert threading.active_count() <= before + http.CONNECTIONS


def test_a_slow_client_is_disconnected_even_if_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE", 0.5)
    port = serve()
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as slow:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                slow.send(b"G")
                if slow.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("it is still connected")
    assert ask(port, "/healthz")[0] == 200


def test_a_client_that_does_not_read_is_ended_for_others() -> None:
    port = serve()
    with contextlib.ExitStack() as open_:
        for _ in range(2 * http.CONNECTIONS):
            client = open_.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert ask(port, "/metrics")[0] == 200


WITHOUT_FILES = """
import os, resource, sys
from dataflow.metrics import server
from dataflow.settings import Settings
server.start(Settings(_env_file=None, metrics_port=int(sys.argv[1])))
soft = len(os.listdir("/proc/self/fd")) + 8
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
files = []
while True:
    try:
        files.append(open(os.devnull))
    except OSError:
        break
print("no file left", flush=True)
sys.stdin.readline()
for file in files:
    file.close()
print("freed", flush=True)
sys.stdin.readline()
"""


def test_it_outlives_a_process_without_files() -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_FILES, str(port)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        try:
            assert process.stdout.readline() == "no file left\n"
            with socket.create_connection(("127.0.0.1", port), timeout=120) as early:
                early.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                before = cpu_seconds(process.pid)
                time.sleep(1)
                # It waits for a file, and does not spin.
                assert cpu_seconds(process.pid) - before < 0.5
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "freed\n"
                assert early.recv(100).startswith(b"HTTP/1.0 200 OK")
            assert ask(port, "/metrics")[0] == 200
        finally:
            process.kill()
        assert process.stderr
        assert process.stderr.read() == ""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_the_flow_keeps_its_files(own_broker: PausableBroker, run_flow: Flow) -> None:
    def write(first: int, last: int) -> None:
        rows = made_rows(4, last)[4 * first :]
        lines = keyed(rows)
        fill_topic(own_broker.address, "cpu", lines)

    write(0, 10)
    port = free_port()
    flow = run_flow.start(
        brokers=own_broker.address, topic="cpu", metrics_port=port, detector="tutorial"
    )
    await_ready(flow, port)

    def files() -> int:
        return len(list(Path(f"/proc/{flow.pid}/fd").iterdir()))

    most = files() + http.CONNECTIONS + 20
    resource.prlimit(flow.pid, resource.RLIMIT_NOFILE, (most, most))
    with tricklers(port, 400) as clients:
        while len(clients) < 400:
            time.sleep(0.01)
        write(10, 20)
        # The broker is asked for new partitions meanwhile, by a client of its own: twice at least.
        looks = time.monotonic() + 2.5 * health.SECONDS
        deadline = time.monotonic() + 120
        read = 0.0
        while time.monotonic() < looks or read < 80:
            status, text = ask(port, "/metrics")
            assert status == 200
            assert files() < most
            assert flow.poll() is None, flow.communicate()
            assert time.monotonic() < deadline, text
            read = sum(map(float, re.findall(r"anomaly_records_read_total\S* ([\d.]+)", text)))
            time.sleep(0.2)
        assert read == 80
    flow.terminate()
    assert flow.wait(120) == 0


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

    monkeypatch.setattr(http, "_Server", never)
    server.start(Settings(_env_file=None))
