"""Nothing that we write goes where somebody else led it, and secrets are for their owner alone.

Each writer meets a symbolic link that was planted before: in a sticky folder for everybody (/tmp),
in one that is not sticky, in another user's, and in an ordinary one.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rsttrace import files
from rsttrace.commands.recording import Recording
from rsttrace.commands.top import save_json, save_pcapng
from rsttrace.commands.wholefile import WholeFile
from rsttrace.errors import RsttraceError
from rsttrace.files import Place
from rsttrace.fleet.load import Spool
from rsttrace.kernel import cache, workplace
from rsttrace.kernel.image import Image
from rsttrace.model import Entry
from tests.unit.test_recording import entry

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users")


def record(path: Path, entries: list[Entry], *, private: bool = False) -> None:
    with Recording(str(path), lambda text: None, private=private) as recording:
        for each in entries:
            recording.add(each)


def report(path: Path, entries: list[Entry]) -> None:
    WholeFile(str(path)).write("a page")


def spool_file(path: Path, entries: list[Entry]) -> None:
    Spool(path).put(["a line"])


def spool_journal(path: Path, entries: list[Entry]) -> None:
    spool = Spool(path)
    spool.note(b"a line\n")


WRITERS: dict[str, Callable[[Path, list[Entry]], object]] = {
    "-w": record,
    "--report": report,
    "top, JSON": save_json,
    "top, pcapng": lambda path, entries: save_pcapng(path, entries, []),
    "--spool": spool_file,
    "--spool, journal": spool_journal,
    "--store": lambda path, entries: files.own_folder(str(path)),
    "cache": lambda path, entries: cache.write(path, "ab" * 32, Image("0", {})),
}
"""All that writes to a path that a user names (cache: RSTTRACE_CACHE)."""

SHARED = {"sticky": (0o1777, 0), "for everybody": (0o777, 0), "another user's": (0o755, NOBODY)}


@pytest.fixture
def entries() -> list[Entry]:
    return [entry(1, 10)]


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder in which others may plant something."""
    if os.geteuid() != 0:
        pytest.skip("makes files of other users")
    folder = tmp_path / "shared"
    folder.mkdir()
    mode, owner = SHARED[request.param]
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("way", ["to a file", "to nothing", "to a folder", "by a folder"])
def test_a_planted_link_leads_no_writer_astray(
    name: str, way: str, shared: Path, tmp_path: Path, entries: list[Entry]
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_text("precious")
    target = {"to a file": precious / "file", "to nothing": precious / "new"}.get(way, precious)
    link = shared / "out"
    link.symlink_to(target)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with contextlib.suppress(RsttraceError, OSError):
        WRITERS[name](link / "below" if way == "by a folder" else link, entries)
    assert contents(precious) == {"file": b"precious"}
    assert os.listdir(shared) == ["out"], "it says no, and leaves nothing"
    assert link.is_symlink()


def test_what_was_refused_is_said(shared: Path, tmp_path: Path) -> None:
    (shared / "out").symlink_to(tmp_path / "elsewhere")
    for make in (record, report):
        with pytest.raises(RsttraceError, match="'out' is a symbolic link in a folder that others"):
            make(shared / "out", [])
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("make", [record, report])
def test_a_link_of_our_own_is_followed(
    make: Callable[..., None], tmp_path: Path, entries: list[Entry]
) -> None:
    """Relative and through a folder, in folders that are ours alone; it stays a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("./folder/../folder/out")
    make(tmp_path / "link", entries)
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "real") == ["out"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RsttraceError, match="symbolic links"):
        make(tmp_path / "loop", entries)


@pytest.mark.parametrize("name", WRITERS)
def test_it_goes_where_it_was_to_go_in_a_shared_folder(
    name: str, shared: Path, entries: list[Entry]
) -> None:
    WRITERS[name](shared / "out", entries)
    assert os.listdir(shared) == ["out"]


SECRET = {name: make for name, make in WRITERS.items() if name != "--report"}
SECRET["-w"] = lambda path, entries: record(path, entries, private=True)


@pytest.mark.parametrize("name", SECRET)
def test_what_may_hold_secrets_is_for_us_alone(
    name: str, tmp_path: Path, entries: list[Entry]
) -> None:
    before = os.umask(0)
    try:
        SECRET[name](tmp_path / "out", entries)
    finally:
        os.umask(before)
    found = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert [path for path in found if path.stat().st_mode & 0o077] == []


@needs_root
@pytest.mark.parametrize("private", [False, True])
def test_a_file_that_was_laid_there_does_not_get_ours(
    private: bool, shared: Path, entries: list[Entry]
) -> None:
    """It would be its owner's, with his mode, and our packets in it."""
    out = shared / "out"
    out.touch()
    out.chmod(0o666)
    os.chown(out, NOBODY - 1, NOBODY - 1)
    record(out, entries, private=private)
    found = out.stat()
    assert found.st_uid == os.geteuid()
    assert stat.S_IMODE(found.st_mode) == (0o600 if private else 0o666 & ~umask())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@needs_root
def test_a_user_s_own_file_stays_his(tmp_path: Path, entries: list[Entry]) -> None:
    """`sudo rsttrace -w ~/out.pcapng`; but not with secrets in it."""
    out = tmp_path / "out"
    out.touch(mode=0o640)
    os.chown(tmp_path, NOBODY, NOBODY)
    os.chown(out, NOBODY, NOBODY)
    record(out, entries)
    assert (out.stat().st_uid, stat.S_IMODE(out.stat().st_mode)) == (NOBODY, 0o640)
    record(out, entries, private=True)
    assert (out.stat().st_uid, stat.S_IMODE(out.stat().st_mode)) == (0, 0o600)


@needs_root
def test_a_pipe_that_was_laid_there_gets_nothing(shared: Path) -> None:
    os.mkfifo(shared / "out")
    os.chown(shared / "out", NOBODY - 1, NOBODY - 1)
    reader = os.open(shared / "out", os.O_RDONLY | os.O_NONBLOCK)
    try:
        said: list[str] = []
        with Recording(str(shared / "out"), said.append) as recording:
            assert recording.failed
        assert "another user's" in said[0]
        assert os.read(reader, 1000) == b""
    finally:
        os.close(reader)


@needs_root
def test_a_folder_that_is_swapped_later_changes_nothing(
    tmp_path: Path, entries: list[Entry]
) -> None:
    """Its owner renames it while we trace, and puts a link to another one in its place."""
    folder, precious = tmp_path / "folder", tmp_path / "precious"
    for path in (folder, precious):
        path.mkdir()
    page = WholeFile(str(folder / "page"))
    with Recording(str(folder / "out"), lambda text: None) as recording:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(precious)
        recording.add(entries[0])
        page.write("a page")
    assert os.listdir(precious) == []
    assert sorted(os.listdir(tmp_path / "moved")) == ["out", "page"]


@needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o1777, 0), (0o755, NOBODY)])
def test_a_spool_that_others_may_write_to_is_none(mode: int, owner: int, tmp_path: Path) -> None:
    """They would say what is loaded."""
    folder = tmp_path / "spool"
    folder.mkdir()
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    with pytest.raises(RsttraceError, match="others may write to it"):
        Spool(folder)


