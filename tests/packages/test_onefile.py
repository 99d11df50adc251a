"""rsttrace.pyz: run with a node's own Python and bcc, leaving nothing behind."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from packages import onefile as builder
from rsttrace import __version__
from tests.packages.trees import Tree, fresh, skip_unless_it_traces

RELEASES = {"bullseye": "libbpf0", "bookworm": "libbpf1"}
CAPTURE = Path(__file__).parents[1] / "cases" / "reason-in-payload.pcap"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builder.build(tmp_path_factory.mktemp("zipapp"))


def test_it_is_the_same_when_it_is_built_again(made: Path, tmp_path: Path) -> None:
    assert builder.build(tmp_path / "elsewhere").read_bytes() == made.read_bytes()


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tree(release: str, made: Path) -> Iterator[Tree]:
    """A fresh tree with Python alone, and the file."""
    with tempfile.TemporaryDirectory(prefix="rsttrace-tree-", dir="/var/tmp") as folder:
        found = fresh(release, Path(folder, "tree"))
        found.run("apt-get update -q && apt-get install -qy --no-install-recommends python3")
        for path in (made, CAPTURE):
            shutil.copy(path, found.path / "opt")
        yield found


@pytest.fixture(scope="module")
def bare(tree: Tree) -> str:
    """What it says where there is no bcc."""
    return tree.run("/opt/rsttrace.pyz --version; /opt/rsttrace.pyz --duration 1 || echo exit $?")


def test_without_bcc_one_error_says_how_to_get_it(bare: str) -> None:
    assert f"rsttrace {__version__}\nno bcc (rsttrace doctor says what to do), " in bare
    assert bare.count("Traceback") == 0
    assert bare.count("what to do: ") == 1
    assert "python3-bpfcc" in bare
    assert bare.endswith("exit 1\n")


@pytest.fixture(scope="module")
def ready(tree: Tree, release: str, bare: str) -> Tree:
    """The tree with bcc, and what builds the demo's lab."""
    assert bare
    names = f"python3-bpfcc {RELEASES[release]} iproute2 nftables"
    tree.run(f"apt-get install -qy --no-install-recommends {names}")
    tree.run("python3 -c 'import bcc'")  # Debian's own modules are compiled now, if they were not
    return tree


def test_it_reads_captures_and_leaves_nothing(ready: Tree) -> None:
    before = files(ready)
    said = ready.run(
        "cd /opt; ./rsttrace.pyz schema && ./rsttrace.pyz --version && "
        "./rsttrace.pyz read reason-in-payload.pcap -w /tmp/o.pcapng --report /tmp/o.html && "
        "./rsttrace.pyz read /tmp/o.pcapng"
    )
    assert '"$schema"' in said
    assert "the peer reset it and says why: BIG-IP" in said
    assert said.count(" 198.51.100.21:443 > 10.9.1.5:40003 ") == 2
    watched = ready.run("cd /opt; ./rsttrace.pyz top --plain -r reason-in-payload.pcap")
    assert "authors: 1 " in watched
    assert "peers: 1 198.51.100.21" in watched
    assert re.search(r"^bcc [\d.]+, LLVM [\d.]+, libbpf [\d.]+, Python 3", said, re.MULTILINE)
    assert files(ready) == before


def test_it_traces_and_leaves_what_it_says(ready: Tree) -> None:
    skip_unless_it_traces(ready, "RSTTRACE_CACHE= /opt/rsttrace.pyz doctor")
    before = files(ready)
    said = ready.run(
        "export RSTTRACE_CACHE=; cd /opt; ./rsttrace.pyz doctor && ./rsttrace.pyz demo"
    )
    for word in ("tracing works here", "FORGED", "LOCAL", "PEER", "FUJIAN STAR TERMINAL"):
        assert word in said
    assert files(ready) == before
    ready.run("/opt/rsttrace.pyz --duration 0.1")
    assert {Path(name).parts[:3] for name in files(ready) - before} == {
        ("var", "cache", "rsttrace")
    }


def files(tree: Tree) -> set[str]:
    """All files, also those of the user's home."""
    return tree.files() | {f"root/{path.name}" for path in (tree.path / "root").rglob("*")}
