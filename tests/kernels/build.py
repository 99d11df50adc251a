"""Builds what a guest boots: root disk, kernel and initrd, cached outside the checkout."""

from __future__ import annotations

import hashlib
import inspect
import json
import lzma
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.kernels import Guest

HERE = Path(__file__).resolve().parent
KEEP_OUT = ("doc", "man", "locale", "info", "lintian", "zoneinfo")
"""Folders of /usr/share that no test reads."""

BOOT_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "crc32c-intel", "ext4")
"""What the initrd needs to find its root; names that a kernel lacks (or has built in) are left
out."""

KERNEL_HOOK = r"""
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir "$1/kernel"
cd "$1/kernel"
apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
	--no-replaces --no-enhances KERNELS |
	grep -E '^linux-(image|binary|modules|headers|kbuild)-[0-9]' |
	grep -v unsigned | sort -u > names
xargs apt-get download < names
for package in ./*.deb; do
	dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$1"
done
chroot "$1" depmod "$(ls "$1/lib/modules")"
rm -r "$1/kernel"
"""
"""Unpacks what the kernel's meta packages need: installing it would bring initramfs-tools and build
an initrd (and a compiler, for the headers), and the archive of an old release may have lost the
meta packages' own files."""

FREE_MIB = 1024
"""Room on the root disk for the job."""


class BuildError(Exception):
    """A guest cannot be built; the message says which step failed and shows its last words."""


@dataclass(frozen=True)
class Image:
    """A built guest."""

    kernel: Path
    initrd: Path
    root: Path
    seconds: float
    """How long building took; 0 if it was there."""


def cache() -> Path:
    """Where guests are kept between runs."""
    named = os.environ.get("RSTTRACE_CACHE")
    base = Path(named) if named else Path.home() / ".cache/rsttrace-kernels"
    base.mkdir(parents=True, exist_ok=True)
    return base.resolve()


def run(command: list[str]) -> str:
    """Run a command to its end and return its output.

    Raises:
        BuildError: it failed or is not installed.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    if done.returncode:
        words = "\n".join(done.stdout.strip().splitlines()[-25:])
        raise BuildError(f"{' '.join(command[:4])}… failed:\n{words}")
    return done.stdout


def sources(guest: Guest) -> list[str]:
    """The release's apt sources, on the mirror that this machine's apt uses.

    Raises:
        BuildError: apt is not set up for Debian here.
    """
    mirrors: dict[str, str] = {}
    listed = run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    )
    for line in listed.splitlines():
        label, _, address = line.partition("|")
        mirrors.setdefault(label, address)
    if "Debian" not in mirrors:
        raise BuildError("this machine's apt knows no Debian archive")
    lines = [f"deb {mirrors['Debian']} {guest.release} main"]
    if guest.security and "Debian-Security" in mirrors:
        lines.append(f"deb {mirrors['Debian-Security']} {guest.release}-security main")
    return lines


def image(guest: Guest, *, rebuild: bool = False) -> Image:
    """A guest's image, built if it is missing or its recipe has changed.

    Raises:
        BuildError: a step failed.
    """
    recipe = hashlib.sha256(
        json.dumps(
            [guest.kernel_packages, guest.packages, KERNEL_HOOK, FREE_MIB, KEEP_OUT, BOOT_MODULES]
        ).encode()
    )
    for step in (_build, _boot_modules):
        recipe.update(inspect.getsource(step).encode())
    home = cache() / f"{guest.name}-{recipe.hexdigest()[:12]}"
    seconds = 0.0
    if rebuild or not (home / "root.ext4").exists():
        for old in cache().glob(f"{guest.name}-{'[0-9a-f]' * 12}"):
            shutil.rmtree(old)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="building-", dir=cache()) as scratch:
            _build(guest, Path(scratch))
            shutil.rmtree(Path(scratch, "tree"))
            shutil.move(scratch, home)
            Path(scratch).mkdir()  # for the context manager to remove
        seconds = time.monotonic() - started
    initrd = home / "initrd.cpio"  # cheap, and its scripts change more often
    initrd.write_bytes(_initrd(home))
    return Image(home / "vmlinuz", initrd, home / "root.ext4", seconds)


def _build(guest: Guest, scratch: Path) -> None:
    tree = scratch / "tree"
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            f"--architectures={ {'x86_64': 'amd64'}.get(platform.machine(), platform.machine()) }",
            f"--include={','.join(guest.packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in KEEP_OUT),
            *(f"--aptopt={option}" for option in _apt_options()),
            f"--customize-hook={KERNEL_HOOK.replace('KERNELS', ' '.join(guest.kernel_packages))}",
            guest.release,
            str(tree),
            *sources(guest),
        ]
    )
    kernels = list((tree / "lib/modules").iterdir())
    if len(kernels) != 1:
        raise BuildError(f"{guest.release} installed {len(kernels)} kernels")
    places = (tree / "boot" / f"vmlinuz-{kernels[0].name}", kernels[0] / "vmlinuz")  # sid: 2nd
    shutil.copy(next((p for p in places if p.exists()), places[0]), scratch / "vmlinuz")
    _boot_modules(kernels[0], scratch / "modules")
    shutil.copy((tree / "bin/busybox").resolve(), scratch / "busybox")
    shutil.rmtree(tree / "boot")
    used = int(run(["du", "-sm", str(tree)]).split()[0])
    run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-d", str(tree)),
            *(str(scratch / "root.ext4"), f"{used * 5 // 4 + FREE_MIB}M"),
        ]
    )


def _apt_options() -> list[str]:
    """This machine's way to its mirror: proxies and certificates, if any."""
    found = []
    for line in run(["apt-config", "dump", "Acquire"]).splitlines():
        name = line.split(" ", 1)[0]
        wanted = ("Proxy", "CaInfo", "CaPath", "Check-Date", "Check-Valid-Until", "Retries")
        if any(word.lower() in name.lower() for word in wanted) and ' "' in line:
            found.append(line.rstrip(";"))
    return found


