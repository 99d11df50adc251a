"""The one list of kernels that rsttrace is proven on: Debian's releases, as shipped."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROVISION = Path(__file__).resolve().parents[2] / "vagrant/provision.sh"
"""Prepares a machine for the lab tests, a guest of QEMU's or of Vagrant's."""

GUEST_ONLY = ("mount", "busybox-static")
"""What a guest needs beside that, for it has no system around it."""


@cache
def provisioned() -> tuple[str, ...]:
    """Packages that the tests need: the release's own Python, bcc and tools."""
    names = subprocess.run(["sh", str(PROVISION), "names"], check=True, stdout=subprocess.PIPE)
    return tuple(names.stdout.decode().split())


@dataclass(frozen=True)
class Guest:
    """One guest.

    Attributes:
        name: how the kernel is called here and on the command line.
        release: Debian's name of the release all its packages come from.
        python: that release's Python, for which the job's wheels are fetched.
        headers: whether its BTF is hidden and the release's kernel headers are installed.
        libbpf: the package with libbpf, which python3-bpfcc need not bring.
        security: whether the release has a security archive.
    """

    name: str
    release: str
    python: str
    headers: bool = False
    libbpf: str = "libbpf1"
    security: bool = True

    @property
    def version(self) -> str:
        """The kernel's version, as far as it is fixed."""
        return self.name.split("-")[0]

    @property
    def kernel_packages(self) -> tuple[str, ...]:
        """The meta packages of the kernel and what belongs to it."""
        image = "linux-image-cloud-amd64"
        return (image, "linux-headers-cloud-amd64") if self.headers else (image,)

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages to install."""
        return (*provisioned(), *GUEST_ONLY, self.libbpf)


GUESTS = (
    Guest(
        "5.10",
        "bullseye",
        "3.9",
        libbpf="libbpf0",
    ),
    Guest("6.1", "bookworm", "3.11"),
    Guest("6.1-headers", "bookworm", "3.11", headers=True),
    Guest("6.12", "trixie", "3.13"),
    Guest("7.2", "sid", "3.14", security=False),
)


def select(wanted: list[str]) -> list[Guest]:
    """The guests of these names (of the guest or of the release); all of them for none.

    Raises:
        KeyError: no guest is called so.
    """
    found = []
    for name in wanted:
        matching = [guest for guest in GUESTS if name in (guest.name, guest.release)]
        if not matching:
            raise KeyError(name)
        found += [guest for guest in matching if guest not in found]
    return found or list(GUESTS)
