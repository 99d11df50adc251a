"""The folder to compile in: somewhere it can be made, and nothing of it stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsttrace.errors import RsttraceError
from rsttrace.kernel import syscalls, workplace


@pytest.fixture
def no_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise PermissionError(1, "Operation not permitted", "fsopen(2)")

    monkeypatch.setattr(syscalls, "detached_tmpfs", refused)


def old(folder: Path) -> Path:
    """A folder as a killed process leaves it."""
    folder.mkdir(mode=0o700)
    (folder / "config.h").write_text("")
    an_hour_ago = time.time() - 3600
    os.utime(folder, (an_hour_ago, an_hour_ago))
    return folder


def test_a_mount_without_a_place_holds_files_and_is_gone() -> None:
    try:
        descriptor = syscalls.detached_tmpfs()
    except OSError as error:
        pytest.skip(f"needs CAP_SYS_ADMIN and Linux 5.2: {error}")
    mounts = Path("/proc/self/mountinfo").read_text()
    folder = Path(f"/proc/self/fd/{descriptor}")
    (folder / "a").mkdir()
    (folder / "a" / "b.h").write_text("x")
    assert (folder / "a" / "b.h").read_text() == "x"
    with pytest.raises(OSError, match="No space left"):
        (folder / "large").write_bytes(bytes(17 << 20))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    os.close(descriptor)
    assert not folder.exists()


@pytest.mark.usefixtures("no_mount")
def test_the_first_place_that_takes_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, fine = tmp_path / "missing", tmp_path / "fine"
    fine.mkdir()
    monkeypatch.setattr(workplace, "PLACES", (str(missing), str(fine)))
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    with workplace.workplace() as folder:
        assert folder.parent == fine
        (folder / "config.h").write_text("")
    assert list(fine.iterdir()) == []


@pytest.mark.usefixtures("no_mount")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_place_is_left_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, fine = tmp_path / "full", tmp_path / "fine"
    full.mkdir()
    fine.mkdir()
    real = workplace._has_room

    def room(folder: Path) -> str | None:
        if folder.parent == full:
            (folder / "probe").symlink_to("/dev/full")
        return real(folder)

    monkeypatch.setattr(workplace, "PLACES", (str(full), str(fine)))
    monkeypatch.setattr(workplace, "_has_room", room)
    monkeypatch.delenv("TMPDIR", raising=False)
    with workplace.workplace() as folder:
        assert folder.parent == fine
    assert [*full.iterdir(), *fine.iterdir()] == []


@pytest.mark.usefixtures("no_mount")
def test_no_place_at_all_is_one_error_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace, "places", lambda: ["/proc/nowhere", "/dev/null"])
    with (
        pytest.raises(RsttraceError, match=r"/proc/nowhere: No such file.*/dev/null: Not a dir"),
        workplace.workplace(),
    ):
        pass


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = old(tmp_path / "rsttrace-left")
    workplace.reap(str(tmp_path))
    assert not left.exists()


def test_what_is_in_use_fresh_a_stranger_s_or_no_folder_stays(tmp_path: Path) -> None:
    used, other, fresh = (old(tmp_path / name) for name in ("rsttrace-a", "other-a", "rsttrace-b"))
    os.utime(fresh)
    open_to_all = old(tmp_path / "rsttrace-c")
    open_to_all.chmod(0o777)
    linked = tmp_path / "rsttrace-d"
    linked.symlink_to(other)
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    workplace.reap(str(tmp_path))
    os.close(lock)
    assert all(path.exists() for path in (used, other, fresh, open_to_all, linked))
    assert (other / "config.h").exists()


USE = """
import sys, time
from rsttrace.kernel import syscalls, workplace
def refused():
    raise PermissionError(1, "no")
syscalls.detached_tmpfs = refused
workplace.places = lambda: [sys.argv[1]]
with workplace.workplace() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_kill_9_leaves_a_folder_that_the_next_start_removes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USE, str(tmp_path)], stdin=-1, stdout=-1, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        an_hour_ago = time.time() - 3600
        os.utime(folder, (an_hour_ago, an_hour_ago))
        workplace.reap(str(tmp_path))
        assert folder.is_dir()  # it is in use
        process.kill()
        process.wait()
    workplace.reap(str(tmp_path))
    assert not folder.exists()
