"""Two CPUs write one place of bpf/owners.c at once: who is read there is one of them, or nobody.

owners.c is compiled for user space, and two threads write while a third one reads.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from rsttrace.kernel import layout
from tests.unit.flow_header import build, needs_compiler

pytestmark = needs_compiler

HARNESS = """
#include <pthread.h>
#include <stdio.h>
#define TASKS 1024
#define SHELVES 1

static struct owner place;
static struct owner *the_place(const __u32 *at) { return &place; }
static struct rst_shelf *the_seed(const __u32 *at) { return 0; }
struct places { struct owner *(*lookup)(const __u32 *); };
static struct places owners = { the_place }, past_owners = { the_place };
static struct { struct rst_shelf *(*lookup)(const __u32 *); } shelves = { the_seed };

OWNERS

static volatile int over;

/* All that is said of a task says the same. */
static struct rst_task task_of(__u64 key, __u32 number)
{
	struct rst_task made = { .pid = number, .uid = number ^ key, .cgroup = number * key };

	memset(made.comm, number + key, sizeof(made.comm));
	return made;
}

static void *writes(void *key)
{
	for (__u32 number = 0; !over; number = (number + 1) % TASKS) {
		struct rst_task task = task_of((__u64)key, number);

		note_owner(&place, (__u64)key, &task);
		IN_THIS_ORDER;
	}
	return 0;
}

/* Reads until so many were somebody, or a mix of two was one of them. */
int main(int count, char **arguments)
{
	unsigned long wanted = strtoul(arguments[1], 0, 10), read = 0, mixed = 0;
	struct rst_task task, right;
	pthread_t first, second;

	pthread_create(&first, 0, writes, (void *)1);
	pthread_create(&second, 0, writes, (void *)2);
	while (read < wanted && !mixed) {
		IN_THIS_ORDER;
		if (!take_owner(&task, &place, 1))
			continue;
		read++;
		right = task_of(1, task.pid);
		mixed += memcmp(&task, &right, sizeof(task)) != 0;
	}
	over = 1;
	pthread_join(first, 0);
	pthread_join(second, 0);
	printf("%lu %lu\\n", read, mixed);
	return 0;
}
"""

SUM = "return task_sum(task, key) == sum;"


def built(directory: Path, owners: str) -> Path:
    """The harness around a text in place of owners.c."""
    maps = (layout.bpf_directory() / "maps.c").read_text()
    needed = [
        found[0]
        for pattern in (
            r"struct arrival_key \{.*?^\};",
            r"struct owner \{.*?^\};",
            r"#define TRACKED_BITS.*?$",
            r"#define OWNERS_BITS.*?$",
            r"#define IN_THIS_ORDER.*?$",
            r"INLINE __u32 place_of\(.*?^\}",
        )
        for found in [re.search(pattern, maps, re.DOTALL | re.MULTILINE)]
        if found is not None
    ]
    text = "#include <stdlib.h>\n" + "\n".join(needed) + HARNESS.replace("OWNERS\n", owners, 1)
    directory.mkdir()
    return build(directory, text, "-O2", "-pthread")


def run(program: Path, reads: int) -> tuple[int, int]:
    """(How many reads found somebody, how many of them found a mix: the last one, or none.)"""
    said = subprocess.run([program, str(reads)], capture_output=True, text=True, check=True)
    read, mixed = said.stdout.split()
    return int(read), int(mixed)


def test_what_two_cpus_have_written_at_once_is_nobody(tmp_path: Path) -> None:
    """And without the sum it would be a mix of both, where there are two CPUs to make one."""
    owners = (layout.bpf_directory() / "owners.c").read_text()
    assert owners.count(SUM) == 1
    reads = 5_000
    if len(os.sched_getaffinity(0)) > 1:
        believing = built(tmp_path / "believing", owners.replace(SUM, "return 1;"))
        reads, mixed = run(believing, 100_000_000)
        assert mixed
    enough = max(100_000, 20 * reads)
    assert run(built(tmp_path / "as_it_is", owners), enough) == (enough, 0)
