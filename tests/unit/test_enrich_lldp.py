from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rsttrace import programs
from rsttrace.enrich import lldp as module
from rsttrace.enrich.lldp import Lldp, read_neighbors
from rsttrace.model import SwitchPort
from rsttrace.programs import Found

OWN = os.stat("/proc/self/ns/net").st_ino
LOOK = programs.look


def interface(name: object = "eth0", **more: Any) -> dict[str, Any]:
    """One neighbour as lldpcli 1.0.16 writes it (its answer in a lab, shortened)."""
    made: dict[str, Any] = {
        "name": name,
        "via": "LLDP",
        "chassis": [{"id": [{"type": "mac", "value": "0e:6f:88:fb:84:4d"}],
                     "name": [{"value": "sw1"}]}],
        "port": [{"id": [{"type": "local", "value": "Gi1/0/7"}], "descr": [{"value": "rack 4"}]}],
    }  # fmt: skip
    return {**made, **more}


def answer(*interfaces: object) -> bytes:
    return json.dumps({"lldp": [{"interface": list(interfaces)}]}).encode()


def test_what_lldpcli_writes() -> None:
    found = read_neighbors(answer(interface(), interface("eth1", port=[], chassis=[{}])))
    assert found == {"eth0": [SwitchPort("eth0", "sw1", "0e:6f:88:fb:84:4d", "Gi1/0/7", "rack 4")]}


def test_a_device_without_a_name() -> None:
    found = read_neighbors(answer(interface(chassis=[{"id": [{"value": "x" * 9000}]}])))
    (port,) = found["eth0"]
    assert (port.name, port.id) == (None, "x" * 512)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"7", b"null", b"[" * 100_000, b'{"lldp": 5}', b'{"lldp": [5, null]}',
        b'{"lldp": [{}]}', b'{"lldp": [{"interface": {"eth0": {}}}]}', b"\xff\xfe",
        answer(5, None, [], {}), answer(interface(5)), answer(interface(chassis=5, port=None)),
        answer(interface(chassis=[{"name": [5, {"value": 7}, {"value": ""}], "id": "x"}])),
    ],
)  # fmt: skip
def test_nonsense_is_nothing(text: bytes) -> None:
    assert read_neighbors(text) == {}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An lldpcli that counts its calls; an lldpd runs here."""
    (tmp_path / "answer").write_bytes(answer(interface(), interface("eth1"), interface("eth1")))
    program = tmp_path / "lldpcli"
    program.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/calls\ncat {tmp_path}/answer\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "look", lambda name, **_: Found(str(program)))
    monkeypatch.setattr(module, "_daemons", lambda: {OWN})
    return tmp_path


def test_asked_once(command: Path) -> None:
    lldp = Lldp()
    for _ in range(3):
        port = lldp.port(OWN, "eth0")
        assert port is not None
        assert port.port == "Gi1/0/7"
        assert lldp.port(OWN, "eth2") is None
    assert (command / "calls").read_text() == "-f json0 show neighbors\n"


def test_several_devices_on_one_cable_are_none(command: Path) -> None:
    assert Lldp().port(OWN, "eth1") is None


def test_other_namespaces_have_other_interfaces(
    command: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Lldp().port(OWN + 1, "eth0") is None
    monkeypatch.setattr(module, "_daemons", lambda: {OWN + 1})
    assert Lldp().port(OWN, "eth0") is None
    assert (command / "calls").read_text().count("\n") == 1


def test_not_installed(command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "look", lambda name, **_: Found(None))
    assert Lldp().port(OWN, "eth0") is None


def test_the_path_names_no_program_for_us(command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's folder comes first in $PATH: what lies there is not run as root."""
    monkeypatch.setattr(programs, "look", LOOK)
    monkeypatch.setenv("PATH", str(command), prepend=os.pathsep)
    Lldp().load()
    assert not (command / "calls").exists()


@pytest.mark.parametrize("script", ["exit 1", "sleep 60", "kill $$"])
def test_a_command_that_fails(script: str, command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is killed at its time limit."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    (command / "lldpcli").write_text(
        f"#!/bin/sh\ncat {command}/answer\nexec {script}\n".replace("exec exit", "exit").replace(
            "exec kill", "kill"
        )
    )
    assert Lldp().port(OWN, "eth0") is None
