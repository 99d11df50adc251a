"""``make image``: an OCI image as one tar file, without a daemon: mmdebstrap and umoci.

Debian 12 with no package manager, the package of `packages.deb`, and what it depends on. ``podman
load``, ``ctr images import`` and ``skopeo copy oci-archive:…`` take the file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from packages import BUILD, ROOT, deb
from packages.deliver import deliver
from packages.epoch import epoch
from rsttrace import __version__
from tests.kernels.build import apt_options, sources
from tests.kernels.kernels import GUESTS

RELEASE = "bookworm"
CONTENTS = ("python3", "python3-bpfcc", "libbpf1", "ieee-data", "iproute2", "nftables")
"""What the package depends on, and what it recommends."""

SHED = ("doc", "man", "locale", "info", "lintian", "zoneinfo", "bash-completion", "fish", "zsh")
"""Folders of /usr/share that a container has no use for; of doc, the copyright files stay."""

HOOK = """
set -eu
cp "$DEB" "$1/rsttrace.deb"
chroot "$1" dpkg --install /rsttrace.deb
cd "$1"
rm -rf rsttrace.deb etc/apt/sources.list etc/apt/apt.conf.d/99mmdebstrap etc/resolv.conf \
	etc/hostname var/cache/debconf/* var/cache/ldconfig/* var/log/* var/lib/dpkg/*-old
mkdir -p run/netns var/cache/rsttrace
"$PYTHON" -m packages.sbom "$SOURCE_DATE_EPOCH" "$1" debian-12
find usr -name __pycache__ -prune -exec rm -r {} +
"""
"""Nothing tells where it was built. Compiled Python is left out: its files are made new each time,
and so would differ."""


def lay_out(layer: Path, package: Path) -> None:
    """The file system, as a tar file.

    Raises:
        subprocess.CalledProcessError: mmdebstrap failed; its words are on our stderr.
    """
    guest = next(guest for guest in GUESTS if guest.release == RELEASE)
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=essential"),
            f"--include={','.join(CONTENTS)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in SHED),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *(f"--aptopt={option}" for option in apt_options()),
            f"--customize-hook={HOOK}",
            *(RELEASE, str(layer), *sources(guest)),
        ],
        env={
            **os.environ,
            "SOURCE_DATE_EPOCH": str(epoch()),
            "DEB": str(package),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
        },
        check=True,
    )


def build(where: Path = BUILD / "image", package: Path | None = None) -> Path:
    """Build the image in a folder of its own; returns its tar file (an OCI archive).

    Raises:
        subprocess.CalledProcessError: a step failed.
    """
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    package = package or deb.build(where / "deb")
    when = epoch()
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    lay_out(where / "layer.tar", package)
    layout = where / "oci"
    image = f"{layout}:{__version__}"
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    history = ("--history.created", created, "--history.created_by", "rsttrace: make image")
    for command in (
        ["init", "--layout", str(layout)],
        ["new", "--image", image],
        ["raw", "add-layer", "--image", image, *history, str(where / "layer.tar")],
        [
            *("config", "--image", image, *history, "--created", created),
            *("--architecture", machine, "--os", "linux"),
            *("--config.entrypoint", "/usr/bin/rsttrace", "--config.cmd", "trace"),
            *("--config.env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "--config.env", "LANG=C.UTF-8"),
            *("--config.label", f"org.opencontainers.image.version={__version__}"),
            *("--config.label", "org.opencontainers.image.licenses=GPL-2.0-or-later"),
        ],
        ["gc", "--layout", str(layout)],
    ):
        subprocess.run(["umoci", *command], stdout=subprocess.DEVNULL, check=True)
    _name(layout)
    made = where / f"rsttrace_{__version__}_{machine}.oci.tar"
    subprocess.run(
        [
            *("tar", "--create", f"--file={made}", f"--directory={layout}", "--sort=name"),
            *(f"--mtime=@{when}", "--owner=0", "--group=0", "--numeric-owner", "."),
        ],
        check=True,
    )
    return made


def _name(layout: Path) -> None:
    """Give the image the name that the manifest has, for those who import it under its own."""
    index = layout / "index.json"
    content = json.loads(index.read_text())
    for manifest in content["manifests"]:
        manifest["annotations"]["io.containerd.image.name"] = (
            f"docker.io/library/rsttrace:{__version__}"
        )
    index.write_text(json.dumps(content))


def main() -> None:
    """Build it, and put it into dist/."""
    deliver(build())


if __name__ == "__main__":
    main()
