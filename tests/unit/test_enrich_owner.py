"""Owners of sockets: cgroup paths, and a /proc and a cgroup tree of our own."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rsttrace.enrich import Enricher, Owners
from rsttrace.enrich import owner as module
from rsttrace.enrich.owner import parse_cgroup
from rsttrace.model import Cause, Container, Endpoint, Kind, MadeHere, Packet, Pod, Process, Reset
from rsttrace.model import Socket as ResetSocket

ID = "0123456789abcdef" * 4
ID2 = "f" * 64
UID = "6f0c3b1e-1d2c-4a5b-8c9d-0e1f2a3b4c5d"
UID_ = UID.replace("-", "_")
STATIC = "0123456789abcdef0123456789abcdef"
SLICE = f"kubepods-burstable-pod{UID_}.slice"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", (None, None)),
        ("/system.slice/sshd.service", (None, None)),
        ("/user.slice/user-1000.slice/session-3.scope", (None, None)),
        (f"/docker/{ID}", (ID, None)),
        (f"/system.slice/docker-{ID}.scope", (ID, None)),
        (f"/system.slice/docker-{ID}.scope/init.scope", (ID, None)),
        (f"/system.slice/nerdctl-{ID}.scope", (ID, None)),
        (f"/machine.slice/libpod-{ID}.scope/container", (ID, None)),
        (f"/machine.slice/machine-libpod_pod_{ID2}.slice/libpod-{ID}.scope", (ID, None)),
        (f"/machine.slice/machine-libpod_pod_{ID2}.slice", (None, None)),
        (f"/machine.slice/libpod-conmon-{ID}.scope", (None, None)),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", (ID, None)),
        (f"/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope", (ID, UID)),
        (f"/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-{ID}.scope/container", (ID, UID)),
        (f"/kubepods.slice/{SLICE}/crio-conmon-{ID}.scope", (None, UID)),
        (f"/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope", (ID, UID)),
        (f"/kubepods.slice/{SLICE}", (None, UID)),
        (f"/kubepods/besteffort/pod{UID}/{ID}", (ID, UID)),
        (f"/kubepods/pod{STATIC}/{ID}", (ID, STATIC)),
        (f"/kubepods.slice/kubepods-pod{STATIC}.slice/crio-{ID}.scope", (ID, STATIC)),
        (f"/system.slice/containerd.service/{SLICE}:cri-containerd:{ID}", (ID, UID)),
        (f"/docker/{ID2}/kubelet/kubepods/burstable/pod{UID}/{ID}", (ID, UID)),
        (f"/docker/{ID2}/kubelet.slice/kubelet-kubepods-burstable-pod{UID_}.slice/cri-{ID}.scope",
         (ID, UID)),
        (f"/home/pod{UID}/x", (None, None)),
        (f"/docker/{ID}0", (None, None)),
        (f"/docker/{ID[:-1]}", (None, None)),
        (f"/docker/{ID.upper()}", (None, None)),
        (f"/kubepods/pod{UID}x/evil\n{ID}", (None, None)),
    ],
)  # fmt: skip
def test_parse_cgroup(path: str, expected: tuple[str | None, str | None]) -> None:
    assert parse_cgroup(path) == expected


class Counted(Owners):
    """Counts its scans of all cgroups."""

    cgroup_scans = 0

    def _scan_cgroups(self, wanted: int) -> str | None:
        self.cgroup_scans += 1
        return super()._scan_cgroups(wanted)


class Node:
    """A node's files under one root; the clock stands still until told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.owners = Counted(root=str(root), clock=lambda: self.now)
        self.write("proc/self/mountinfo", "")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")

    def process(self, pid: int, comm: str, sockets: dict[int, int], netns: int = 0) -> None:
        self.write(f"proc/{pid}/comm", comm + "\n")
        folder = self.root / f"proc/{pid}/fd"
        folder.mkdir(exist_ok=True)
        (folder / "0").symlink_to("/dev/null")
        for fd, inode in sockets.items():
            (folder / str(fd)).symlink_to(f"socket:[{inode}]")
        # one file per namespace: its inode number is the namespace's
        self.write(f"ns{netns}", "")
        (self.root / f"proc/{pid}/ns").mkdir()
        os.link(self.root / f"ns{netns}", self.root / f"proc/{pid}/ns/net")

    def netns(self, netns: int) -> int:
        return (self.root / f"ns{netns}").stat().st_ino

    def cgroup(self, path: str) -> int:
        folder = self.root / "sys/fs/cgroup/uni fied" / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        self.write(
            "proc/self/mountinfo",
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
            "32 31 0:29 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n"
            "40 31 0:38 /some/part /mnt/part rw - cgroup2 cgroup2 rw\n"
            "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw\n",
        )
        return folder.stat().st_ino


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_process_by_socket(node: Node) -> None:
    node.process(10, "nginx", {3: 111, 4: 222})
    node.process(11, "evil\x1b[31m\udcff", {7: 333})
    assert node.owners.process(222) == (10, "nginx")
    assert node.owners.process(333) == (11, "evil\x1b[31m\udcff")
    assert node.owners.process_scans == 1


