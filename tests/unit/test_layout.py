from __future__ import annotations

import ast
import ctypes
import re
import shutil
import subprocess
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rsttrace import home, limits
from rsttrace.errors import RsttraceError
from rsttrace.home import resource
from rsttrace.kernel import config, decode, layout
from rsttrace.model import Scope

STRUCTURES = tuple(vars(layout.structures()))

TYPES = """\
typedef unsigned char __u8; typedef unsigned short __u16;
typedef unsigned int __u32; typedef unsigned long long __u64;
"""


def structure(name: str) -> Any:
    return getattr(layout.structures(), name)


def members(name: str) -> dict[str, Any]:
    """The types of a structure's members by name, in their order."""
    return dict(structure(name)._fields_)


def place(name: str, member: str) -> tuple[int, int]:
    """A member's offset and size."""
    found = getattr(structure(name), member)
    return found.offset, found.size


def parsed() -> list[str]:
    """One line for each structure and member: name, offset, size."""
    lines = []
    for name in STRUCTURES:
        lines.append(f"{name} {ctypes.sizeof(structure(name))}")
        for member in members(name):
            offset, size = place(name, member)
            lines.append(f"{name}.{member} {offset} {size}")
    return lines


def test_all_structures_are_found() -> None:
    text = (layout.bpf_directory() / "event.h").read_text()
    assert text.count("\nstruct rst_") == len(STRUCTURES) > 5


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) to compare with")
def test_the_parsed_layout_is_the_compilers(tmp_path: Path) -> None:
    prints = []
    for name in STRUCTURES:
        prints.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        prints += [
            f'printf("{name}.{member} %zu %zu\\n", offsetof(struct {name}, {member}), '
            f"sizeof(((struct {name} *)0)->{member}));"
            for member in members(name)
        ]
    (tmp_path / "config.h").write_text(config.defines(config.constants()))
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        + TYPES
        + '#include "event.h"\nint main(void)\n{\n'
        + "\n".join(prints)
        + "\nreturn 0;\n}\n"
    )
    program = tmp_path / "layout"
    subprocess.run(
        [
            "cc",
            "-Wall",
            "-Werror",
            f"-I{tmp_path}",
            f"-I{layout.bpf_directory()}",
            "-o",
            program,
            source,
        ],
        check=True,
    )
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert told.splitlines() == parsed()


@pytest.mark.parametrize("name", STRUCTURES)
def test_there_is_no_implicit_padding(name: str) -> None:
    """The kernel side copies whole structures: a hole would carry what was there before."""
    end = 0
    for member in members(name):
        offset, size = place(name, member)
        assert offset == end, f"a hole before {name}.{member}"
        end += size
    assert end == ctypes.sizeof(structure(name)), f"a hole at the end of {name}"
    assert end % 4 == 0


def test_the_event_is_a_whole_number_of_words() -> None:
    assert layout.event_size() == ctypes.sizeof(structure("rst_event"))
    assert layout.event_size() % 8 == 0  # ring buffer records are


def test_c_defines_no_number_that_python_hands_over() -> None:
    text = "".join(path.read_text() for path in layout.bpf_directory().iterdir())
    known = config.constants()
    assert {"KIND_LATE", "SCOPE_PEER", "COUNT_LOST", "ST_CLOSE", "RECENT"} <= set(known)
    defined = re.findall(r"#define (\w+)", text)
    for enumerators in re.findall(r"\benum\b[^{;]*{([^}]*)}", text):
        defined += re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", enumerators)
    assert {"TRACKED", "PHASE_IN", "PHASE_TOLD"} <= set(defined)
    assert set(defined).isdisjoint(known)


def test_constants_agree() -> None:
    for number in (limits.RECENT, limits.TTLS, limits.PAYLOAD_MAX):  # C masks with them
        assert number & (number - 1) == 0
    assert config.SCOPES[0] is Scope.NONE  # an event begins as zeroes
    assert set(config.SCOPES) == set(Scope)
    assert len(config.KIND_NUMBERS) <= 256
    assert sorted(config.KIND_NUMBERS.values()) == list(range(len(config.KIND_NUMBERS)))


# ---- decode.py reads only what is there ----

