"""The one list of kernels that rsttrace is proven on: Debian's releases, as shipped."""

from __future__ import annotations

from dataclasses import dataclass

COMMON = (
    "python3",
    "python3-bpfcc",
    "python3-pip",
    "iproute2",
    "nftables",
    "kmod",
    "busybox-static",
)
"""Packages of every guest, beside its kernel: the release's own Python, bcc and tools."""


@dataclass(frozen=True)
class Guest:
    """One guest.

    Attributes:
        name: how the kernel is called here and on the command line.
        release: Debian's name of the release all its packages come from.
        python: that release's Python, for which the job's wheels are fetched.
        kernel_package: the meta package of the release's kernel.
        libbpf: the package with libbpf, which python3-bpfcc need not bring.
        security: whether the release has a security archive.
        backports: what pytest and others need on a Python this old (pip evaluates the
            markers of ``pip download`` with its own Python, so they are named here).
    """

    name: str
    release: str
    python: str
    kernel_package: str = "linux-image-cloud-amd64"
    libbpf: str = "libbpf1"
    security: bool = True
    backports: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """All packages to install."""
        return (*COMMON, self.libbpf)


GUESTS = (
    Guest(
        "5.10",
        "bullseye",
        "3.9",
        libbpf="libbpf0",
        backports=("exceptiongroup", "tomli", "typing-extensions"),
    ),
    Guest("6.1", "bookworm", "3.11"),
    Guest("6.12", "trixie", "3.13"),
    Guest("7.2", "sid", "3.14", security=False),
)


def select(wanted: list[str]) -> list[Guest]:
    """The guests of these names (of the kernel or of the release); all of them for none.

    Raises:
        KeyError: no guest is called so.
    """
    known = {key: guest for guest in GUESTS for key in (guest.name, guest.release)}
    return [known[name] for name in wanted] if wanted else list(GUESTS)
