"""What the tests share: a real broker, topics of their own, and the flow as its users run it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import hypothesis
import msgspec
import pytest
from kafka_jars import Unavailable, jars
from kafka_server import ApacheKafka, await_stopped, free_ports
from order import in_shares

from dataflow import kafka
from dataflow.demo.broker import EmbeddedBroker
from dataflow.formats.base import Decode
from dataflow.kafka import health, topics
from dataflow.records import Raw, Reading, Rejected
from dataflow.recovery.files import initialize
from dataflow.settings import PREFIX, Settings

if TYPE_CHECKING:
    from faults import Tally

# How long an example takes says how busy the machine is.
# The same examples in each run: a run that passes does so again. The long form takes new ones.
hypothesis.settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "new examples", hypothesis.settings.get_profile("any machine"), derandomize=False
)
hypothesis.settings.load_profile("any machine")

# Doctests are looked for in files; what was compiled from one stands for it.
os.environ["PY_IGNORE_IMPORTMISMATCH"] = "1"


class _SkipWithout(MetaPathFinder):
    """Skips a test, or a module of tests, that imports a package which is not installed."""

    REASONS: ClassVar = {
        "bytewax": "needs Bytewax, which has wheels for Python 3.11 and 3.12 only",
        "nbformat": "needs the extra `dev`",
    }

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        # The last finder: an installed package is found before.
        if fullname in self.REASONS:
            pytest.skip(self.REASONS[fullname], allow_module_level=True)


sys.meta_path.append(_SkipWithout())

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--brokers", help="HOST:PORT of a cluster to test against, in place of the embedded one"
    )
    parser.addoption("--pictures", help="folder to draw the documentation's pictures in")
    parser.addoption(
        "--faults", choices=["short", "long"], default="short", help="how long to make things die"
    )


@pytest.hookimpl(trylast=True)  # pytest itself groups tests by their fixtures
def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples of property tests, before the test modules are read."""
    if config.getoption("--faults") == "long":
        hypothesis.settings.load_profile("new examples")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests out that only the long form has, and order the others."""
    if config.getoption("--faults") == "short" and not config.getoption("--brokers"):
        left_out = {it for it in items if _only_long(it)}
        config.hook.pytest_deselected(items=left_out)
        items[:] = [it for it in items if it not in left_out]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = in_shares(items, processes, lambda item: item.path.name)


def _only_long(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("short")
    return mark is not None and item.callspec.id not in mark.args  # type: ignore[attr-defined]


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether fault tests are to take their time."""
    return bool(request.config.getoption("--faults") == "long")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the fault tests counted."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "tally":
                    counts = ", ".join(f"{count} {what}" for what, count in value.items())
                    test = report.nodeid.rpartition("::")[2]
                    terminalreporter.write_line(f"{test}: {counts}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository, where there is one."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the real data is not there: {folder.name}/ beside the repository")
    return folder


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith((PREFIX, "BYTEWAX_")):
            monkeypatch.delenv(name)
    # There is no .env file in an empty folder.
    monkeypatch.chdir(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `kafka` on Apache Kafka too."""
    names = [name for name in ("brokers", "own_broker") if name in metafunc.fixturenames]
    given = metafunc.config.getoption("brokers")
    if names and not given and metafunc.definition.get_closest_marker("kafka"):
        kinds = ["embedded", "apache"]
        metafunc.parametrize(
            names, [(kind,) * len(names) for kind in kinds], indirect=True, ids=kinds
        )


@pytest.fixture(scope="session")
def brokers(request: pytest.FixtureRequest) -> str:
    """The address of a broker that all tests share."""
    given: str | None = request.config.getoption("brokers")
    if given:
        return given
    if _kind(request) == "apache":
        return str(request.getfixturevalue("apache_kafka").address)
    return str(request.getfixturevalue("embedded_broker").address)


@pytest.fixture(scope="session")
def embedded_broker(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedBroker]:
    """The embedded broker that all tests share."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker"), free_port()) as broker:
        pytestconfig.stash[SHARED] = broker
        yield broker


SHARED = pytest.StashKey[EmbeddedBroker]()
LARGE = 2_000_000
"""Bytes of the shared broker's file from which on its topics are deleted after a test."""


@pytest.fixture(autouse=True)
def _no_topics_of_earlier_tests(pytestconfig: pytest.Config) -> Iterator[None]:
    """Keep the shared broker small.

    It writes all that it holds to its file a second after each change: of 50 MB, which some tests
    leave behind, that takes a third of a core for as long as others use it.
    """
    yield
    broker = pytestconfig.stash.get(SHARED, None)
    file = broker and broker.folder / "kafka.json"
    if broker and file and file.exists() and file.stat().st_size > LARGE:
        settings = Settings(_env_file=None, brokers=broker.address)
        ours = [name for name in kafka.metadata(settings).topics if not name.startswith("__")]
        if ours:  # after a deletion, the file stays large for a second
            topics.delete(settings, ours)


@pytest.fixture(autouse=True)
def _no_watch_of_earlier_tests() -> Iterator[None]:
    """End the watches of flows that were built but never ran.

    At the end of all tests, each would say that the shared broker gives no answer.
    """
    before = len(health._started)
    yield
    for check in health._started[before:]:
        check.end()


