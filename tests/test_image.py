"""`Dockerfile` and `.dockerignore`: read, since there may be no container engine here."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pytest
from conftest import REPOSITORY
from test_compose import SERVICES, STORE, dataflow_options, flow_options


def instructions() -> list[tuple[str, str]]:
    """The lines of the Dockerfile: instruction and the rest."""
    text = (REPOSITORY / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, rest.strip())
        for line in text.splitlines()
        if line.strip()
        for word, _, rest in [line.partition(" ")]
    ]


DOCKERFILE = instructions()


def rest_of(instruction: str) -> list[str]:
    return [rest for word, rest in DOCKERFILE if word == instruction]


def copied() -> list[str]:
    """What the Dockerfile takes from the repository."""
    return [
        source
        for rest in rest_of("COPY")
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]


def test_the_base_image_is_pinned_to_a_python_that_the_package_takes() -> None:
    bases = {rest.split()[0] for rest in rest_of("FROM")}
    assert len(bases) == 1  # the wheel is built by the Python that runs it
    found = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", bases.pop())
    assert found is not None
    assert int(found[1]) in (11, 12)


def ignored(path: PurePosixPath) -> bool:
    """Whether .dockerignore keeps a file from the build: the last pattern that fits it decides."""
    excluded = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if pattern.startswith("**/"):
            fits = any(fnmatchcase(part, pattern[3:]) for part in path.parts)
        else:
            assert "/" not in pattern
            fits = fnmatchcase(path.parts[0], pattern)
        if fits:
            excluded = line == pattern
    return excluded


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_is_not_ignored(source: str) -> None:
    path = REPOSITORY / source
    assert path.exists()
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    files = [p.relative_to(REPOSITORY) for p in files if "__pycache__" not in p.parts]
    assert files
    assert not [p for p in files if ignored(PurePosixPath(p))]


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".venv/bin/python", "dataflow/__pycache__/flow.pyc", "tests/a"]
)
def test_what_is_not_needed_or_secret_is_ignored(path: str) -> None:
    assert ignored(PurePosixPath(path))


def test_the_build_has_what_the_wheel_is_made_of() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [project["project"]["readme"], *project["project"]["license-files"]]
    assert {"pyproject.toml", *wheel, *files} <= set(copied())


def test_labels_say_what_the_package_says() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    labels = dict(word.split("=", 1) for label in rest_of("LABEL") for word in shlex.split(label))
    assert labels == {
        "org.opencontainers.image.title": project["name"],
        "org.opencontainers.image.description": project["description"],
        "org.opencontainers.image.licenses": project["license"],
    }


def test_the_image_runs_the_flow_as_a_user_who_owns_the_store() -> None:
    last = max(number for number, (word, _) in enumerate(DOCKERFILE) if word == "FROM")
    (user,) = rest_of("USER")
    made = " ".join(rest for word, rest in DOCKERFILE[last:] if word == "RUN")
    assert user not in ("root", "0")
    assert f"--no-create-home --shell /usr/sbin/nologin {user} " in made
    assert f"--mode=700 --owner={user} --group={user} {STORE}" in made
    (command,) = rest_of("CMD")
    assert flow_options(json.loads(command)).import_str == "dataflow.flow"


def test_the_image_has_what_the_settings_and_commands_of_a_server_ask_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (installed,) = re.findall(r'"\$wheel\[(.*)\]"', " ".join(rest_of("RUN")))
    extras = project["optional-dependencies"]
    # The rest is for a machine with a person at it, or for tests.
    left_out = {"bench", "broker", "dev", "evaluate", "lint", "notebook", "plot", "test"}
    assert {*installed.split(",")} == extras.keys() - left_out
    pinned = {
        re.split(r"[=;\s]", line)[0]
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for extra in installed.split(","):
        for requirement in extras[extra]:
            assert re.split(r"[<>=\s]", requirement)[0] in pinned, requirement


def test_the_image_has_the_sample_where_it_is_looked_for() -> None:
    assert "data data" in rest_of("COPY")
    assert dataflow_options("load", "produce")["file"].parent == Path("data")


def test_the_image_is_stopped_as_the_service_is() -> None:
    assert rest_of("STOPSIGNAL") == [SERVICES["flow"]["stop_signal"]]
