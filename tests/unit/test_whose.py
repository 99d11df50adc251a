"""Filters by whose a reset is."""

from __future__ import annotations

import pytest

from rsttrace.commands.whose import Whose, whose
from rsttrace.errors import UsageError
from rsttrace.model import Container, Pod, Process
from tests.unit.test_render_samples import PEER, with_reset

ID = "0123456789abcdef" * 4
OURS = with_reset(
    PEER,
    process=Process(7, "nginx", 33),
    container=Container(ID, "web"),
    pod=Pod("shop", "web-0", "0f0e"),
    unit="nginx.service",
).reset
UNKNOWN = with_reset(PEER, process=None, container=None, pod=None).reset


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Whose(), True),
        (Whose(pids=(7,)), True),
        (Whose(pids=(8, 7)), True),
        (Whose(pids=(8,)), False),
        (Whose(comms=("nginx",)), True),
        (Whose(comms=("ngin",)), False),
        (Whose(units=("nginx.service",)), True),
        (Whose(units=("nginx.socket",)), False),
        (Whose(containers=("web",)), True),
        (Whose(containers=(ID,)), True),
        (Whose(containers=(ID[:12],)), True),
        (Whose(containers=(ID[:3],)), False),
        (Whose(containers=(ID[4:12],)), False),
        (Whose(pods=("web-0",)), True),
        (Whose(pods=("0f0e",)), True),
        (Whose(pods=("web",)), False),
        (Whose(namespaces=("shop",)), True),
        (Whose(namespaces=("kube-system",)), False),
        (Whose(pids=(7,), namespaces=("shop",)), True),
        (Whose(pids=(7,), namespaces=("kube-system",)), False),
    ],
)
def test_whose_a_reset_is(asked: Whose, expected: bool) -> None:
    assert asked(OURS) is expected
    assert asked(UNKNOWN) is (asked == Whose())


@pytest.mark.parametrize(
    ("asked", "name"),
    [("nginx", "nginx.service"), ("a.b", "a.b.service"), ("session-3.scope", "session-3.scope")],
)
def test_a_unit_is_a_service_unless_it_says_otherwise(asked: str, name: str) -> None:
    given = {"pid": (), "comm": (), "unit": (asked,), "container": (), "pod": (), "namespace": ()}
    assert whose(given).units == (name,)


def test_a_long_name_is_cut_as_the_kernel_cuts_it() -> None:
    given = {"pid": (), "comm": ("a-very-long-program-name",)}
    given |= {"unit": (), "container": (), "pod": ()}
    assert whose({**given, "namespace": ()}).comms == ("a-very-long-pro",)
    with pytest.raises(UsageError, match="--namespace"):
        whose({**given, "namespace": ("",)})
