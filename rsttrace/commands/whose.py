"""Whose resets are wanted: by process, unit, container, pod and Kubernetes namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsttrace.errors import UsageError
from rsttrace.model import Reset

SHORTEST_ID = 4
"""Characters of a container's ID that name it."""

COMM_MOST = 15
"""Bytes of a process's name that the kernel keeps (TASK_COMM_LEN - 1, include/linux/sched.h)."""


@dataclass(frozen=True)
class Whose:
    """Of each kind any of those given; of all kinds that are given one each. Empty: everybody's.

    It is found out after the kernel has told: what is not known of a reset matches nothing.
    """

    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()

    def __call__(self, reset: Reset) -> bool:
        """Whether a reset is of these."""
        process, container, pod = reset.process, reset.container, reset.pod
        if self.pids and (process is None or process.pid not in self.pids):
            return False
        if self.comms and (process is None or process.comm not in self.comms):
            return False
        if self.units and reset.unit not in self.units:
            return False
        if self.containers and (
            container is None
            or not any(
                container.name == name
                or (len(name) >= SHORTEST_ID and container.id.startswith(name))
                for name in self.containers
            )
        ):
            return False
        if self.pods and (pod is None or not {pod.name, pod.uid} & set(self.pods)):
            return False
        return not self.namespaces or (pod is not None and pod.namespace in self.namespaces)


_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")


def unit_name(name: str) -> str:
    """A unit's whole name: a service's, unless it says otherwise (as systemctl(1) takes it)."""
    return name if name.endswith(_SUFFIXES) else f"{name}.service"


EVERYBODY = Whose()


def whose(options: Mapping[str, Any]) -> Whose:
    """Whose resets the options ask for.

    Raises:
        UsageError: one is empty.
    """
    for name in ("comm", "unit", "container", "pod", "namespace"):
        if "" in options[name]:
            raise UsageError(f"--{name} '' names nothing")
    return Whose(
        options["pid"],
        tuple(name.encode()[:COMM_MOST].decode("utf-8", "replace") for name in options["comm"]),
        tuple(map(unit_name, options["unit"])),
        options["container"],
        options["pod"],
        options["namespace"],
    )
