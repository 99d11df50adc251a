"""A systemd of its own, booted in namespaces on a copy of this machine's files that nobody keeps.

The copy is an overlay: what is written there is in memory, and gone afterwards. The network
namespace is new, so is the control group. It sees neither this machine's processes nor its /run.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.lab.harness import poll_until

SYSTEMD = "/lib/systemd/systemd"
CHECKOUT = Path(__file__).parents[2]
THERE = Path("/opt/rsttrace-checkout")
"""Where our checkout is inside: not in a home, which a service may not see."""

ROOT = """
set -e
hostname rsttrace-booted
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mkdir -p "$2" && mount --bind "$1" "$2"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs none run
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
for name in null zero full random urandom tty; do
    touch dev/$name && mount --bind /dev/$name dev/$name
done
mkdir dev/shm dev/pts
mount -t tmpfs none dev/shm
mount -t devpts -o newinstance,ptmxmode=666 none dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
rm -rf etc/systemd/system/*.wants
echo "$3" >etc/machine-id
tar -x
mkdir -p mnt/before && pivot_root . mnt/before && umount -l /mnt/before
mount --make-rshared / # as systemd does outside of containers
exec env -i container=rsttrace PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    "$4" --unit=basic.target --log-target=journal --show-status=false </dev/null
"""


def cgroup_mount() -> Path:
    """Where the control groups of version 2 are; skips where there are none."""
    with open("/proc/self/mounts", encoding="ascii") as file:
        for line in file:
            _, path, kind, *_ = line.split()
            if kind == "cgroup2":
                return Path(path)
    pytest.skip("systemd needs a cgroup v2 tree")


class Booted:
    """The booted system. A context manager: leaving it ends all that runs there.

    Args:
        files: what is there beside this machine's files: path -> text. What begins with ``#!`` can
            be run.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._group = cgroup_mount() / f"rsttrace-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Booted:
        self._group.mkdir()
        given = [str(CHECKOUT), str(THERE)[1:], uuid.uuid4().hex, SYSTEMD]
        self._process = subprocess.Popen(
            [
                *("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._group / "cgroup.procs")),
                *("unshare", "--mount", "--uts", "--ipc", "--cgroup", "--net"),
                *("--pid", "--fork", "--kill-child", "sh", "-c", ROOT, "sh", *given),
            ],
            stdin=subprocess.PIPE,
        )
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(self._archive())
            self._process.stdin.close()
            poll_until(self._is_up, "systemd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()  # and with it its child, the namespace's first process, and all others
        self._process.wait()
        poll_until(lambda: not self._has_processes(), "the control group to be empty")
        for folder, _, _ in os.walk(self._group, topdown=False):
            os.rmdir(folder)

    def _has_processes(self) -> bool:
        return "populated 1" in (self._group / "cgroup.events").read_text()

    def _archive(self) -> bytes:
        """The files as tar."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for path, text in self._files.items():
                info = tarfile.TarInfo(path.lstrip("/"))
                data = text.encode()
                info.size = len(data)
                info.mode = 0o755 if data.startswith(b"#!") else 0o644
                archive.addfile(info, io.BytesIO(data))
        return made.getvalue()

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "systemd has ended"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        if not children.split():
            return False
        self._first = children.split()[0]
        return self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, to its end."""
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return subprocess.run(
            ["nsenter", "--target", self._first, *namespaces, "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code there, with this interpreter."""
        return self.run(sys.executable, "-c", code)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def signal(self, unit: str, number: signal.Signals) -> None:
        """Send a signal to a unit's main process."""
        done = self.run("systemctl", "kill", "--kill-whom=main", f"--signal={number.name}", unit)
        assert done.returncode == 0, done.stderr