@needs_root
def test_nothing_is_compiled_where_others_may_swap_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(RsttraceError, match="not sticky"), workplace._folder([str(tmp_path)]):
        pass
    tmp_path.chmod(0o1777)
    with workplace._folder([str(tmp_path)]) as folder:
        assert folder.parent == tmp_path


def test_a_place_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, error in (
        (tmp_path / "none" / "out", FileNotFoundError),
        (tmp_path / "file" / "out", NotADirectoryError),
    ):
        with pytest.raises(error):
            Place(str(path))
    for name in (f"{tmp_path}", f"{tmp_path}/", f"{tmp_path}/.", f"{tmp_path}/..", "/", ".", ""):
        with pytest.raises(IsADirectoryError):
            Place(name).temporary()


@pytest.fixture
def descriptors() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


def test_no_descriptor_is_left_open(descriptors: None, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "out"))
    opened, name = place.temporary()
    os.close(opened)
    place.replace(name, private=False, alike=True)
    opened, name = place.temporary()
    os.close(opened)
    place.discard(name)
    with pytest.raises(FileNotFoundError):
        place.discard(name)
    del place
    for path in ("none/out", "out/out"):
        with pytest.raises(OSError, match=r"No such|Not a"):
            Place(str(tmp_path / path))
    files.own_folder(str(tmp_path / "folder"))
    os.close(files.new(str(tmp_path / "new")))