def test_shared_socket_belongs_to_the_first_holder(node: Node) -> None:
    node.process(10, "parent", {3: 111})
    node.process(9999, "worker", {3: 111})
    assert node.owners.process(111) == (10, "parent")


def test_own_namespace_comes_first_but_others_are_searched(node: Node) -> None:
    node.process(10, "host", {3: 111}, netns=1)
    node.process(20, "inside", {3: 222}, netns=2)
    assert node.owners.process(222, node.netns(2)) == (20, "inside")
    # the scan ended there: the host's sockets are not known yet
    assert node.owners.process(111, node.netns(2)) is None
    node.now += 1
    assert node.owners.process(111, node.netns(2)) == (10, "host")


def test_a_storm_of_misses_scans_rarely(node: Node) -> None:
    node.process(10, "nginx", {3: 111})
    for inode in range(1000, 3000):
        assert node.owners.process(inode) is None
    assert node.owners.process_scans == 1
    node.now += 0.6
    assert node.owners.process(1000) is None, "known to be nowhere: no scan for it"
    assert node.owners.process_scans == 1
    assert node.owners.process(1001) is None
    assert node.owners.process_scans == 2
    node.now += 6
    node.process(12, "late", {3: 1000})
    assert node.owners.process(1000) == (12, "late")


def test_what_was_put_off_is_said(node: Node) -> None:
    """A walk that may not be repeated yet is no answer."""
    node.process(10, "nginx", {3: 111})
    assert node.owners.process(111) == (10, "nginx")
    assert not node.owners.put_off
    node.process(11, "late", {3: 222})
    assert node.owners.process(222) is None
    assert node.owners.put_off
    assert not node.owners.ready()
    node.now += 1
    assert node.owners.ready()
    assert node.owners.process(222) == (11, "late")


@pytest.mark.parametrize(
    ("stat", "runs"),
    [
        ("10 (a) b) S 1 10", True),
        ("10 (nginx) Z 1 10", False),
        ("10 (Z) R 1 10", True),
        (None, False),
    ],
)
def test_a_process_that_has_ended_runs_no_more(node: Node, stat: str | None, runs: bool) -> None:
    if stat is not None:
        node.write("proc/10/stat", stat + "\n")
    assert node.owners.runs(10) is runs


def test_closed_socket_is_remembered(node: Node) -> None:
    node.process(10, "nginx", {3: 111})
    assert node.owners.process(111) == (10, "nginx")
    (node.root / "proc/10/fd/3").unlink()
    assert node.owners.process(111) == (10, "nginx")
    node.now += 1
    assert node.owners.process(111) == (10, "nginx")
    assert node.owners.process_scans == 2


def test_socket_passed_on(node: Node) -> None:
    node.process(10, "inetd", {3: 111})
    assert node.owners.process(111) == (10, "inetd")
    (node.root / "proc/10/fd/3").unlink()
    node.process(11, "ftpd", {0 + 1: 111})
    node.now += 1
    assert node.owners.process(111) == (11, "ftpd")


