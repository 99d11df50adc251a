"""Started by root: what is left of its rights once it traces, and that nothing is lost by it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader

from rsttrace import home
from rsttrace.demo.lab import Lab
from rsttrace.privileges import capabilities as caps
from rsttrace.privileges.names import names
from tests.lab.harness import (
    ADDRESSES,
    PLAN,
    REJECTING,
    ROLES,
    TRACE,
    Fence,
    Json,
    Tracer,
    bpf_programs,
    forward,
    linger_zero,
    load_module,
    pair,
    poll_until,
    refuse,
    skip_without,
    unload_rejecting,
)

NOBODY = 65534
REJECTED, SHUT = 7999, 7998
HELPER = caps.mask(
    [caps.SYS_ADMIN, caps.SYS_PTRACE, caps.DAC_READ_SEARCH, caps.NET_ADMIN, caps.NET_RAW]
)
FILES = caps.mask([caps.DAC_OVERRIDE, caps.CHOWN, caps.FOWNER])
PACKAGES = (
    *("pyroute2", "netaddr", "jinja2", "markupsafe", "click", "scapy"),
    *("tomli", "typing_extensions", "importlib_metadata", "zipp"),  # with older Pythons
)


def status(pid: int, thread: str = "") -> dict[str, str]:
    """What proc_pid_status(5) says of a process or a thread."""
    text = Path(f"/proc/{pid}", *(("task", thread) if thread else ()), "status").read_text()
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def rights(found: dict[str, str]) -> dict[str, int]:
    """Its capabilities, by their set."""
    return {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}


def helpers(pid: int) -> list[int]:
    """The children of a tracer that have not ended."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if status(int(child))["State"][0] != "Z"]


