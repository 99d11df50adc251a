"""Programs are started in one place, by absolute path, if nobody but root can change them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsttrace import home, programs
from rsttrace.programs import Found
from tests.unit.test_imports import MODULES, dotted

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root and of others")
STARTERS = {
    "os": ("system", "popen", "fork", "forkpty", "startfile", "exec*", "spawn*", "posix_spawn*"),
    "subprocess": ("Popen", "run", "call", "check_*", "getoutput", "getstatusoutput"),
    "shutil": ("which",),
    "asyncio": ("create_subprocess_*", "subprocess"),
    "pty": ("*",),
    "multiprocessing": ("*",),
    "concurrent": ("futures.ProcessPoolExecutor",),
}
"""What starts a process, or looks through $PATH for one."""


def matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def starters(source: str) -> set[str]:
    """Each call, or import by name, of something that starts a process."""
    called: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called.add(ast.unparse(node.func))
        elif isinstance(node, ast.ImportFrom):
            called |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            called |= {f"{alias.name}." for alias in node.names}
    found = set()
    for name in called:
        module, _, rest = name.partition(".")
        if any(matches(rest, pattern) for pattern in STARTERS.get(module, ())):
            found.add(name)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['x'])",
        "import subprocess\nsubprocess.Popen(['x'])",
        "import subprocess\nsubprocess.check_output('x')",
        "from subprocess import run",
        "import os\nos.execve('x', [], {})",
        "import os\ndef f():\n    os.posix_spawnp('x', [], {})",
        "import shutil\nif shutil.which('x'): pass",
        "import multiprocessing",
        "from asyncio import create_subprocess_exec",
        "from os import system as s",
    ],
)
def test_what_starts_a_process_is_recognised(source: str) -> None:
    assert starters(source)


ALLOWED = {
    "rsttrace.programs": {"subprocess.Popen"},
    "rsttrace.privileges.helper": {"os.fork"},  # no other program: itself, to try what it may do
}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_nothing_else_starts_a_process(path: Path) -> None:
    found = starters(path.read_text(encoding="utf-8"))
    assert found == ALLOWED.get(dotted(path), set())


def test_a_program_of_the_system_is_found_whatever_the_path_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = programs.find("sh")
    assert found in ("/usr/bin/sh", "/bin/sh")
    assert programs.look("no-such-program-of-ours") == Found(None, "is not installed")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that only root can have written, down from /: what is below /tmp is not."""
    path = Path("/run") / f"rsttrace-test-{os.getpid()}"
    path.mkdir(mode=0o755)
    try:
        yield path
    finally:
        subprocess.run(["rm", "-r", str(path)], check=True)


def program(path: Path, mode: int = 0o755) -> Path:
    path.write_text("#!/bin/sh\necho it ran\n")
    path.chmod(mode)
    return path


def doubt(folder: Path) -> str:
    found = programs.look("tool", folders=[str(folder)])
    assert found.path is None
    assert found.problem.startswith("is not used: ")
    return found.problem.rpartition(" ")[2]


@needs_root
def test_one_that_others_may_change_is_not_used(folder: Path) -> None:
    tool = program(folder / "tool")
    assert programs.look("tool", folders=[str(folder)]) == Found(str(tool))
    for mode in (0o775, 0o757, 0o1777):
        tool.chmod(mode)
        assert doubt(folder) == str(tool)
    tool.chmod(0o755)
    os.chown(tool, 65534, 0)
    assert doubt(folder) == str(tool)
    for mode in (0o775, 0o757):
        tool.chmod(mode)
        assert programs.look("tool", as_owner=True, folders=[str(folder)]).path is None
    os.chown(tool, 0, 0)
    tool.chmod(0o755)
    folder.chmod(0o1777)
    assert doubt(folder) == str(folder)
    folder.chmod(0o755)
    os.chown(folder, 65534, 0)
    assert doubt(folder) == str(folder)


@needs_root
def test_another_user_s_program_gets_that_user_s_rights(folder: Path) -> None:
    """Debian's lldpcli belongs to lldpd's user, who reads what the network sends, and is setuid."""
    show = "#!/bin/sh\ngrep -E '^(Uid|Gid|Groups|Cap...):' /proc/self/status; tty; pwd\n"
    tool = program(folder / "tool")
    tool.write_text(show)
    os.chown(tool, 65534, 0)
    found = programs.look("tool", as_owner=True, folders=[str(folder)])
    assert found == Found(str(tool), owner=65534)
    done = programs.run([str(tool)], timeout=20, owner=found.owner)
    values = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":" in line)
    nobody = "\t".join(["65534"] * 4)
    assert (values["Uid"], values["Gid"], values["Groups"].strip()) == (nobody, nobody, "")
    assert {values[f"Cap{name}"] for name in ("Prm", "Eff", "Inh", "Amb")} == {"0" * 16}
    assert "not a tty" in done.stdout