RAW_MEMBERS = {
    "_headers": "rst_headers",
    "_frame": "rst_frame",
    "half": "rst_half",
    "peer_half": "rst_peer",
    "peer": "rst_peer",
    "_payload": "rst_headers",
    "_socket": "rst_socket",
    "_timers": "rst_detail",
    "_accept_queue": "rst_detail",
    "_task": "rst_task",
    "_sent_data": "rst_data",
    "_made_here": "rst_made",
}
"""Functions of decode.py whose argument `raw` is one of our structures."""


def members_read(function: ast.FunctionDef, root: str) -> set[str]:
    """Dotted paths of what a function reads from a variable, as far as each goes."""
    inner = {
        id(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    }
    found = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        path, at = [], node.value
        path.append(node.attr)
        while isinstance(at, ast.Attribute):
            path.append(at.attr)
            at = at.value
        if isinstance(at, ast.Name) and at.id == root:
            found.add(".".join(reversed(path)))
    return found


def has_member(name: str, path: str) -> bool:
    """Whether a structure has a member, given by its dotted path."""
    first, _, rest = path.partition(".")
    found = members(name).get(first)
    return found is not None and (not rest or has_member(found.__name__, rest))


def functions_of_decode() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(Path(decode.__file__).read_text(encoding="utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_member_that_decode_reads_exists() -> None:
    functions = functions_of_decode()
    read = set().union(*(members_read(function, "event") for function in functions.values()))
    assert {"kind", "sock.uid", "detail.rcv_nxt"} <= read
    assert [path for path in read if not has_member("rst_event", path)] == []
    for name, struct in RAW_MEMBERS.items():
        read = members_read(functions[name], "raw")
        assert read, f"{name} reads nothing"
        assert [path for path in read if not has_member(struct, path)] == [], name


@pytest.mark.parametrize("name", ["SEEN", "TTL", "CLOCK", "HALF"])
def test_what_is_read_at_once_is_what_each_member_says(name: str) -> None:
    """`unpacker` against ctypes, on bytes that are all different."""
    of = structure(f"rst_{name.lower()}")
    data = bytes(number % 251 for number in range(1, ctypes.sizeof(of) + 1))
    raw = of.from_buffer_copy(data)
    wanted = getattr(decode, name)
    expected = [getattr(raw, member) for member in wanted]
    expected = [each if isinstance(each, int) else bytes(each) for each in expected]
    assert list(layout.unpacker(of.__name__, *wanted).unpack_from(raw)) == expected


def test_what_is_read_at_once_is_named_in_order() -> None:
    with pytest.raises(ValueError, match="struct rst_seen: ts comes earlier"):
        layout.unpacker("rst_seen", "seq", "ts")


def test_no_function_of_decode_is_left_out() -> None:
    """A new function that takes a raw structure must be listed above."""
    taking = set()
    for name, function in functions_of_decode().items():
        annotation = function.args.args[0].annotation if function.args.args else None
        untyped = isinstance(annotation, ast.Name) and annotation.id == "Any"
        if untyped and members_read(function, "raw"):
            taking.add(name)
    assert taking == RAW_MEMBERS.keys()


# ---- where the sources are ----


def test_a_damaged_installation_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(home, "resource", partial(resource, root=tmp_path))
    with pytest.raises(RsttraceError, match=r"BPF sources are missing.*\n.*reinstall"):
        layout.bpf_directory.__wrapped__()


@pytest.mark.parametrize("place", ["rsttrace/bpf", "bpf"])
def test_sources_are_found_in_a_wheel_and_in_a_checkout(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(home, "resource", partial(resource, root=tmp_path))
    directory = tmp_path / place
    directory.mkdir(parents=True)
    (directory / "event.h").write_text("")
    assert layout.bpf_directory.__wrapped__() == directory


def test_sources_are_found_in_a_zip_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = tmp_path / "rsttrace.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("rsttrace/bpf/event.h", "struct")
    monkeypatch.setattr(home, "resource", partial(resource, root=archive))
    found = layout.bpf_directory.__wrapped__()
    assert [(item.name, item.read_text()) for item in found.iterdir()] == [("event.h", "struct")]
