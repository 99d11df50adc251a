"""Compiled programs that are kept: whom a file must belong to, and what becomes of a broken one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rsttrace.kernel import bcc, cache, image
from rsttrace.kernel.image import Code, Image, Map

IMAGE = Image(
    "0.26.0",
    {"flows": Map(9, 40, 800, 16384, 0), "events": Map(27, 0, 0, 1 << 24, 0)},
    {"rt_kfree_skb": Code(bytes(range(64)), {8: "flows", 24: "events"}), "empty": Code(b"", {})},
)
NAME = "a" * 64


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_what_is_kept_comes_back_as_it_was(where: Path) -> None:
    assert cache.read(where, NAME) is None
    cache.write(where, NAME, IMAGE)
    assert cache.read(where, NAME) == IMAGE
    assert image.loads(IMAGE.dumps()) == IMAGE
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert stat.S_IMODE((where / NAME).stat().st_mode) == 0o600
    assert [path.name for path in where.iterdir()] == [NAME]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_trusted(where: Path, mode: int) -> None:
    cache.write(where, NAME, IMAGE)
    (where / NAME).chmod(mode)
    assert cache.read(where, NAME) is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_may_write_is_not_used(where: Path, mode: int) -> None:
    cache.write(where, NAME, IMAGE)
    where.chmod(mode)
    assert cache.read(where, NAME) is None
    cache.write(where, "b" * 64, IMAGE)
    assert [path.name for path in where.iterdir()] == [NAME]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else: needs root")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_somebody_else_is_not_trusted(where: Path, what: str) -> None:
    cache.write(where, NAME, IMAGE)
    os.chown(where / NAME if what == "file" else where, 65534, 65534)
    assert cache.read(where, NAME) is None


def test_links_are_not_followed(where: Path, tmp_path: Path) -> None:
    cache.write(where, NAME, IMAGE)
    link = tmp_path / "link"
    link.symlink_to(where)
    assert cache.read(link, NAME) is None
    (where / "b").symlink_to(where / NAME)
    assert cache.read(where, "b") is None
    (where / "folder").mkdir()
    assert cache.read(where, "folder") is None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "nonsense", "\xff", IMAGE.dumps()[:-9], '{"bcc_version":1,"maps":1}'],
)
def test_a_broken_file_is_as_none(where: Path, text: str) -> None:
    cache.write(where, NAME, IMAGE)
    (where / NAME).write_text(text, encoding="latin-1")
    assert cache.read(where, NAME) is None


def test_the_oldest_go_and_nothing_that_is_not_ours(where: Path) -> None:
    where.mkdir(mode=0o700)
    for name in ("README", "f" * 63, "F" * 64):
        (where / name).write_text("somebody's")
        os.utime(where / name, ns=(0, 0))
    for number in range(cache.KEPT + 3):
        cache.write(where, f"{number:064x}", IMAGE)
        os.utime(where / f"{number:064x}", ns=(number, number))
    names = {path.name for path in where.iterdir()}
    kept = {f"{number:064x}" for number in range(3, cache.KEPT + 3)}
    assert names == kept | {"README", "f" * 63, "F" * 64}


def test_who_is_killed_while_it_is_written_leaves_no_file(where: Path) -> None:
    """And the one that was there before is there still."""
    cache.write(where, NAME, IMAGE)
    code = f"""
import os, signal
from pathlib import Path
from rsttrace.kernel import cache
class Dies:
    def dumps(self):
        os.kill(os.getpid(), signal.SIGKILL)
cache.write(Path({str(where)!r}), {NAME!r}, Dies())
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in where.iterdir()] == [NAME]
    assert cache.read(where, NAME) == IMAGE


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache.write(tmp_path / "file", NAME, IMAGE)
    cache.write(tmp_path / "no" / "parent", NAME, IMAGE)
    assert cache.read(tmp_path / "file", NAME) is None


def test_the_name_depends_on_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, notes = tmp_path / "libbcc.so.0", tmp_path / "notes"
    library.write_text("one")
    notes.write_text("build id")
    monkeypatch.setattr(cache, "NOTES", notes)
    names = [cache.key(["a", "bc"], [library])]
    assert cache.key(["a", "bc"], [library]) == names[0]
    names.append(cache.key(["ab", "c"], [library]))
    names.append(cache.key(["a", "bc"], []))
    library.write_text("another")
    names.append(cache.key(["a", "bc"], [library]))
    notes.write_text("another build id")
    names.append(cache.key(["a", "bc"], [library]))
    notes.unlink()
    names.append(cache.key(["a", "bc"], [library]))
    monkeypatch.setattr("rsttrace.__version__", "99")
    names.append(cache.key(["a", "bc"], [library]))
    assert len(set(names)) == len(names)
    assert all(len(name) == 64 for name in names)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.folder({cache.VARIABLE: "/somewhere"}) == Path("/somewhere")
    assert cache.folder({cache.VARIABLE: ""}) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache.folder({}) == Path(cache.FOLDER)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache.folder({}) is None


def test_bcc_is_told_apart_without_loading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "version.py").write_text("")
    (tmp_path / "x86_64").mkdir()
    (tmp_path / "x86_64" / "libbcc.so.0").write_text("")
    monkeypatch.setattr(bcc, "SYSTEM_PACKAGES", ())
    monkeypatch.setattr(bcc, "LIBRARIES", (str(tmp_path),))
    monkeypatch.setenv("RSTTRACE_BCC_PATH", str(tmp_path))
    found = bcc.files()
    assert tmp_path / "bcc" / "version.py" in found
    assert tmp_path / "x86_64" / "libbcc.so.0" in found
