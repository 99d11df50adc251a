"""Fresh minimal Debian trees, and commands that run in them as on a machine of their own."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernels.build import apt_options, run, sources
from tests.kernels.kernels import GUESTS

RELEASES = ("bullseye", "bookworm", "trixie")

ENTER = """
set -e
tree=$1
shift
mount --make-rprivate /
mount --rbind "$tree" "$tree"
for name in proc sys dev; do mount --rbind /$name "$tree/$name"; done
for name in run tmp; do mount -t tmpfs tmpfs "$tree/$name"; done
exec chroot "$tree" env -i PATH="$INSIDE_PATH" HOME=/root LC_ALL=C.UTF-8 \
	DEBIAN_FRONTEND=noninteractive sh -c "$@"
"""
"""The kernel's file systems are the host's; nothing that is mounted here outlives the command."""

VOLATILE = ("proc", "sys", "dev", "run", "tmp", "root", "var/lib/dpkg", "var/lib/apt", "var/log")
VOLATILE_NAMES = ("var/cache/apt", "var/cache/debconf", "var/cache/man", "var/cache/ldconfig")


@dataclass(frozen=True)
class Tree:
    """A Debian in a folder."""

    path: Path

    def run(self, script: str, path: str = "/usr/sbin:/usr/bin:/sbin:/bin") -> str:
        """Run a shell script in it; returns what it printed, on either output.

        Raises:
            AssertionError: it failed; with its last words.
        """
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.path), script],
            env={**os.environ, "INSIDE_PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{script}:\n{done.stdout[-4000:]}"
        return done.stdout

    def files(self) -> set[str]:
        """The names of all files and folders, but for the package manager's own books."""
        return set(self._below(self.path))

    def _below(self, folder: Path) -> Iterator[str]:
        for entry in sorted(os.scandir(folder), key=lambda found: found.name):
            name = os.path.relpath(entry.path, self.path)
            if name in VOLATILE or name in VOLATILE_NAMES:
                continue
            yield name
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path))


def skip_unless_it_traces(tree: Tree, doctor: str) -> None:
    """Skip where the release's libbpf is older than what the running kernel's BTF is written in."""
    said = tree.run(f"{doctor} || true")
    if "no usable BTF" in said and "libbpf.so.0" in tree.run("ls /usr/lib/*"):
        pytest.skip(f"this release's libbpf cannot read the BTF of Linux {platform.release()}")


def fresh(release: str, where: Path) -> Tree:
    """A minimal tree of a release, on this machine's mirror, with apt and no more."""
    guest = next(guest for guest in GUESTS if guest.release == release)
    run(
        [
            *("mmdebstrap", "--mode=root", "--variant=apt"),
            *(f"--aptopt={option}" for option in apt_options()),
            *(release, str(where), *sources(guest)),
        ]
    )
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy(f"/{name}", where / name)
    return Tree(where)