def is_there(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return status(pid)["State"][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_hook_whose_module_comes_later_is_attached_by_the_helper(routed: Lab) -> None:
    if "RSTTRACE_KERNELS_REPORT" in os.environ:  # in a guest, whose modules are ours
        unload_rejecting(routed)
    tracer = Tracer("-v")
    try:
        tracer.wait_for(lambda: "  helper: " in tracer.status, "the last line of the start")
        if "will be when the module nf_reject_ipv4 is loaded" not in tracer.status:
            pytest.skip("no hook waits for a module here: it is loaded, or there are no kprobes")
        (helper,) = helpers(tracer.process.pid)
        late = caps.mask([caps.BPF, caps.PERFMON])
        assert int(status(helper)["CapEff"], 16) == HELPER | late
        load_module(REJECTING[-1])
        tracer.wait_for(lambda: "now attached: nf_send_reset\n" in tracer.status, "the hook")
    finally:
        assert tracer.stop() == 0


def test_it_is_nobody_without_any_right_and_a_helper_has_few(routed: Lab, tmp_path: Path) -> None:
    tracer = Tracer("--metrics", "0", "--report", str(tmp_path / "page.html"))
    try:
        refuse(routed, ADDRESSES["server"][0])
        tracer.collect(routed.inode("client"), 1)  # by now it has threads
        pid = tracer.process.pid
        for thread in os.listdir(f"/proc/{pid}/task"):
            found = status(pid, thread)
            assert found["Uid"].split() == found["Gid"].split() == [str(NOBODY)] * 4
            assert found["Groups"] == ""
            assert set(rights(found).values()) == {0}
            assert found["NoNewPrivs"] == "1"
        assert int(status(pid)["CapBnd"], 16) == 0
        (helper,) = helpers(pid)
        found = status(helper)
        assert rights(found) == {"CapInh": 0, "CapPrm": HELPER | FILES | looks_up(pid),
                                 "CapEff": HELPER | FILES | looks_up(pid), "CapAmb": 0}  # fmt: skip
        assert found["NoNewPrivs"] == "1"
        assert [os.readlink(f"/proc/{helper}/fd/{n}") for n in range(3)] == ["/dev/null"] * 3
    finally:
        assert tracer.stop() == 0
    assert not is_there(helper)


def looks_up(pid: int) -> int:
    """CAP_BPF, where looking up in a map takes it (before 5.19), or a hook waits (with PERFMON)."""
    (helper,) = helpers(pid)
    more = int(status(helper)["CapEff"], 16) & ~(HELPER | FILES)
    assert more in (0, caps.mask([caps.BPF]), caps.mask([caps.BPF, caps.PERFMON]))
    if os.uname().release.startswith(("6.", "7.")) and PLAN != "kprobes":
        assert more & caps.mask([caps.BPF]) == 0
    return more


def test_what_stays_is_said(routed: Lab) -> None:
    tracer = Tracer("-v")
    try:
        (helper,) = helpers(tracer.process.pid)
        kept = names(int(status(helper)["CapEff"], 16))
        lines = (f"  helper: {helper}, with {kept}\n", "  runs as nobody, without capabilities\n")
        tracer.wait_for(lambda: all(line in tracer.status for line in lines), "both lines")
        assert "warning" not in tracer.status
    finally:
        tracer.stop()


def test_keep_root_keeps_root() -> None:
    tracer = Tracer("--keep-root")
    try:
        assert status(tracer.process.pid)["Uid"].split() == ["0"] * 4
        assert helpers(tracer.process.pid) == []
    finally:
        assert tracer.stop() == 0


def test_another_user_by_number() -> None:
    tracer = Tracer("--user", "61234")
    try:
        assert status(tracer.process.pid)["Uid"].split() == ["61234"] * 4
        assert status(tracer.process.pid)["Gid"].split() == [str(NOBODY)] * 4
    finally:
        assert tracer.stop() == 0


def test_locate_is_nobody_while_it_probes(routed: Lab) -> None:
    """Of a peer that answers nothing; its raw sockets were opened by the helper."""
    routed.nft("router", forward("drop"))
    command = [sys.executable, "-m", "rsttrace", "locate", "10.71.2.9", "--timeout", "10"]
    with subprocess.Popen(
        [*command, "--netns", routed.name("client"), "-o", "json"], stdout=subprocess.PIPE
    ) as process:
        poll_until(lambda: status(process.pid)["Uid"].split() == [str(NOBODY)] * 4, "nobody")
        assert set(rights(status(process.pid)).values()) == {0}

        def raw_sockets() -> list[str]:
            table = Path(f"/proc/{process.pid}/fd")
            return [
                link for fd in table.iterdir() if (link := os.readlink(fd)).startswith("socket:")
            ]

        poll_until(lambda: len(raw_sockets()) > 3, "its sockets")
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert json.loads(told)["path"]["hops"][0]["answers"][0]["ip"] == "10.71.1.254"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--user", "no-such-user"), "there is no such user"),
        (("--user", "root"), "is root"),
        (("--user", "nobody", "--keep-root"), "contradict each other"),
    ],
)
def test_a_user_that_cannot_be_is_one_clear_error(options: tuple[str, ...], words: str) -> None:
    before = bpf_programs()
    done = subprocess.run([*TRACE, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    what, todo = done.stderr.splitlines() if "\n" in done.stderr.strip() else (done.stderr, "")
    assert what.startswith("rsttrace: ")
    assert words in what
    assert "--" in what + todo
    assert not bpf_programs() - before


# ---- nothing is lost ----


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder that only root may look into, with all of our code."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    for part in (home.ROOT / "rsttrace", home.ROOT / "bpf"):  # the second of a checkout alone
        if part.exists():
            (folder / part.name).symlink_to(part)
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            origin = Path(found.origin)
            part = origin.parent if origin.name == "__init__.py" else origin
            (folder / part.name).symlink_to(part)
    assert folder.stat().st_mode & 0o077 == 0
    return folder


START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from rsttrace.cli import main; main()"


def notes(entries: list[Json], name: str) -> list[Json]:
    """The values of notes of a name."""
    return [
        item["values"] for entry in entries for item in entry["evidence"] if item["rule"] == name
    ]


def test_what_root_knows_nobody_tells(routed: Lab, private: Path, tmp_path: Path) -> None:
    """All that takes rights is asked of other namespaces, from code that nobody could read."""
    skip_without("nft")
    client, server = routed.inode("client"), routed.inode("server")
    routed.ip("router", "link set cl0 address 00:d0:f8:22:33:44")
    routed.ip("client", "neigh flush all")
    routed.nft("router", forward(f"tcp dport {REJECTED} counter reject with tcp reset"))
    written = private / "out"
    written.mkdir(mode=0o700)
    os.chown(written, 61234, 61234)  # root's rights alone are not enough without CAP_DAC_OVERRIDE
    old = private / "out" / "resets.pcapng"
    old.write_bytes(b"old")
    os.chown(old, 61234, 61234)
    old.chmod(0o640)
    page = private / "out" / "page.html"
    with contextlib.ExitStack() as stack:
        _, accepted = stack.enter_context(pair(routed, "client", "server", 7100))
        program = [sys.executable, "-I", "-S", "-c", START, str(private), "trace", "--plan", PLAN]
        mine = [option for role in ROLES for option in ("--netns", routed.name(role))]
        tracer = Tracer("-w", str(old), "--report", str(page), *mine, program=program)
        stack.callback(tracer.stop)
        with routed.inside("server"):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", SHUT)))
        linger_zero(accepted)
        accepted.close()

        def wanted(netns: int, port: int) -> list[Json]:
            return [
                e for e in tracer.of(netns) if port in (e["local"]["port"], e["remote"]["port"])
            ]

        tracer.wait_for(lambda: bool(wanted(client, 7100)), "the reset of the older connection")
        # whose an older connection is, only its descriptors tell
        assert wanted(client, 7100)[0]["process"]["pid"] == os.getpid()
        assert wanted(client, 7100)[0]["netns_name"] == routed.name("client")

        refuse(routed, ADDRESSES["server"][0], REJECTED)
        tracer.wait_for(lambda: bool(notes(wanted(client, REJECTED), "rejecting-rule")), "the rule")
        (entry,) = wanted(client, REJECTED)
        neighbor, hop = entry["neighbor"], entry["next_hop"]
        assert (neighbor["mac"], neighbor["ip"]) == ("00:d0:f8:22:33:44", "10.71.1.254")
        assert neighbor["vendor"].startswith("FUJIAN STAR")
        assert neighbor["is_gateway"] is True
        assert (hop["ip"], hop["mac"]) == ("10.71.1.254", "00:d0:f8:22:33:44")
        (rule,) = notes([entry], "rejecting-rule")[0]["rules"]
        assert str(REJECTED) in rule["rule"]

        def is_noted() -> bool:
            refuse(routed, ADDRESSES["server"][0], SHUT)
            found = notes(wanted(server, SHUT), "listens-local-only")
            return any(one["listeners"][0]["pid"] == os.getpid() for one in found)

        poll_until(is_noted, "the listener")
        assert listener.fileno() >= 0
        assert status(tracer.process.pid)["Uid"].split()[0] == str(NOBODY)
        assert tracer.stop() == 0
        shown = len(tracer.entries)
    assert "warning" not in tracer.status
    found = old.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (61234, 0o640)
    assert page.stat().st_uid == 0
    assert "10.71.2.2" in page.read_text(encoding="utf-8")
    with PcapNgReader(str(old)) as packets:
        assert len(list(packets)) >= shown / 2
    assert sorted(path.name for path in written.iterdir()) == ["page.html", "resets.pcapng"]


def test_files_are_begun_anew_in_root_s_folder(routed: Lab, tmp_path: Path) -> None:
    """--rotate renames and removes, long after the rights are gone."""
    folder = tmp_path / "root's"
    folder.mkdir(mode=0o700)
    out = folder / "resets.pcapng"
    tracer = Tracer(
        "-w", str(out), "--rotate", "1k", "--keep", "2", "--netns", routed.name("client")
    )
    try:
        for number in range(8):
            refuse(routed, ADDRESSES["server"][0])
            tracer.collect(routed.inode("client"), number + 1)
    finally:
        assert tracer.stop() == 0
    names_there = sorted(path.name for path in folder.iterdir())
    assert len(names_there) == 3
    assert names_there[0] == out.name
    assert all(re.fullmatch(r"resets\.pcapng\.\d+", name) for name in names_there[1:])


# ---- the helper ends, the tracer ends ----


def test_without_its_helper_it_goes_on_and_says_so(routed: Lab, fence: Fence) -> None:
    tracer = Tracer()
    try:
        fence.cross(tracer)
        (helper,) = helpers(tracer.process.pid)
        os.kill(helper, signal.SIGKILL)
        tracer.wait_for(lambda: "warning: the helper has ended" in tracer.status, "the warning")
        refuse(routed, ADDRESSES["server"][0])
        (entry,) = tracer.collect(routed.inode("client"), 1)
        assert (entry["origin"], entry["neighbor"]["ip"]) == ("peer", None)
        assert entry["neighbor"]["mac"] is not None  # that the packet told
        fence.cross(tracer)
    finally:
        assert tracer.stop() == 0
    assert tracer.status.count("the helper has ended") == 1
    assert "Traceback" not in tracer.status


def test_killed_it_leaves_no_helper() -> None:
    before = bpf_programs()
    tracer = Tracer()
    ours = bpf_programs() - before
    (helper,) = helpers(tracer.process.pid)
    assert tracer.stop(signal.SIGKILL) == -signal.SIGKILL
    poll_until(lambda: not is_there(helper), "the helper to end")
    poll_until(lambda: not ours & bpf_programs(), "the programs to be gone")


def test_a_signal_for_all_of_a_terminal_ends_it_cleanly(routed: Lab, tmp_path: Path) -> None:
    """The helper outlives it: it has files to put in their places."""
    out = tmp_path / "out.pcapng"
    tracer = Tracer("-w", str(out), "--netns", routed.name("client"))
    (helper,) = helpers(tracer.process.pid)
    refuse(routed, ADDRESSES["server"][0])
    tracer.collect(routed.inode("client"), 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(helper, number)
    assert tracer.stop() == 0
    assert "warning" not in tracer.status
    assert out.stat().st_size > 0
    poll_until(lambda: not is_there(helper), "the helper to end")


# ---- where less is possible ----


def within(script: str) -> list[str]:
    """The tracer in mounts of its own, after a script."""
    skip_without("unshare")
    return ["unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh", *TRACE]


def test_without_a_database_of_users(routed: Lab, tmp_path: Path) -> None:
    switch = tmp_path / "nsswitch.conf"
    switch.write_text("passwd: files\n")  # systemd's own module knows nobody without it
    empty = f"mount --bind /dev/null /etc/passwd && mount --bind {switch} /etc/nsswitch.conf"
    tracer = Tracer("--netns", routed.name("client"), program=within(empty))
    try:
        refuse(routed, ADDRESSES["server"][0])
        (entry,) = tracer.collect(routed.inode("client"), 1)
        assert entry["neighbor"]["ip"] == "10.71.1.254"
        assert status(tracer.process.pid)["Uid"].split() == [str(NOBODY)] * 4
        line = "  there is no user nobody: runs as uid 65534\n"
        tracer.wait_for(lambda: line in tracer.status, "the line")
    finally:
        assert tracer.stop() == 0


def test_where_processes_are_hidden(routed: Lab) -> None:
    """hidepid=2 of proc(5): nobody sees only his own."""
    hidden = "mount -t proc -o hidepid=2 proc /proc"
    with pair(routed, "client", "server", 7100) as (_, accepted):
        tracer = Tracer("--netns", routed.name("client"), program=within(hidden))
        try:
            linger_zero(accepted)
            accepted.close()
            (entry,) = tracer.collect(routed.inode("client"), 1)
            assert entry["process"]["pid"] == os.getpid()
            assert entry["neighbor"]["ip"] == "10.71.1.254"
        finally:
            assert tracer.stop() == 0


def test_root_that_may_not_become_another_has_no_capabilities(routed: Lab) -> None:
    """As in a container without CAP_SETUID: it says so."""
    skip_without("setpriv")
    few = ["setpriv", "--bounding-set", "-setuid,-setgid", "--inh-caps", "-all"]
    tracer = Tracer("--netns", routed.name("client"), program=[*few, *TRACE])
    try:
        refuse(routed, ADDRESSES["server"][0])
        (entry,) = tracer.collect(routed.inode("client"), 1)
        assert entry["neighbor"]["ip"] == "10.71.1.254"
        found = status(tracer.process.pid)
        assert (found["Uid"].split()[1], rights(found)["CapEff"]) == ("0", 0)
        line = "warning: cannot become nobody"
        tracer.wait_for(lambda: line in tracer.status, "the warning")
    finally:
        assert tracer.stop() == 0
