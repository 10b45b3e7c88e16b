"""The jars of Apache Kafka, fetched from Maven Central once into a folder of the user's cache.

A Java of 17 or later is needed to run them, and Maven to fetch them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

KAFKA_VERSION = "4.4.0"
JAVA_VERSION = 17
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
# Within pytest's own limit for a test; what Maven has by then, it keeps for the next run.
DOWNLOAD_SECONDS = 240

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
      <exclusions>
        <!-- Named by the server's pom and not on Maven Central; only command-line tools use it. -->
        <exclusion>
          <groupId>org.apache.kafka</groupId>
          <artifactId>kafka-tools-api</artifactId>
        </exclusion>
      </exclusions>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


class Unavailable(Exception):  # noqa: N818  it is not a fault of the tests
    """Why Apache Kafka cannot run here, in a sentence."""


def jars() -> Path:
    """The folder of the server's jars, fetched by Maven if it is not there yet."""
    _check_java()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "ec2-anomaly-dataflow"
    folder = cache / f"kafka-{KAFKA_VERSION}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(
            f"Apache Kafka is not in {folder}, and mvn, which fetches it, is not on PATH"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as name:
        download = Path(name)
        (download / "pom.xml").write_text(POM)
        command = [
            *(maven, "--batch-mode", "--quiet", f"{PLUGIN}:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={download / 'jars'}"),
        ]
        try:
            subprocess.run(
                command,
                cwd=download,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=DOWNLOAD_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"Apache Kafka was not fetched within {DOWNLOAD_SECONDS} s: try again, and Maven "
                "continues"
            ) from None
        except subprocess.CalledProcessError as failed:
            wrong = re.search(r"\[ERROR\] (.*?)(?: -> \[Help 1\])?$", failed.stdout, re.MULTILINE)
            raise Unavailable(
                f"Apache Kafka was not fetched: {wrong[1] if wrong else failed}"
            ) from None
        # Only a whole download gets the name; a run beside this one may have been first.
        try:
            (download / "jars").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _check_java() -> None:
    java = program("java")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_VERSION:
        is_there = said.splitlines()[0] if said else "of no version"
        raise Unavailable(f"Apache Kafka needs Java {JAVA_VERSION} or later: {java} is {is_there}")


def program(name: str) -> str:
    """The path of `java`, or of another program that comes with it."""
    home = os.environ.get("JAVA_HOME")
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=f"{home}/bin{os.pathsep}{path}" if home else path)
    if found is None:
        raise Unavailable(f"Apache Kafka needs Java {JAVA_VERSION} or later: {name} is not on PATH")
    return found
