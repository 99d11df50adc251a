"""The Debian package: installed in fresh trees, used, upgraded, purged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from packages import deb as builder
from rsttrace import __version__
from tests.packages.trees import RELEASES, Tree, fresh, skip_unless_it_traces

CASES = Path(__file__).parents[1] / "cases"
CAPTURES = ("reason-in-payload.pcap", "pcapng-trailing-isb.pcapng")
BESIDE = ("man-db", "sudo", "bash-completion", "zsh", "fish")
"""What else a user has, whom the package serves."""

EXTRAS = ("fleet",)
"""Rooms that need optional dependencies which the package does not carry."""

USER_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Without the folders of the administrator, as a Debian user has it."""


def test_it_is_the_same_when_it_is_built_again(deb: Path, tmp_path: Path) -> None:
    assert builder.build(tmp_path / "elsewhere").read_bytes() == deb.read_bytes()


def test_lintian_finds_no_error(deb: Path) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on", "error", "--allow-root", str(deb)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=RELEASES)
def tree(request: pytest.FixtureRequest, deb: Path) -> Iterator[Tree]:
    """A fresh tree of a release, with the package lying in it."""
    with tempfile.TemporaryDirectory(prefix="rsttrace-tree-", dir="/var/tmp") as folder:
        made = fresh(request.param, Path(folder, "tree"))
        for path in (deb, *(CASES / name for name in CAPTURES)):
            shutil.copy(path, made.path / "opt")
        yield made


@pytest.fixture(scope="module")
def before(tree: Tree, deb: Path) -> set[str]:
    """Installs the package as a user would; the files that were there once it was purged again."""
    tree.run(f"apt-get update -q && apt-get install -qy /opt/{deb.name}")
    tree.run("rm -f /etc/dpkg/dpkg.cfg.d/excludes")
    tree.run(f"apt-get install -qy --no-install-recommends {' '.join(BESIDE)}")
    tree.run("apt-get purge -qy rsttrace")
    found = tree.files()
    assert {name for name in found if "rsttrace" in name} == {f"opt/{deb.name}"}
    return found


@pytest.fixture(scope="module")
def installed(tree: Tree, before: set[str], deb: Path) -> Tree:
    """The tree with the package installed."""
    tree.run(f"apt-get install -qy /opt/{deb.name}")
    return tree


def test_it_is_on_the_path_of_a_user_and_of_sudo(installed: Tree) -> None:
    for command in ("rsttrace", "sudo rsttrace"):
        said = installed.run(f"cd / && {command} --version", path=USER_PATH)
        assert re.search(rf"\b{re.escape(__version__)}\b", said)


def test_tracing_works_at_once(installed: Tree) -> None:
    skip_unless_it_traces(installed, "rsttrace doctor")
    assert "tracing works here" in installed.run("rsttrace doctor")


def test_the_demo_shows_forgeries_and_honest_resets(installed: Tree) -> None:
    skip_unless_it_traces(installed, "rsttrace doctor")
    said = installed.run("rsttrace demo")
    assert "FORGED" in said
    assert "PEER" in said
    assert "LOCAL" in said


def test_captures_are_read_and_written(installed: Tree) -> None:
    said = installed.run(
        "cd /tmp && rsttrace read /opt/reason-in-payload.pcap -w out.pcapng --report report.html"
        " && rsttrace read out.pcapng && rsttrace read /opt/pcapng-trailing-isb.pcapng && "
        "ls -s report.html",
        path=USER_PATH,
    )
    assert "the peer reset it and says why: BIG-IP" in said
    assert said.count(" 198.51.100.21:443 > 10.9.1.5:40003 ") == 2


def test_the_service_is_there_and_waits_for_its_user(installed: Tree) -> None:
    listed = installed.run("dpkg -L rsttrace").splitlines()
    for name in ("/lib/systemd/system/rsttrace.service", "/etc/rsttrace/fingerprints.d"):
        assert name in listed
        assert (installed.path / name[1:]).exists()
    wanted = installed.path / "etc/systemd/system/multi-user.target.wants"
    assert not (wanted / "rsttrace.service").is_symlink()


def test_the_makers_of_network_cards_are_known(installed: Tree) -> None:
    said = installed.run(
        f"""cd / && python3 -I -c 'import sys; sys.path.insert(0, "/{builder.HOME}"); """
        """from rsttrace.enrich.vendor import vendor; print(vendor("00:d0:f8:22:33:44"))'"""
    )
    assert said == "FUJIAN STAR TERMINAL\n"


def test_everything_that_is_carried_can_be_imported(installed: Tree) -> None:
    """With this release's Python; nothing of ours needs what was left out, but for the extras."""
    said = installed.run(
        f"""cd / && python3 -I -W error::SyntaxWarning -c 'if True:
        import pkgutil, sys
        sys.path.insert(0, "/{builder.HOME}")
        import rsttrace as ours
        names = [m.name for m in pkgutil.walk_packages(ours.__path__, "rsttrace.")]
        for name in names:
            if not name.endswith("__main__") and name.split(".")[1] not in {json.dumps(EXTRAS)}:
                __import__(name)
        print(len(names))'"""
    )
    assert int(said) > 100


def test_there_are_manual_pages(installed: Tree) -> None:
    said = installed.run("MANWIDTH=80 man rsttrace && man rsttrace-locate && whatis rsttrace-read")
    assert "show every TCP reset of this node" in re.sub(r"\s+", " ", said)
    assert "--max-hops" in said
    assert "rsttrace-read (8)" in said


def test_shells_complete_it(installed: Tree) -> None:
    bash, zsh, fish = (f"/{name}" for name in builder.COMPLETIONS.values())
    said = installed.run(
        f"bash -c '. {bash}; COMP_WORDS=(rsttrace loc); COMP_CWORD=1; "
        "_rsttrace_completion rsttrace; echo bash: ${COMPREPLY[@]}'\n"
        "zsh -c 'autoload -Uz compinit; compinit -u -D; echo zsh: $_comps[rsttrace]'\n"
        f"zsh -n {zsh}\n"
        f"fish -c 'source {fish}; echo fish: (complete -C \"rsttrace loc\")'"
    )
    assert "bash: locate" in said
    assert "zsh: _rsttrace" in said
    assert "fish: locate" in said


def test_an_upgrade_replaces_it_and_a_purge_leaves_nothing(
    installed: Tree, before: set[str], deb: Path
) -> None:
    """Last, for it takes the package away."""
    newer = installed.path / "opt" / "new"
    subprocess.run(["dpkg-deb", "-R", str(deb), str(newer)], check=True)
    control = newer / "DEBIAN" / "control"
    text = control.read_text().replace(f"Version: {__version__}", f"Version: {__version__}+1")
    control.write_text(text)
    (newer / builder.HOME / "rsttrace" / "stacks.py").rename(
        newer / builder.HOME / "rsttrace" / "renamed.py"
    )
    subprocess.run(["dpkg-deb", "-Zxz", "-b", str(newer), f"{newer}.deb"], check=True)
    shutil.rmtree(newer)
    code = installed.path / builder.HOME / "rsttrace"
    assert [*code.glob("__pycache__/stacks.*.pyc")]
    installed.run("apt-get install -qy /opt/new.deb")
    assert [*code.glob("__pycache__/stacks.*")] == []
    assert [*code.glob("__pycache__/renamed.*.pyc")]
    kept = installed.path / "var/cache/rsttrace"
    kept.mkdir(exist_ok=True)  # where no trace could run
    (kept / "anything").touch()
    installed.run("apt-get purge -qy rsttrace")
    (installed.path / "opt" / "new.deb").unlink()
    assert installed.files() == before
