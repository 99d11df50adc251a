"""``make deb``: the Debian package, for every architecture, by debhelper.

One package serves Debian 11 to 13 and Ubuntu 22.04 and 24.04: the distribution's Python and bcc run
it, and what else it imports is in /usr/share/rsttrace, seen by nobody else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path

from packages import BUILD, ROOT, manual
from packages.deliver import deliver
from packages.epoch import epoch
from packages.stage import stage
from rsttrace import __version__

PYTHON = "/usr/bin/python3"
HOME = "usr/share/rsttrace"

LAUNCHER = f"""#!{PYTHON} -I
import sys

sys.path.insert(0, "/{HOME}")

from rsttrace.cli import main

main()
"""

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/rsttrace",
    "zsh": "usr/share/zsh/vendor-completions/_rsttrace",
    "fish": "usr/share/fish/vendor_completions.d/rsttrace.fish",
}


REGISTRY = ("oui.txt", "iab.txt")
"""netaddr's copies of the IEEE's registry: Debian has them in a package of its own."""

COMMON = {"Apache License": "Apache-2.0", "GNU GENERAL PUBLIC LICENSE": "GPL-2"}
"""Licences that every Debian has; their texts are not repeated."""


def licence(text: str) -> str:
    """The text of a licence as debian/copyright has it."""
    names = [name for begin, name in COMMON.items() if begin in text]
    if names:
        text = "On Debian systems, the whole text is in " + " and in\n".join(
            f"/usr/share/common-licenses/{name}" for name in names
        )
    return "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.splitlines())


def completion(shell: str, tree: Path) -> str:
    """What a shell reads to complete our words, from the click that will answer it."""
    start = f"import sys; sys.path.insert(0, {str(tree / HOME)!r}); from rsttrace.cli import main"
    done = subprocess.run(
        [PYTHON, "-IB", "-c", f"{start}; main()"],
        env={**os.environ, "_RSTTRACE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "rsttrace" not in done.stdout:
        raise RuntimeError(f"no completion for {shell}: {done.stderr}")
    return done.stdout


def lay_out(tree: Path, when: int) -> None:
    """All that the package holds, and debhelper's files beside it."""
    shutil.copytree(ROOT / "packages" / "debian", tree / "debian")
    licences = stage(tree / HOME, when)
    with (tree / "debian" / "copyright").open("a", encoding="utf-8") as file:
        for name, text in licences.items():
            file.write(
                f"\nFiles: {HOME}/{name}*\nCopyright: the authors of {name}\n"
                f"License: {name}\n{licence(text)}\n"
            )
    eui = tree / HOME / "netaddr" / "eui"
    for index in eui.glob("*.idx"):
        index.unlink()
    for name in REGISTRY:
        (eui / name).unlink()
        (eui / name).symlink_to(f"/usr/share/ieee-data/{name}")
    (tree / "debian" / "changelog").write_text(
        f"rsttrace ({__version__}) unstable; urgency=medium\n\n"
        "  * See /usr/share/doc/rsttrace/changelog.gz.\n\n"
        f" -- The rsttrace developers <rsttrace@localhost>  {formatdate(when)}\n"
    )
    shutil.copy(ROOT / "CHANGELOG.md", tree)
    shutil.copytree(
        ROOT / "docs", tree / "docs", ignore=shutil.ignore_patterns("images", "kernels.json")
    )
    for path in sorted(ROOT.glob("docs/systemd/rsttrace.*")):  # debhelper knows what they are
        shutil.copy(path, tree / "debian")
    launcher = tree / "usr/bin/rsttrace"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    for shell, name in COMPLETIONS.items():
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text(completion(shell, tree))
    manual.write(tree / "man", when)
    for path in tree.rglob("*"):  # a clone's files have the time when it was made
        os.utime(path, (when, when), follow_symlinks=False)


def build(where: Path = BUILD / "deb") -> Path:
    """Build the package in a folder of its own; returns its file.

    Raises:
        subprocess.CalledProcessError: a step failed.
    """
    shutil.rmtree(where, ignore_errors=True)
    tree = where / f"rsttrace-{__version__}"
    tree.mkdir(parents=True)
    when = epoch()
    lay_out(tree, when)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(when), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    subprocess.run(
        # Nothing is compiled: build-essential, which it would ask for, is not needed.
        ["dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps"],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return where / f"rsttrace_{__version__}_all.deb"


def main() -> None:
    """Build it, and put it into dist/."""
    deliver(build())


if __name__ == "__main__":
    main()
