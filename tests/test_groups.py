"""Which group an instance is in, and what the records of the flow say of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import UserError
from dataflow.groups import Groups
from dataflow.settings import load

names = st.text("ab-/1é ", max_size=6)


@given(st.dictionaries(st.sampled_from(["zone", "asg", "team"]), names), names)
def test_every_label_is_needed(labels: dict[str, str], instance: str) -> None:
    found = Groups(("/cloud/zone", "asg")).of(instance, labels)
    zone, asg = labels.get("zone"), labels.get("asg")
    assert found == (f"{zone}/{asg}" if zone and asg else None)


@pytest.mark.parametrize(
    ("pattern", "instance", "group"),
    [
        ("^(web|db)-", "web-17", "web"),
        ("^(web|db)-", "cache-1", None),
        ("^(web|db)-", "my-web-1", None),
        (r"(\w+)-\d+\.(?P<group>[a-z]+)", "web-17.eu", "eu"),
        ("^([a-z]*)", "17", None),
        ("^web-(a)?", "web-1", None),
    ],
)
def test_the_group_is_a_part_of_the_name(pattern: str, instance: str, group: str | None) -> None:
    assert Groups(pattern=pattern).of(instance, {"zone": "eu"}) == group


def test_by_default_nothing_is_in_a_group() -> None:
    groups = load().groups
    assert not groups
    assert groups.of("web-1", {"zone": "eu"}) is None


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ({"group_pattern": "^(web"}, "ANOMALY_GROUP_PATTERN is not a regular expression"),
        ({"group_pattern": "^web"}, "must have the group in parentheses"),
        ({"group_pattern": "^(a)", "group_fields": "zone"}, "set one of them"),
        ({"group_fields": "zone, /a/zone"}, "ANOMALY_GROUP_FIELDS gives two labels the same name"),
        ({"group_fields": "zone", "label_fields": "/a/zone"}, "give two labels the same name"),
    ],
)
def test_what_cannot_be_is_refused(setting: dict[str, str], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong) as refusal:
        load(**setting)
    assert "\n" not in str(refusal.value)


def row(host: str, at: int, value: float, **labels: str) -> bytes:
    time = 1_741_449_600 + 300 * at
    return json.dumps(
        {"instance": host, "timestamp": time, "index": at, "value": value, **labels}
    ).encode()


@pytest.mark.parametrize(
    ("setting", "groups"),
    [
        ({"group_fields": "zone"}, {"web-1": "eu-1a", "db-1": "eu-1b", "cache": None}),
        ({"group_pattern": "^(web|db)-"}, {"web-1": "web", "db-1": "db", "cache": None}),
        ({}, dict.fromkeys(("web-1", "db-1", "cache"))),
    ],
)
def test_anomalies_and_incidents_name_the_group(
    setting: dict[str, str], groups: dict[str, str | None]
) -> None:
    from test_several_metrics import flow

    zones = {"web-1": {"zone": "eu-1a"}, "db-1": {"zone": "eu-1b"}, "cache": {}}
    values = [
        row(host, at, 95.0 if at == 30 else 20.0 + at % 7, **zones[host])
        for at in range(60)
        for host in zones
    ]
    found, incidents = flow(values, format="json", incidents=True, **setting)
    assert {one.instance: one.group for one in found} == groups
    assert {one.instance: one.group for one in incidents} == groups
    assert {one.state for one in incidents} == {"opened", "resolved"}
    carried = zones if "group_fields" in setting else {host: {} for host in zones}
    assert all(one.labels == carried[one.instance] for one in [*found, *incidents])
