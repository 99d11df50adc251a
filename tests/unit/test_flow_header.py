"""bpf/flow.h as the compiler sees it, in user space."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rsttrace.kernel import config, layout
from rsttrace.kernel.facts import FIELD_LINE

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")

PROGRAM = """\
#include <assert.h>
#include <string.h>
#define bpf_probe_read_kernel(to, size, from) (memcpy(to, from, size), 0)
#define bpf_get_current_pid_tgid() 0ULL
#define bpf_get_current_uid_gid() 0ULL
#define bpf_get_current_comm(to, size) memset(to, 0, size)
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32;
typedef unsigned long long __u64; typedef signed int __s32;
#include "flow.h"
int main(void)
{
"""


def run(directory: Path, statements: str) -> None:
    """Run statements against flow.h; an assertion that fails there fails here."""
    (directory / "config.h").write_text(config.defines(config.constants()))
    names = FIELD_LINE.findall((layout.bpf_directory() / "fields.h").read_text())
    # Members that no kernel has: GET() gives 0.
    (directory / "offsets.h").write_text(
        "".join(f"#define OFF_{name} -1\n#define SIZE_{name} 0\n" for name, *_ in names)
    )
    (directory / "flow.c").write_text(f"{PROGRAM}{statements}\nreturn 0;\n}}\n")
    program = directory / "flow"
    subprocess.run(
        ["cc", "-w", f"-I{directory}", f"-I{layout.bpf_directory()}", "-o", program,
         directory / "flow.c"],
        check=True,
    )  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_syn_does_not_wipe_a_flow_that_another_cpu_has_just_used(tmp_path: Path) -> None:
    """Two CPUs: the other one's packet is noted with a later time than the SYN's."""
    run(
        tmp_path,
        """
        struct flow flow = {.half = {{.packets = 1, .last_ts = 5000}, {.last_ts = 4000}}};
        struct parsed syn = {.flags = TH_SYN, .seq = 7};
        assert(!begins_anew(&flow, &flow.half[0], &syn, 3999));
        assert(!begins_anew(&flow, &flow.half[0], &syn, 5000 + IDLE_REUSE_NS));
        assert(begins_anew(&flow, &flow.half[0], &syn, 5001 + IDLE_REUSE_NS));
        """,
    )


def test_a_packet_is_late_though_another_cpu_noted_the_rst_with_a_later_time(
    tmp_path: Path,
) -> None:
    run(
        tmp_path,
        """
        struct parsed data = {.flags = TH_ACK, .payload_len = 10, .seq = 100};
        struct rst_half half = {.reset_ts = 5000, .reset_seq = 100};
        assert(is_late(&half, &data, 4999));
        assert(is_late(&half, &data, 5000 + LATE_FOR_NS));
        assert(!is_late(&half, &data, 5001 + LATE_FOR_NS));
        """,
    )
