"""Guests that differ from the usual one by how they boot, for cases that nothing else can make.

python3 tests/kernels/run.py --kernel 6.12 --variant lockdown-confidentiality
"""

from __future__ import annotations

from dataclasses import dataclass

HARDENING = "tests/lab/test_hardening.py"


@dataclass(frozen=True)
class Variant:
    """One way to boot, and the tests that it is for.

    Attributes:
        name: how it is called on the command line.
        tests: arguments for the guest's pytest, unless others are asked for.
        parameters: what is added to the kernel's command line.
        cpus: how many it has.
        traces: whether tracing can work there; where not, the smoke test is left out.
    """

    name: str
    tests: tuple[str, ...]
    parameters: str = ""
    cpus: int = 2
    traces: bool = True


VARIANTS = (
    Variant(
        "lockdown-confidentiality",
        (HARDENING, "-k", "confidentiality"),
        parameters="lockdown=confidentiality",
        traces=False,
    ),
    Variant(
        "lockdown-integrity",
        (HARDENING, "-k", "integrity"),
        parameters="lockdown=integrity",
    ),
    # guest.sh reads this one: it mounts version 1 hierarchies, and no version 2 one.
    Variant("cgroup-v1", ("tests/lab/test_cgroup.py",), parameters="rsttrace.cgroup=v1"),
    Variant("smp4", ("tests/lab/test_rps.py",), cpus=4),
)

BY_NAME = {variant.name: variant for variant in VARIANTS}
