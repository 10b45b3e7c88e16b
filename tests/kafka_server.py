"""Apache Kafka for tests: one node that is both broker and controller, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from kafka_jars import program

from dataflow import kafka
from dataflow.demo.broker import listening
from dataflow.errors import UserError
from dataflow.settings import Settings

START_SECONDS = 120.0
STOP_SECONDS = 30.0

# One node allows one replica only; one partition and a short session start faster. What can be
# compacted is compacted at once.
SERVER = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=\
PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,\
REFUSED:PLAINTEXT,UNKNOWN:PLAINTEXT
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.backoff.ms=100
"""


class ApacheKafka:
    """A broker in a folder, for the duration of a `with`; it can be stopped and started again.

    `secure` adds TLS at `tls_address`, and TLS with a password at `sasl_address`: SCRAM-SHA-512 or
    PLAIN, for `user` and `password`. Clients must trust `ca_file`. The user `limited` has the same
    password, and the rights that a test grants it; everybody else may do anything. A client that
    starts at an address of `astray` is sent to one that does not answer. `config` has lines for
    `server.properties`, which come last.
    """

    user = "reader"
    limited = "limited"
    password = "the-readers-password"
    advertised: ClassVar = {"REFUSED": "127.0.0.1:1", "UNKNOWN": "no-such-host.invalid:9092"}

    def __init__(self, folder: Path, *, jars: Path, secure: bool = False, config: str = "") -> None:
        self.folder = folder
        self.jars = jars
        self.secure = secure
        self.config = config
        listeners = ["PLAINTEXT", "CONTROLLER"]
        if secure:
            listeners += ["SSL", "SASL_SSL", *self.advertised]
        self.ports = dict(zip(listeners, free_ports(len(listeners)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['PLAINTEXT']}"

    @property
    def tls_address(self) -> str:
        return f"127.0.0.1:{self.ports['SSL']}"

    @property
    def sasl_address(self) -> str:
        return f"127.0.0.1:{self.ports['SASL_SSL']}"

    @property
    def astray(self) -> dict[str, str]:
        """Addresses that answer, by the addresses that they send a client to."""
        return {wrong: f"127.0.0.1:{self.ports[name]}" for name, wrong in self.advertised.items()}

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the broker on the data in the folder, and wait until it answers."""
        if not (self.folder / "data").exists():
            self._prepare()
        # If the tests are killed, the kernel kills the broker.
        guard = shutil.which("setpriv")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *([guard, "--pdeathsig", "KILL"] if guard else []),
                    *self._java("kafka.Kafka"),
                    str(self.folder / "server.properties"),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the broker as an operator would."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the broker, as a crash would."""
        process = self._running()
        process.kill()
        process.wait()

    def pause(self) -> None:
        """Make the broker hang with open connections."""
        self._running().send_signal(signal.SIGSTOP)
        await_stopped(self.pid)

    def resume(self) -> None:
        """Resume the broker."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the broker was not started")
        return self._process

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        settings = Settings(_env_file=None, brokers=self.address)
        while True:
            if self._running().poll() is not None:
                raise RuntimeError(f"Apache Kafka ended at once; {self.log} ends:\n{self._tail()}")
            try:
                # It listens before it answers, and librdkafka waits longer after each attempt.
                if listening(self.ports["PLAINTEXT"]):
                    kafka.metadata(settings)
                    return
            except UserError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"Apache Kafka does not answer; {self.log}:\n{self._tail()}")
            time.sleep(0.05)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def _java(self, main: str) -> list[str]:
        return [
            *(program("java"), "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *("-cp", f"{self.jars}/*", main),
        ]

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = SERVER
        users = []
        if self.secure:
            keys = self.folder / "keys.p12"
            make_certificate(keys, self.ca_file, self.password)
            module = "org.apache.kafka.common.security"
            config += (
                f"ssl.keystore.type=PKCS12\nssl.keystore.location={keys}\n"
                f"ssl.keystore.password={self.password}\n"
                "sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN\n"
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
                f"{module}.scram.ScramLoginModule required;\n"
                "listener.name.sasl_ssl.plain.sasl.jaas.config="
                f"{module}.plain.PlainLoginModule required "
                f'user_{self.user}="{self.password}" user_{self.limited}="{self.password}";\n'
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
                f"super.users=User:ANONYMOUS;User:{self.user}\n"
                "advertised.listeners="
                + ",".join(
                    f"{name}://{self.advertised.get(name, f'127.0.0.1:{port}')}"
                    for name, port in self.ports.items()
                    if name != "CONTROLLER"
                )
                + "\n"
            )
            users = ["--add-scram", f"SCRAM-SHA-512=[name={self.user},password={self.password}]"]
        config += "listeners=" + ",".join(
            f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()
        )
        config += f"\ncontroller.quorum.voters=1@127.0.0.1:{self.ports['CONTROLLER']}\n"
        config += self.config
        if users:
            self._format(self.folder, config, users)
        else:
            # The same for all: it takes as long as a start, so it is done once and kept.
            formatted = self.jars.with_name(f"{self.jars.name}-formatted")
            if not formatted.is_dir():
                with tempfile.TemporaryDirectory(dir=self.jars.parent) as name:
                    self._format(Path(name), config, users)
                    # Tests beside these may have been first.
                    with contextlib.suppress(OSError):
                        (Path(name) / "data").rename(formatted)
            shutil.copytree(formatted, self.folder / "data")
        self._write(self.folder, config)

    def _write(self, folder: Path, config: str) -> str:
        """Write the properties of a broker whose data is in a folder; return their path."""
        path = folder / "server.properties"
        path.write_text(f"{config}log.dirs={folder / 'data'}\n")
        return str(path)

    def _format(self, folder: Path, config: str, users: list[str]) -> None:
        """Create an empty data folder."""
        _run(
            *self._java("kafka.tools.StorageTool"),
            *("format", "--config", self._write(folder, config)),
            *("--cluster-id", "dGVzdHMtb2Yta2Fma2EtNA", *users),
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running().poll() is None:
            # A paused broker ignores SIGTERM.
            self.resume()
            self.stop()


def make_certificate(keys: Path, ca_file: Path, password: str) -> None:
    """Create a key with a self-signed certificate for 127.0.0.1, valid for a day."""
    store = ["-keystore", str(keys), "-storetype", "PKCS12", "-storepass", password]
    keytool = program("keytool")
    _run(
        *(keytool, "-genkeypair", *store, "-alias", "broker", "-keyalg", "EC", "-validity", "1"),
        *("-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-ext", "bc:c=ca:true"),
    )
    _run(keytool, "-exportcert", *store, "-alias", "broker", "-rfc", "-file", str(ca_file))


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")


def free_ports(count: int) -> list[int]:
    """Return free ports that the system does not give to outgoing connections meanwhile.

    A program may take seconds until it listens. Ports of outgoing connections start at 32768.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().randrange(20_000, 32_000)
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    return found


def await_stopped(pid: int) -> None:
    """Wait until every thread of a process is stopped; on a busy machine this takes a while."""
    while any(
        (task / "stat").read_text().rpartition(")")[2].split()[0] != "T"
        for task in Path(f"/proc/{pid}/task").iterdir()
    ):
        time.sleep(0.01)