def test_slow_scan_stops_goes_on_and_waits_longer(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(10, 20):
        node.process(pid, f"p{pid}", {3: pid * 100})
    learn = node.owners._learn

    def slow(pid: int, wanted: int) -> object:
        node.now += 0.2
        return learn(pid, wanted)

    monkeypatch.setattr(node.owners, "_learn", slow)
    assert node.owners.process(1900) is None
    assert node.owners.process(1200) == (12, "p12")
    node.now += 5
    assert node.owners.process(1900) is None, "a scan of 0.6 s is not repeated for 12 s"
    assert node.owners.process_scans == 1
    for _ in range(3):
        node.now += 13
        found = node.owners.process(1900)
    assert found == (19, "p19")
    assert node.owners.process_scans == 4


def test_cache_is_bounded_and_keeps_the_wanted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SOCKETS", 10)
    node.process(10, "first", {3: 111})
    node.process(11, "crowd", {fd: 1000 + fd for fd in range(3, 60)})
    assert node.owners.process(111) == (10, "first")
    assert node.owners.process(111) == (10, "first")
    assert node.owners.process_scans == 1
    assert len(node.owners._holders) <= 11


def test_real_proc_without_root() -> None:
    with socket.socket() as sock:
        found = Owners().process(os.fstat(sock.fileno()).st_ino)
    assert found is not None
    assert found[0] == os.getpid()


def test_container_and_pod_with_names(node: Node) -> None:
    wanted = node.cgroup(f"kubepods.slice/{SLICE}/cri-containerd-{ID}.scope")
    (node.root / f"var/log/pods/shop_web-0_{UID}/mysql").mkdir(parents=True)
    node.write(f"var/log/containers/web-0_shop_mysql-{ID}.log", "")
    container, pod = node.owners.container(wanted)
    assert container == Container(ID, "mysql")
    assert pod == Pod("shop", "web-0", UID)


def test_names_unknown(node: Node) -> None:
    wanted = node.cgroup(f"kubepods.slice/{SLICE}/cri-containerd-{ID}.scope")
    assert node.owners.container(wanted) == (Container(ID, None), Pod(None, None, UID))
    # they appear later than the cgroup does
    (node.root / f"var/log/pods/shop_web-0_{UID}").mkdir(parents=True)
    node.now += 1
    assert node.owners.container(wanted)[1] == Pod("shop", "web-0", UID)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (json.dumps({"Name": "/web"}), "web"),
        (json.dumps({"Name": 5}), None),
        (json.dumps(["Name"]), None),
        ("{", None),
        ("[" * 100_000, None),
    ],
)
def test_docker_container_name(node: Node, text: str, name: str | None) -> None:
    wanted = node.cgroup(f"system.slice/docker-{ID}.scope")
    node.write(f"var/lib/docker/containers/{ID}/config.v2.json", text)
    assert node.owners.container(wanted) == (Container(ID, name), None)


def test_no_container_and_root_cgroup(node: Node) -> None:
    assert node.owners.container(node.cgroup("system.slice/sshd.service")) == (None, None)
    assert node.owners.container(node.cgroup("/")) == (None, None)


def test_cgroup_scans_are_rare_and_vanished_cgroups_remembered(node: Node) -> None:
    wanted = node.cgroup(f"docker/{ID}")
    assert node.owners.container(wanted)[0] == Container(ID)
    for unknown in range(1 << 60, (1 << 60) + 1000):
        assert node.owners.container(unknown) == (None, None)
    assert node.owners.cgroup_scans == 1
    (node.root / f"sys/fs/cgroup/uni fied/docker/{ID}").rmdir()
    node.now += 1
    assert node.owners.container(1 << 60) == (None, None)
    assert node.owners.cgroup_scans == 2
    assert node.owners.container(wanted)[0] == Container(ID)


def test_no_cgroup2_mount(node: Node) -> None:
    assert node.owners.container(5) == (None, None)


