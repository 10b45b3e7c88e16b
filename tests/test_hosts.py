from __future__ import annotations

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.dashboard.hosts import Hosts
from dataflow.errors import UserError

HERE = "127.0.0.1"
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,3}", fullmatch=True)
PORTS = st.integers(1, 65_535)


def wrong(
    hosts: Hosts, host: str | None, origin: str | None = None, local: str = HERE
) -> str | None:
    return hosts.wrong(host, origin, local)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_is_known_by_its_names_and_with_the_port(host: str) -> None:
    hosts = Hosts(host, 5006)
    for name in ("localhost", "127.0.0.1", "[::1]", "LocalHost", "localhost."):
        assert wrong(hosts, f"{name}:5006") is None
        assert wrong(hosts, f"{name}:5006", f"http://{name}:5006") is None
        assert wrong(hosts, f"{name}:5007") is not None
        assert wrong(hosts, name) is not None
    assert wrong(Hosts(host, 80), "localhost", "http://localhost") is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:5006", "localhost.evil.example:5006", "127.0.0.1.nip.io"),
        *("localhost:5006@evil.example", "evil.example#localhost:5006", "[::2]:5006"),
        *("", None, ":5006", "localhost:", "localhost:x", "localhost:5006/x", "local host:5006"),
        *("http://localhost:5006", "localhost:5006, evil.example", "10.0.0.7:5006"),
        *("0.0.0.0:5006", "2130706433:5006"),
    ],
)
def test_other_names_are_not(host: str | None) -> None:
    hosts = Hosts("127.0.0.1", 5006, ["metrics.example.org"])
    assert wrong(hosts, host) is not None
    # Nor if a page of that very name asks.
    assert wrong(hosts, host, f"http://{host}") is not None
    assert wrong(hosts, host, "http://localhost:5006") is not None


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://localhost:5006", "http://localhost", "null", "", "file://"],
)
def test_a_page_of_another_origin_is_not(origin: str) -> None:
    hosts = Hosts("127.0.0.1", 5006)
    # The scheme makes no difference where the port is the same: only http is served at it.
    assert (wrong(hosts, "localhost:5006", origin) is None) == (origin == "https://localhost:5006")


@given(
    NAMES, PORTS, st.sampled_from(["", "http://", "https://"]), st.sampled_from(["", "/", "/a/"])
)
@example("metrics.example.org", 443, "https://", "/")
@example("metrics.example.org", 80, "http://", "")
def test_an_origin_with_a_port(name: str, port: int, scheme: str, path: str) -> None:
    hosts = Hosts(HERE, 5006, [f"{scheme}{name.upper()}:{port}{path}"])
    usual = scheme or ("https://" if port == 443 else "http://")
    shown = "" if port in (80, 443) else f":{port}"
    if not (scheme and {"http://": 80, "https://": 443}[scheme] != port and not shown):
        assert wrong(hosts, f"{name}{shown}", f"{usual}{name}{shown}") is None
    assert wrong(hosts, f"{name}:{port}", f"{usual}{name}:{port}") is None
    assert wrong(hosts, f"{name}:{port % 65_535 + 1}") is not None
    # The proxy may pass on the name alone, or ask us by our address.
    for passed in (name, "127.0.0.1:5006"):
        assert wrong(hosts, passed, f"{usual}{name}:{port}") is None
        assert wrong(hosts, passed, f"{usual}x{name}:{port}") == f"{usual}x{name}:{port}"


@given(NAMES)
def test_an_origin_without_a_port_is_what_browsers_show_without(name: str) -> None:
    hosts = Hosts(HERE, 5006, [name])
    for scheme, port in (("http", 80), ("https", 443)):
        assert wrong(hosts, name, f"{scheme}://{name}") is None
        assert wrong(hosts, f"{name}:{port}", f"{scheme}://{name}:{port}") is None
    assert wrong(Hosts(HERE, 5006, [f"https://{name}"]), name, f"http://{name}") is not None


def test_several_origins_and_names_beyond_ascii() -> None:
    hosts = Hosts(HERE, 5006, ["a.example, b.example:81", "[fe80::7]:82", "bücher.example", "::7"])
    for host in ("a.example", "b.example:81", "[fe80::7]:82", "xn--bcher-kva.example", "[::7]"):
        assert wrong(hosts, host, f"http://{host}") is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "*:5006", "https://", "http://:80", "ftp://a.example", "a.example:http", "a b"),
        *("a.example:99999", "a.example:0", "user@a.example", "https://a.example/?x=1", "a..b"),
        *("https://*.example.org", "a.\nexample", "a.example:", "://a.example", "[::1"),
        *("a.example,", "/"),
    ],
)
def test_what_is_no_origin_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--origin") as refused:
        Hosts(HERE, 5006, [text])
    assert "give a name such as metrics.example.org, metrics.example.org:8443" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_addresses_are_those_at_which_requests_arrive(host: str) -> None:
    hosts = Hosts(host, 5006)
    assert wrong(hosts, "10.0.0.7:5006", "http://10.0.0.7:5006", local="10.0.0.7") is None
    assert wrong(hosts, "10.0.0.7:5006", "http://10.0.0.7:5006", local="10.0.0.8") is not None
    assert wrong(hosts, "[fd00::7]:5006", None, local="fd00::7") is None
    assert wrong(hosts, "evil.example:5006", "http://evil.example:5006", "10.0.0.7") is not None
    assert wrong(hosts, f"{socket.gethostname()}:5006") is None
    assert wrong(hosts, "localhost:5006") is None


def test_one_address_is_that_address() -> None:
    hosts = Hosts("10.0.0.7", 5006)
    assert wrong(hosts, "10.0.0.7:5006", "http://10.0.0.7:5006", "10.0.0.7") is None
    assert wrong(hosts, "localhost:5006", None, "10.0.0.7") is not None


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_is_an_error(host: str, origin: str) -> None:
    said = wrong(Hosts(HERE, 5006), host, origin)
    assert said is not None or host.lower().startswith(("localhost", "127.0.0.1", "[::1]"))
    assert said is None or (said.isascii() and said.isprintable() and len(said) < 300)
