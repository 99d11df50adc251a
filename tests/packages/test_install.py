"""docs/install.md and the README's Install section, as they stand, in a fresh Debian."""

from __future__ import annotations

import configparser
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.clones import clone
from tests.packages.trees import Tree, fresh

ROOT = Path(__file__).parents[2]
CLONE = "opt/clone"
WAYS = ("Debian 11 to 13", "One file", "With pip")


def commands(document: str, heading: str) -> list[str]:
    """The lines of all code blocks of a section, with an end where a trace has none."""
    text = (ROOT / document).read_text(encoding="utf-8")
    section = re.split(rf"^## {re.escape(heading)}", text, maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    lines = "".join(re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    endless = r"^sudo (?:rsttrace|\./rsttrace\.pyz)$"
    return [re.sub(endless, r"\g<0> --duration 1", line) for line in lines.splitlines()]


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    """A fresh Debian 12 with make and sudo, and a clone of what is tested here."""
    with tempfile.TemporaryDirectory(prefix="rsttrace-tree-", dir="/var/tmp") as folder:
        made = fresh("bookworm", Path(folder, "tree"))
        made.run("apt-get update -q; apt-get install -qy --no-install-recommends make sudo adduser")
        clone(made.path / CLONE)
        _registry(made)
        yield made


def _registry(tree: Tree) -> None:
    """This machine's trust in its Python registry, if that is configured."""
    settings = configparser.ConfigParser()
    settings.read("/etc/pip.conf")
    certificates = settings.get("global", "cert", fallback=None)
    if certificates is not None:
        (tree.path / "etc" / "ssl").mkdir(exist_ok=True)
        shutil.copy(certificates, tree.path / "etc" / "ssl" / "registry.pem")
        (tree.path / "etc" / "pip.conf").write_text("[global]\ncert = /etc/ssl/registry.pem\n")


def test_the_readme_installs_it(tree: Tree) -> None:
    lines = commands("README.md", "Install")
    assert lines[0].startswith("make deb")
    said = tree.run(
        "\n".join(["set -ex", f"cd /{CLONE}", *lines]).replace("apt install", "apt install -y")
    )
    assert "tracing works here" in said


@pytest.mark.parametrize("way", WAYS)
def test_every_command_of_the_document_works(tree: Tree, way: str) -> None:
    lines = commands("docs/install.md", way)
    assert len(lines) >= 2
    script = ["set -ex", f"cd /{CLONE}", "apt-get purge -qy rsttrace || true"]
    for line in lines:
        script.append(line.replace("apt install", "apt install -y"))
        if line in ("make deb", "make zipapp"):
            script.append("cd dist")
    said = tree.run("\n".join(script))
    assert "tracing resets" in said or "tracing works here" in said