def test_container_of_process_on_v1(node: Node) -> None:
    node.write("proc/10/cgroup", f"12:cpu,cpuacct:/docker/{ID}\n0::/\n")
    assert node.owners.container_of_process(10) == (Container(ID), None)
    assert node.owners.container_of_process(11) == (None, None)


def a_reset(**more: object) -> Reset:
    local, remote = Endpoint("10.0.0.5", 1), Endpoint("10.0.0.6", 2)
    packet = Packet(local, remote, 64, 0, True, 0, "R", 1, 0, 0, 40, 0)
    known: dict[str, object] = {"netns": None, **more}
    return Reset(1, Kind.SENT_ACTIVE, Cause("c", "t"), local, remote, packet, **known)  # type: ignore[arg-type]


def a_socket(inode: int | None = None, uid: int | None = None, cgroup: int | None = None) -> object:
    return ResetSocket(None, None, None, None, inode, uid, cgroup)


def test_enricher_finds_the_owner(node: Node) -> None:
    node.process(10, "nginx", {3: 111})
    cgroup = node.cgroup(f"docker/{ID}")
    with Enricher(neighbors=False, owners=node.owners) as enricher:
        reset = a_reset(socket=a_socket(111, 33, cgroup))
        enricher.enrich(reset)
        assert reset.process == Process(10, "nginx", 33)
        assert reset.container == Container(ID)
        orphan = a_reset(socket=a_socket(None, 33))
        enricher.enrich(orphan)
        assert orphan.process == Process(None, None, 33)
        known = a_reset(socket=a_socket(111, 33), process=Process(7, "curl", None))
        enricher.enrich(known)
        assert known.process == Process(7, "curl", 33)
        none = a_reset()
        enricher.enrich(none)
        assert (none.process, none.container, none.pod, none.next_hop) == (None, None, None, None)


def test_enricher_uses_the_process_where_the_cgroup_is_the_root(node: Node) -> None:
    node.write("proc/10/cgroup", f"12:cpu:/docker/{ID}\n0::/\n")
    reset = a_reset(socket=a_socket(None, 0, node.cgroup("/")), process=Process(10, "x", 0))
    Enricher(neighbors=False, owners=node.owners).enrich(reset)
    assert reset.container == Container(ID)


def test_viewpoint_leaves_out_what_only_the_node_knows() -> None:
    made = MadeHere(os.stat("/proc/self/ns/net").st_ino, Kind.SENT_NETFILTER)
    reset = a_reset(made_here=made)
    Enricher(neighbors=False, owners=False).enrich(reset)
    assert reset.made_here is not None
    assert reset.made_here.netns == made.netns
    Enricher(neighbors=False, owners=False, viewpoint_netns=True).enrich(reset)
    assert reset.made_here is None


@pytest.fixture
def children() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Makes processes that run until they are killed."""
    made = []

    def make() -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["sleep", "60"]))
        return made[-1]

    yield make
    for child in made:
        child.kill()
        child.wait()


def test_a_process_runs_until_it_has_ended(
    children: Callable[[], subprocess.Popen[bytes]],
) -> None:
    """Also one that nobody has waited for yet; and what has its number later is another one."""
    owners, child = Owners(), children()
    for _ in range(2):
        assert owners.runs(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}/stat").exists()
    for _ in range(2):
        assert not owners.runs(child.pid)
    child.wait()
    assert not owners.runs(child.pid)


def test_no_more_processes_are_kept_than_a_few(
    children: Callable[[], subprocess.Popen[bytes]],
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Enricher(neighbors=False) as enricher:
        owners = enricher._owners
        assert owners
        pids = [children().pid for _ in range(module._MAX_LIVES + 5)]
        assert all(owners.runs(pid) for pid in (*pids, *pids))
        assert len(os.listdir("/proc/self/fd")) == before + module._MAX_LIVES
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, ""), OSError(errno.EMFILE, ""), None])
def test_where_a_process_cannot_be_held_its_state_is_read(
    error: OSError | None,
    children: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int) -> int:
        assert error
        raise error

    if error is None:
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    owners, child = Owners(), children()
    assert owners.runs(child.pid)
    child.kill()
    child.wait()
    assert not owners.runs(child.pid)
