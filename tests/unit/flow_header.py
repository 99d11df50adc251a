"""bpf/flow.h for user space: what it needs of the kernel is a few lines here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rsttrace.kernel import config, layout
from rsttrace.kernel.facts import FIELD_LINE

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")

PRELUDE = """\
#include <assert.h>
#include <string.h>
#define TYPED 0
#define RDONLY_CAST 0
#define bpf_probe_read_kernel(to, size, from) (memcpy(to, from, size), 0)
#define bpf_get_current_pid_tgid() 0ULL
#define bpf_get_current_uid_gid() 0ULL
#define bpf_get_current_comm(to, size) memset(to, 0, size)
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32;
typedef unsigned long long __u64; typedef signed int __s32;
#include "flow.h"
"""


def build(directory: Path, text: str, *options: str) -> Path:
    """Compile some C that comes behind flow.h; returns what it became."""
    (directory / "config.h").write_text(config.defines(config.constants()))
    names = FIELD_LINE.findall((layout.bpf_directory() / "fields.h").read_text())
    # Members that no kernel has: GET() gives 0.
    (directory / "offsets.h").write_text(
        "".join(f"#define OFF_{name} -1\n#define SIZE_{name} 0\n" for name, *_ in names)
    )
    (directory / "flow.c").write_text(PRELUDE + text)
    made = directory / "flow"
    subprocess.run(
        ["cc", "-w", "-fno-strict-aliasing", *options, f"-I{directory}",
         f"-I{layout.bpf_directory()}", "-o", made, directory / "flow.c"],
        check=True,
    )  # fmt: skip
    return made
