"""Whom to become, and what the helper does and refuses: a real one, with this user's rights."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsttrace.errors import UsageError
from rsttrace.files import Place
from rsttrace.privileges import capabilities, outfile, wire
from rsttrace.privileges.account import NOBODY, Account, account
from rsttrace.privileges.asking import Helper
from rsttrace.privileges.giving import Giving
from rsttrace.privileges.names import names

ROOT = SimpleNamespace(pw_name="root", pw_uid=0, pw_gid=0)
WEB = SimpleNamespace(pw_name="web", pw_uid=33, pw_gid=34)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is root, and there are two users."""
    users = {user.pw_name: user for user in (ROOT, WEB)}
    numbers = {user.pw_uid: user for user in (ROOT, WEB)}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: users[name])
    monkeypatch.setattr(pwd, "getpwuid", lambda number: numbers[number])


@pytest.mark.usefixtures("root")
def test_whom_root_becomes() -> None:
    assert account("web") == account("33") == Account("web", 33, 34)
    assert account("1234") == Account("uid 1234", 1234, NOBODY)
    assert account(None, keep_root=True) is None
    assert account(None) == Account("uid 65534", 65534, NOBODY)  # there is no nobody here


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("user", "what"),
    [
        ("nobdy", "no such user"),
        ("", "no such user"),
        ("4294967295", "no such user"),
        ("99999999999999999999", "no such user"),
        ("root", "is root"),
        ("0", "is root"),
    ],
)
def test_whom_root_cannot_become(user: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        account(user)


@pytest.mark.usefixtures("root")
def test_one_cannot_both_stay_and_go() -> None:
    with pytest.raises(UsageError, match="contradict"):
        account("web", keep_root=True)


def test_who_is_not_root_stays_what_he_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account(None) is None
    with pytest.raises(UsageError, match="only root"):
        account("web")


def test_capabilities_in_words() -> None:
    kept = capabilities.mask([capabilities.SYS_ADMIN, capabilities.BPF, capabilities.CHOWN])
    assert names(kept) == "CAP_CHOWN, CAP_SYS_ADMIN, CAP_BPF"
    assert names(0) == "no capability"


# ---- the helper ----


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper()
    yield made
    made.close()


def ask(helper: Helper, name: str, *arguments: Any) -> Any:
    """A question in the helper's own words."""
    return helper._ask(name, *arguments)[0]


def refused(helper: Helper, name: str, *arguments: Any) -> int:
    """The error that a question meets."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # its number is what is asked for
        ask(helper, name, *arguments)
    assert not helper.is_gone()
    assert caught.value.errno is not None
    return caught.value.errno


def test_it_hands_over_a_socket_of_our_own_namespace(helper: Helper) -> None:
    with helper.socket(None, socket.AF_INET, socket.SOCK_DGRAM, 0) as sock:
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM)
        assert not sock.get_inheritable()
        sock.bind(("127.0.0.1", 0))


def test_raw_sockets_are_for_probes_alone(helper: Helper) -> None:
    raw = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    helper.seal(probes=False)
    assert refused(helper, "socket", None, *map(int, raw), None) == errno.EPERM


def test_kinds_of_sockets_that_nobody_needs(helper: Helper) -> None:
    for family, kind, protocol in (
        (socket.AF_NETLINK, socket.SOCK_RAW, 12),  # netfilter: rules could be changed by it
        (socket.AF_UNIX, socket.SOCK_STREAM, 0),
        (socket.AF_INET, socket.SOCK_RAW, 255),
    ):
        wanted = (int(family), int(kind), protocol)
        assert refused(helper, "socket", None, *wanted, None) == errno.EPERM


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/run/netns/../../etc/passwd", "/proc/1/ns/mnt", "/proc/1/ns/net/", "x", ""],
)
def test_what_leads_to_no_network_namespace(helper: Helper, path: str) -> None:
    assert refused(helper, "enter", path) == errno.EINVAL
    assert refused(helper, "file", path, "dev") == errno.EINVAL
    assert refused(helper, "status", path) == errno.EPERM


def test_files_are_those_of_a_namespace_alone(helper: Helper) -> None:
    with open(helper.file(None, "dev"), encoding="ascii") as file:
        assert "lo:" in file.read()
    assert refused(helper, "file", None, "/etc/shadow") == errno.EINVAL


def test_tools_are_those_that_list(helper: Helper, tmp_path: Path) -> None:
    for command in (
        ["/bin/sh", "-c", "id"],
        ["nft", "flush", "ruleset"],
        [str(tmp_path / "nft"), "-a", "list", "ruleset"],
        [],
    ):
        assert refused(helper, "start", None, command) in (errno.EPERM, errno.EINVAL)


def test_nothing_is_settled_once_it_is_sealed(helper: Helper, tmp_path: Path) -> None:
    before = helper.out_file(str(tmp_path / "before"), [])
    kept = tmp_path / "kept"
    kept.write_text("vendors")
    helper.settle([], {}, [str(kept)])
    helper.seal(probes=False)
    assert refused(helper, "settle-file", str(tmp_path / "after"), [], -1) == errno.EINVAL
    assert refused(helper, "settle-data", ["/etc/shadow"]) == errno.EINVAL
    assert refused(helper, "seal", True) == errno.EINVAL
    assert refused(helper, "data", "/etc/shadow") == errno.EPERM
    assert refused(helper, "out", 1, "temporary") == errno.EINVAL
    assert refused(helper, "lookup", 0, "00") == errno.EINVAL
    assert refused(helper, "attach", "nf_send_reset") == errno.EINVAL
    with open(helper.data(str(kept)), encoding="ascii") as file:
        assert file.read() == "vendors"
    assert before.identity() is None


@pytest.mark.parametrize(
    "question",
    [None, 7, [], {}, {"ask": "enter"}, {"ask": 1, "with": 2}, {"ask": "enter", "with": [1, 2, 3]},
     {"ask": "out", "with": [0, "replace"]}, {"ask": "owners", "with": [99, "runs", 1]},
     {"ask": "owners", "with": [0, "__init__"]}, {"ask": "wait", "with": [5, "x"]},
     {"ask": "namespaces", "with": []}],
)  # fmt: skip
def test_nonsense_is_no_question(helper: Helper, question: Any) -> None:
    wire.send(helper._channel, question)
    answer, descriptors = wire.receive(helper._channel, wire.ANSWER_MOST)
    assert (answer["errno"], descriptors) == (errno.EINVAL, [])
    assert ask(helper, "namespaces", True)  # it goes on


@pytest.mark.parametrize("said", [b"\xff\xff\xff\xff", b"\x02\0\0\0{]", b"\x01"])
def test_who_does_not_speak_as_he_should_has_no_helper(helper: Helper, said: bytes) -> None:
    helper._channel.sendall(said)
    helper._channel.shutdown(socket.SHUT_WR)
    assert helper._process.wait(10) == 0
    with pytest.raises(PermissionError):
        helper.enter("/proc/1/ns/net")


def test_an_answer_that_is_too_long_is_none() -> None:
    """Neither end is lost by it, nor the next answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(wire.TooLong):
            wire.send(theirs, "x" * 100, most=100)
        wire.send(theirs, "x" * 98, most=100)
        assert wire.receive(ours, 100) == ("x" * 98, [])
        wire.send(theirs, "x" * 99)
        with pytest.raises(wire.Gone):
            wire.receive(ours, 100)


def test_without_its_helper_a_process_has_the_rights_that_it_has(helper: Helper) -> None:
    owners = helper.owners()
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        assert owners.process(inode) is not None
        os.kill(helper.pid, signal.SIGKILL)
        helper._process.wait(10)
        assert helper.is_gone()
        assert owners.process(inode) is not None  # our own
        assert owners.runs(os.getpid())
        assert owners.age_s(os.getpid()) is not None
    with pytest.raises(PermissionError):
        helper.socket(None, socket.AF_INET, socket.SOCK_DGRAM, 0)
    assert helper.status("/proc/self/ns/net") is not None
    assert helper.status("/proc/self/ns/nothing") is None


def test_what_it_says_of_processes_is_what_is_so(helper: Helper) -> None:
    own, asked = reach_owners(), helper.owners()
    pid = os.getpid()
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        assert asked.process(inode) == own.process(inode)
    assert asked.runs(pid) is True
    assert asked.runs(1 << 22) is False
    assert asked.unit_of_process(pid) == own.unit_of_process(pid)
    assert asked.container_of_process(pid) == own.container_of_process(pid)
    cgroup = os.stat("/sys/fs/cgroup").st_ino
    assert asked.unit(cgroup) == own.unit(cgroup)
    assert asked.container(cgroup) == own.container(cgroup)


def reach_owners() -> Any:
    from rsttrace.enrich.owner import owners

    return owners()


# ---- files ----


@pytest.fixture(params=["ours", "the helper's"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[outfile.OutFile]:
    """The place of a file ``out``, beside which ``kept`` must not be removed."""
    path = str(tmp_path / "out")
    kept = tmp_path / "out.1"
    kept.write_text("an input")
    inputs = [(kept.stat().st_dev, kept.stat().st_ino)]
    if request.param == "ours":
        yield Place(path, inputs)
        return
    helper = Helper()
    yield helper.out_file(path, inputs, 1)
    helper.close()


def write(place: outfile.OutFile, text: str, *, private: bool = False, alike: bool = True) -> None:
    descriptor, name = place.temporary()
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    place.replace(name, private=private, alike=alike)


def test_a_file_is_there_whole_with_the_mode_of_the_one_before(
    place: outfile.OutFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert place.identity() is None
    mask = os.umask(0o022)
    os.umask(mask)
    write(place, "first")
    assert (out.read_text(), stat.S_IMODE(out.stat().st_mode)) == ("first", 0o666 & ~mask)
    out.chmod(0o640)
    write(place, "second")
    assert (out.read_text(), stat.S_IMODE(out.stat().st_mode)) == ("second", 0o640)
    write(place, "third", alike=False)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask
    write(place, "fourth", private=True)
    assert (out.read_text(), stat.S_IMODE(out.stat().st_mode)) == ("fourth", 0o600)
    assert place.identity() == (out.stat().st_dev, out.stat().st_ino)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.1"]


def test_full_ones_are_put_aside_and_the_oldest_go_but_for_inputs(
    place: outfile.OutFile, tmp_path: Path
) -> None:
    for text in ("a", "b", "c"):
        write(place, text)
        place.put_aside(1)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"out.1": "an input", "out.4": "c"}


def test_only_what_was_made_here_is_removed_or_renamed(
    place: outfile.OutFile, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("another's")
    with pytest.raises(FileNotFoundError):
        place.discard(str(other))
    with pytest.raises(FileNotFoundError):
        place.replace(str(other), private=False, alike=True)
    descriptor, name = place.temporary()
    os.close(descriptor)
    place.discard(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out.1"]


def test_a_name_that_was_swapped_gets_nobodys_rights(
    place: outfile.OutFile, tmp_path: Path
) -> None:
    """Who may write in the folder puts a link in the place of the temporary file."""
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    descriptor, name = place.temporary()
    os.close(descriptor)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(victim)
    place.replace(name, private=False, alike=True)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_nothing_is_put_aside_but_as_it_was_settled(tmp_path: Path) -> None:
    """Who takes the tracer over cannot have earlier files removed by it."""
    out, earlier = tmp_path / "out", tmp_path / "out.1"
    out.write_text("now")
    earlier.write_text("before")
    helper = Helper()
    never, two = helper.out_file(str(out), []), helper.out_file(str(out), [], 2)
    for place, keep in ((never, 1), (never, None), (never, outfile.NEVER), (two, 1), (two, None)):
        with pytest.raises(PermissionError):
            place.put_aside(keep)
    assert (out.read_text(), earlier.read_text()) == ("now", "before")
    helper.close()


def test_a_pid_leads_to_no_other_file(helper: Helper, tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/system.slice/secret.service\n")
    way = f"..{tmp_path}"
    for what in ("unit_of_process", "container_of_process", "runs", "age_s"):
        assert refused(helper, "owners", 0, what, way) == errno.EINVAL
        assert refused(helper, "owners", 0, what, -1) == errno.EINVAL
    assert ask(helper, "owners", 0, "runs", os.getpid()) is True


def test_a_helper_that_could_not_be_prepared_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is sealed it would do whatever it is asked for."""
    giving = Giving(Account("nobody", NOBODY, NOBODY))
    monkeypatch.setattr(giving, "_become", lambda account: None)
    with giving:
        helper = giving._helper
        assert helper is not None

        def fails(*_: Any) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(helper, "settle", fails)
        giving.give_up()
        assert helper.is_gone()
        with pytest.raises(PermissionError):
            helper.file(None, "dev")
        assert any("the helper is not prepared" in line for line in giving.lines(verbose=False))