@pytest.fixture(scope="session")
def apache_kafka(
    kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApacheKafka]:
    """The Apache Kafka, with TLS and passwords, that all tests share."""
    folder = tmp_path_factory.mktemp("kafka")
    with ApacheKafka(folder, jars=kafka_jars, secure=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_jars(request: pytest.FixtureRequest) -> Path:
    """What Apache Kafka consists of; without it, the tests that need it are skipped."""
    if request.config.getoption("brokers"):
        pytest.skip("needs a broker that the tests start: not with --brokers")
    try:
        return jars()
    except Unavailable as reason:
        pytest.skip(f"{reason}.")


class PausableBroker(EmbeddedBroker):
    """The embedded broker with what the tests do to Apache Kafka."""

    def pause(self) -> None:
        """Let the broker hang, its connections open."""
        os.kill(self.pid, signal.SIGSTOP)
        await_stopped(self.pid)

    def resume(self) -> None:
        """Let the broker go on."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_until_kept(self, *topics: str) -> None:
        """Wait until what it acknowledged of these topics outlives a kill.

        It writes all that it has to one file, a second after a change or later: the more it holds
        and the busier the machine, the later.
        """
        settings = Settings(_env_file=None, brokers=self.address)
        deadline = time.monotonic() + 120
        for topic in topics:
            wanted = kafka.end_offsets(settings, topic)
            while self._kept(topic) != wanted:
                assert time.monotonic() < deadline, "the broker does not write to its file"
                time.sleep(0.1)

    def _kept(self, topic: str) -> dict[int, int] | None:
        file = self.folder / "kafka.json"
        if not file.exists():
            return None
        kept = dict(msgspec.json.decode(file.read_bytes(), type=_Kept).topics).get(topic)
        return kept and {partition: it.high_watermark for partition, it in kept.partitions}


class _Partition(msgspec.Struct):
    high_watermark: int


class _Topic(msgspec.Struct):
    partitions: list[tuple[int, _Partition]]


class _Kept(msgspec.Struct):
    """What is read of the embedded broker's file."""

    topics: list[tuple[str, _Topic]]


@pytest.fixture
def own_broker(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[PausableBroker | ApacheKafka]:
    """A broker that no other test uses: to kill, pause and start again."""
    if request.config.getoption("brokers"):
        pytest.skip("needs a broker that the tests start: not with --brokers")
    broker: PausableBroker | ApacheKafka
    if _kind(request) == "apache":
        broker = ApacheKafka(tmp_path / "kafka", jars=request.getfixturevalue("kafka_jars"))
    else:
        broker = PausableBroker(tmp_path / "broker", free_port())
    broker.start()
    yield broker
    # It may hang, or be gone already.
    broker.kill()


def _kind(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "embedded")


_count = itertools.count()


@pytest.fixture
def topic() -> str:
    """A topic's name that no other test, or run of the tests, uses."""
    return f"test-{os.getpid()}-{next(_count)}"


class Flow:
    """Runs the flow in a process of its own, with settings of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def __call__(
        self, *arguments: str, timeout: float = 240, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bytewax.run", "dataflow.flow", *arguments],
            cwd=self.folder,
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        """Start it in the background; what still runs when the test ends is killed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", "dataflow.flow", *arguments],
            cwd=self.folder,
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process


def environment(bytewax: dict[str, str] | None = None, **settings: object) -> dict[str, str]:
    """The environment of a process that has these settings, and Bytewax's, and no others."""
    own = {PREFIX + name.upper(): str(value) for name, value in settings.items()}
    return {**os.environ, **own, **(bytewax or {})}


@pytest.fixture
def needs_bytewax() -> None:
    """Skip a test that starts a flow in another process where there is no Bytewax."""
    import bytewax  # noqa: F401


@pytest.fixture
def run_flow(tmp_path: Path, needs_bytewax: None) -> Iterator[Flow]:
    flow = Flow(tmp_path)
    yield flow
    for process in flow.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty recovery store for three workers."""
    folder = tmp_path / "store"
    initialize(folder, 3)
    return folder


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    from faults import Tally

    return Tally(record_property)


@pytest.fixture
def run_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m dataflow ...` in a process of its own."""

    def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dataflow", *arguments],
            cwd=tmp_path,
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def singly(decode: Decode) -> Callable[[Raw], Reading | Rejected]:
    """Return the function that decodes one record which holds one reading."""

    def read(raw: Raw) -> Reading | Rejected:
        (record,) = decode([raw])
        return record

    return read


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def await_handlers(flow: subprocess.Popen[str]) -> None:
    """Wait until a flow that was started catches SIGTERM: before, it would just die of it."""
    deadline = time.monotonic() + 120
    status = Path(f"/proc/{flow.pid}/status")
    while True:
        caught = int(status.read_text().split("SigCgt:")[1].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        assert flow.poll() is None, flow.communicate()
        assert time.monotonic() < deadline, "the flow does not begin"
        time.sleep(0.05)


def await_ready(flow: subprocess.Popen[str], port: int) -> None:
    """Wait until a flow that serves its figures on a port has opened its input."""
    deadline = time.monotonic() + 120
    while True:
        url = f"http://127.0.0.1:{port}/readyz"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert flow.poll() is None, flow.communicate()
        assert time.monotonic() < deadline, "the flow does not begin"
        time.sleep(0.05)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_topic(brokers: str, topic: str) -> list[tuple[str | None, dict[str, Any]]]:
    """All that a topic holds: keys and values."""
    settings = Settings(_env_file=None, brokers=brokers)
    return [
        (key.decode() if (key := message.key()) else None, json.loads(message.value() or b"null"))
        for message in kafka.read_from(settings, topic, {})
    ]


def fill_topic(
    brokers: str,
    topic: str,
    records: Iterable[tuple[str | None, bytes | None]],
    partitions: int = 3,
) -> None:
    """Make a topic and write keyed records to it."""
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], partitions)
    producer = kafka.producer(settings)
    for number, (key, value) in enumerate(records, start=1):
        producer.produce(topic, value, key)
        if number % 50_000 == 0:  # its queue holds twice as many
            assert producer.flush(60) == 0
    assert producer.flush(60) == 0