@needs_root
def test_neither_is_one_that_a_link_leads_to(folder: Path, tmp_path: Path) -> None:
    real, link = program(tmp_path / "real"), folder / "tool"
    tmp_path.chmod(0o777)
    link.symlink_to(real)
    assert doubt(folder) in {str(parent) for parent in real.parents}
    # root's own link to a folder that others can fill, and on from there to a program of root's
    (tmp_path / "alternatives").symlink_to("/usr/bin/env")
    link.unlink()
    link.symlink_to(tmp_path / "alternatives")
    assert doubt(folder) in {str(parent) for parent in real.parents}


@needs_root
def test_links_of_the_system_are_followed(folder: Path) -> None:
    (folder / "sub").mkdir()
    program(folder / "multi")
    (folder / "sub" / "second").symlink_to("../multi")
    (folder / "tool").symlink_to("sub/./second")
    assert programs.look("tool", folders=[str(folder)]).path == str(folder / "tool")
    (folder / "tool").unlink()
    (folder / "tool").symlink_to("tool")
    assert programs.look("tool", folders=[str(folder)]).path is None
    (folder / "tool").unlink()
    (folder / "tool").mkdir()
    assert "it is no file" in programs.look("tool", folders=[str(folder)]).problem


@needs_root
def test_what_is_found_second_serves(folder: Path) -> None:
    (folder / "first").mkdir()
    program(folder / "first" / "tool", 0o777)
    good = program(folder / "tool")
    both = [str(folder / "first"), str(folder)]
    assert programs.look("tool", folders=both).path == str(good)


HOSTILE = {
    "LD_PRELOAD": "/tmp/evil.so", "LD_LIBRARY_PATH": "/tmp", "LD_AUDIT": "/tmp/evil.so",
    "PYTHONPATH": "/tmp/evil", "PYTHONSTARTUP": "/tmp/evil.py", "PYTHONHOME": "/tmp",
    "BCC_KERNEL_SOURCE": "/tmp/evil", "IFS": "x", "ENV": "/tmp/evil.sh", "BASH_ENV": "/tmp/evil.sh",
    "PATH": "/tmp/evil:/usr/bin", "HOME": "/tmp/evil", "XTABLES_LIBDIR": "/tmp/evil",
    "SSL_CERT_FILE": "/tmp/evil", "https_proxy": "http://evil.example",
}  # fmt: skip
USEFUL = {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "RSTTRACE_CACHE": "", "NO_COLOR": "1"}


def test_the_system_s_programs_get_nothing_of_our_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**HOSTILE, **USEFUL}.items():
        monkeypatch.setenv(name, value)
    env = programs.find("env")
    assert env is not None
    said = programs.run([env], timeout=20).stdout.splitlines()
    assert sorted(said) == ["LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


def test_ours_get_what_we_read_ourselves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And none of it makes Python run or import anything."""
    (tmp_path / "json.py").write_text("raise SystemExit('imported from here')\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {**HOSTILE, **USEFUL, "PYTHONPATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    given = programs.own_environment()
    assert {name: given.get(name) for name in USEFUL} == USEFUL
    assert HOSTILE.keys() & given.keys() == {"PATH", "HOME"}
    code = (
        "import json, os, sys; print(json.dumps([dict(os.environ), sys.path, sys.flags.isolated]))"
    )
    isolated = home.python("rsttrace.kernel.versions")[:2]
    done = programs.run([*isolated, "-c", code], given, timeout=20)
    environment, path, flag = json.loads(done.stdout)
    assert environment.items() >= USEFUL.items()
    assert environment["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"
    assert environment["HOME"] == "/nonexistent"
    assert HOSTILE.keys() & environment.keys() == {"PATH", "HOME"}
    assert flag == 1
    assert not {"", str(tmp_path), "/tmp/evil"} & {*path}


def test_a_name_without_a_path_is_not_started() -> None:
    with pytest.raises(ValueError, match="absolute"):
        programs.start(["env"])


def test_what_takes_too_long_is_ended() -> None:
    sleep = programs.find("sleep")
    assert sleep is not None
    with pytest.raises(subprocess.TimeoutExpired):
        programs.run([sleep, "600"], timeout=0.05)
