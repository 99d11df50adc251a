"""What a kernel tells about itself: with BTF, with headers and tracefs instead, with neither."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from rsttrace.kernel import causes, drops, headers
from rsttrace.kernel.facts import Facts

pytestmark = pytest.mark.lean

HIDDEN = (
    "/sys/kernel/btf",
    f"/lib/modules/{platform.release()}/build/include",
    f"/lib/modules/{platform.release()}/source/include",
)


PREFIXES = {"skb_drop_reason": "SKB_DROP_REASON_", "sk_rst_reason": "SK_RST_REASON_"}


def privately(mounts: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace of its own, after shell commands that mount there."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts}exec "$@"', "sh", *command],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_neither_btf_nor_headers_is_one_clear_error() -> None:
    hide = "".join(f"[ ! -d {path} ] || mount -t tmpfs tmpfs {path}\n" for path in HIDDEN)
    done = privately(hide, [sys.executable, "-m", "rsttrace", "--duration", "1"])
    assert done.returncode == 1
    assert done.stdout == ""
    what, do = done.stderr.splitlines()
    assert "no usable BTF at /sys/kernel/btf/vmlinux" in what
    assert f"no kernel headers for {platform.release()} are installed" in what
    assert "CONFIG_DEBUG_INFO_BTF=y" in do
    assert f"linux-headers-{platform.release()}" in do


SAME = """
import json
from rsttrace.kernel import causes, drops, headers
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.btf import Btf
btf = Btf()
print(json.dumps({
    "tracefs": {name: headers.enum(name) for name in headers.SYMBOLS},
    "btf": {name: btf.enum(name) for name in headers.SYMBOLS},
    "headers": {name: headers.parameters(name) for name in headers.PROTOTYPES},
    "functions": {name: btf.parameters(name) for name in headers.PROTOTYPES},
}))
"""


def test_headers_and_tracefs_say_what_btf_says() -> None:
    # In the guest whose BTF is hidden, it comes to light again.
    uncover = (
        "while [ ! -e /sys/kernel/btf/vmlinux ]; do umount /sys/kernel/btf || exit; done\n"
        "mount -t tracefs tracefs /sys/kernel/tracing\n"
    )
    done = privately(uncover, [sys.executable, "-c", SAME])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, prefix in PREFIXES.items():
        in_btf, in_tracefs = found["btf"][name], found["tracefs"][name]
        # Both or neither: the event prints a reason as soon as the kernel has one.
        assert len(in_tracefs) > 5 or not in_btf
        for word, value in in_tracefs.items():
            assert in_btf[prefix + word] == value
    if headers.directory() is None:
        pytest.skip(f"the rest needs kernel headers of {platform.release()}; they are not here")
    for name, arguments in found["headers"].items():
        if arguments is None:  # a tracepoint that this kernel is too old for
            assert found["functions"][name] is None, name
            continue
        assert len(arguments) == len(found["functions"][name]), name
        if not name.startswith("btf_trace_"):  # BTF has no names there
            assert ("reason" in arguments) == ("reason" in found["functions"][name])
            assert ("skb" in arguments) == ("skb" in found["functions"][name])


NO_REASONS = {"MAX"}
"""Enumerators of sk_rst_reason that are no reasons."""


def test_every_reason_of_this_kernel_has_a_sentence() -> None:
    """A new one fails here, and is printed as one that this version does not know."""
    enums = Facts().enums()
    unknown = drops.UNKNOWN.format("")
    for reason in enums["sk_rst_reason"].keys() - NO_REASONS:
        for cause in (
            causes.sent_passive(reason, "ESTABLISHED", "A"),
            causes.sent_active(reason, "ESTABLISHED", by_task=False),
        ):
            assert unknown not in cause.text
            assert reason not in cause.text
    assert enums["skb_drop_reason"].keys() - drops.DROPS.keys() - drops.OTHERS == set()
