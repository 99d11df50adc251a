"""Names and paths of network namespaces, in a directory tree of our own."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from rsttrace.enrich import netns
from rsttrace.enrich.netns import BURST, NetnsDirectory
from rsttrace.enrich.reach import Status
from rsttrace.errors import UsageError

OWN = os.stat("/proc/self/ns/net").st_ino


class Directory(NetnsDirectory):
    """Counts its scans of all processes."""

    scans = 0

    def _scan(self, now: float) -> None:
        self.scans += 1
        super()._scan(now)


class Tree:
    """A /proc and a /run/netns made of plain files; the clock stands still until told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        (root / "names").mkdir()
        for pid in ("self", "1"):
            self.process(pid)
        self.directory = Directory(
            name_dirs=(str(root / "names"), str(root / "docker")),
            proc=str(root / "proc"),
            clock=lambda: self.now,
        )

    def process(self, pid: str) -> int:
        path = self.root / "proc" / pid / "ns" / "net"
        path.parent.mkdir(parents=True)
        path.touch()
        return path.stat().st_ino

    def name(self, name: str, inode_of: Path | None = None) -> int:
        path = self.root / "names" / name
        path.touch() if inode_of is None else os.link(inode_of, path)
        return path.stat().st_ino


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_names_are_raw(tree: Tree) -> None:
    hostile = "evil\x1b[31m\n\udcff"
    inode = tree.name(hostile)
    assert tree.directory.name(inode) == hostile
    assert tree.directory.path(inode) == str(tree.root / "names" / hostile)


def test_process_without_a_name(tree: Tree) -> None:
    inode = tree.process("4711")
    assert tree.directory.name(inode) is None
    assert tree.directory.path(inode) == f"{tree.root}/proc/4711/ns/net"


def test_own_namespace_is_self(tree: Tree) -> None:
    own = (tree.root / "proc/self/ns/net").stat().st_ino
    assert tree.directory.path(own) == f"{tree.root}/proc/self/ns/net"
    init = (tree.root / "proc/1/ns/net").stat().st_ino
    assert tree.directory.path(init) == f"{tree.root}/proc/1/ns/net"


def test_unknown_inodes_do_not_scan_each_time(tree: Tree) -> None:
    for _ in range(1000):
        assert tree.directory.name(1 << 60) is None
    assert tree.directory.scans == 1
    for inode in range(1000):
        assert tree.directory.path((1 << 61) + inode) is None
    assert tree.directory.scans == BURST
    late = tree.name("late")
    tree.now += 0.4
    assert tree.directory.name(1 << 60) is None
    assert tree.directory.scans == BURST
    assert tree.directory.name(late) == "late"
    assert tree.directory.scans == BURST  # a new name is cheap to find
    tree.now += 0.2
    assert tree.directory.name(1 << 60) is None
    assert tree.directory.scans == BURST + 1


def test_a_missed_inode_number_that_gets_a_name(tree: Tree) -> None:
    """No waiting: the number was a namespace's that is gone, and a new one has it now."""
    assert tree.directory.name(1 << 60) is None
    inode = tree.name("new")
    tree.directory._missed[inode] = tree.now  # as if it had just been asked for in vain
    assert tree.directory.name(inode) == "new"
    assert tree.directory.scans == 1


def test_a_name_that_was_seen_before_its_namespace_was_met(tree: Tree) -> None:
    inode = tree.name("again")
    assert not tree.directory.met(inode, 1)
    for missed in range(1000):
        assert tree.directory.path((1 << 61) + missed) is None
    assert tree.directory.met(inode, 2)
    assert tree.directory.name(inode) == "again"


def test_vanished_namespace(tree: Tree) -> None:
    inode = tree.process("4711")
    assert tree.directory.path(inode)
    shutil.rmtree(tree.root / "proc/4711")
    assert tree.directory.path(inode) is None
    tree.now += 1
    assert tree.directory.path(inode) is None


def test_within_a_turn_a_namespace_is_looked_at_once(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before the turn came from what was there: it need not be there any more."""
    inode = tree.process("4711")
    looked = []
    status = netns.status_of

    def watched(path: str) -> Status | None:
        looked.append(path)
        return status(path)

    monkeypatch.setattr(netns, "status_of", watched)
    tree.directory.turn()
    assert tree.directory.path(inode)
    before = len(looked)
    shutil.rmtree(tree.root / "proc/4711")
    assert tree.directory.path(inode)
    assert len(looked) == before
    tree.directory.turn()
    assert tree.directory.path(inode) is None


def test_within_a_turn_another_namespace_with_the_number_is_noticed(tree: Tree) -> None:
    inode = tree.name("one")
    tree.directory.met(inode, 1)
    tree.directory.turn()
    assert tree.directory.name(inode) == "one"
    (tree.root / "names/one").rename(tree.root / "names/two")
    assert tree.directory.met(inode, 2)
    assert tree.directory.name(inode) == "two"


def test_name_given_later(tree: Tree) -> None:
    inode = tree.process("4711")
    assert tree.directory.name(inode) is None
    tree.name("pod", inode_of=tree.root / "proc/4711/ns/net")
    tree.now += 3
    assert tree.directory.name(inode) == "pod"


def test_no_proc_at_all(tmp_path: Path) -> None:
    directory = NetnsDirectory(name_dirs=(), proc=str(tmp_path / "none"))
    assert directory.name(1) is None


@pytest.mark.parametrize("spec", ["self", ".", f"pid:{os.getpid()}", "/proc/self/ns/net", str(OWN)])
def test_resolve_own(spec: str) -> None:
    assert NetnsDirectory().resolve(spec) == OWN


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no network namespace named ''"),
        ("nosuch", "no network namespace named 'nosuch'"),
        ("..", "no network namespace named"),
        ("a\0b", "no network namespace named"),
        ("/a\0b", "cannot open"),
        ("/no/such/file", "does not exist"),
        ("/etc/passwd", "is not a network namespace"),
        ("/dev/null", "is not a network namespace"),
        ("/proc/self/ns/uts", "not a network namespace"),
        ("pid:", "wants a process number"),
        ("pid:-1", "wants a process number"),
        ("pid:²", "wants a process number"),
        ("pid:4194305", "process 4194305 does not exist"),
        ("1", r"inode 1\s"),
        ("99999999999999999999999", "inode 9999"),
    ],
)
def test_resolve_refuses(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        NetnsDirectory().resolve(spec)
    assert raised.value.exit_code == 2


def test_resolve_does_not_wait_for_a_fifo(tmp_path: Path) -> None:
    def too_long(*_: object) -> None:
        raise AssertionError("opening the FIFO blocks")

    os.mkfifo(tmp_path / "fifo")
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(5)
    with pytest.raises(UsageError, match="not a network namespace"):
        NetnsDirectory().resolve(str(tmp_path / "fifo"))
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_an_inode_number_that_is_used_again(tree: Tree) -> None:
    """A miss is not held against the namespace that has the number now."""
    gone = tree.name("gone")
    (tree.root / "names/gone").unlink()
    assert not tree.directory.met(gone, 1)
    assert tree.directory.name(gone) is None
    scans = tree.directory.scans
    assert tree.directory.name(gone) is None
    assert not tree.directory.met(gone, 1)
    assert tree.directory.scans == scans
    assert tree.directory.met(gone, 2)
    assert tree.directory.name(gone) is None
    assert tree.directory.scans == scans + 1