def apt_options() -> list[str]:
    """This machine's way to its mirror, for other trees than the guests'."""
    return _apt_options()


def _boot_modules(modules: Path, target: Path) -> None:
    """Copy the modules that the root disk needs, unpacked, and the order to load them in."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, depends = line.partition(":")
        needs[path] = depends.split()
    names = {Path(path).name.split(".ko")[0]: path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for dependency in reversed(needs[path]):  # modules.dep lists the deepest last
            if dependency not in order:
                add(dependency)
        if path not in order:
            order.append(path)

    for name in BOOT_MODULES:
        if name in names:
            add(names[name])
    target.mkdir()
    for path in order:
        raw = (modules / path).read_bytes()
        if path.endswith(".xz"):
            raw = lzma.decompress(raw)
        elif not path.endswith(".ko"):
            raise BuildError(f"no way to unpack {path}")
        (target / f"{Path(path).name.split('.ko')[0]}.ko").write_bytes(raw)
    (target / "order").write_text(
        "".join(f"{Path(path).name.split('.ko')[0]}.ko\n" for path in order)
    )


def _initrd(home: Path) -> bytes:
    members: list[tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b"")
        for name in ("bin", "dev", "proc", "sys", "newroot", "modules")
    ]
    members.append(("bin/busybox", stat.S_IFREG | 0o755, (home / "busybox").read_bytes()))
    for name in ("init", "guest.sh"):
        members.append((name, stat.S_IFREG | 0o755, (HERE / name).read_bytes()))
    for path in sorted((home / "modules").iterdir()):
        members.append((f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes()))
    return cpio(members)


def cpio(members: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive in cpio's "newc" format (Documentation/driver-api/early-userspace).

    Args:
        members: name, mode and content of each.
    """
    parts = []
    for number, (name, mode, content) in enumerate([*members, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        header += name.encode() + b"\0"
        parts += [header, b"\0" * (-len(header) % 4), content, b"\0" * (-len(content) % 4)]
    return b"".join(parts)
