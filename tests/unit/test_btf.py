from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsttrace.errors import DependencyError, KernelError
from rsttrace.kernel import btf as btf_module
from rsttrace.kernel import facts, headers, hooks, layout
from rsttrace.kernel.btf import VMLINUX, Btf

FIELDS = [
    (name, structure, member, bool(optional))
    for name, structure, member, optional in facts.FIELD_LINE.findall(
        (layout.bpf_directory() / "fields.h").read_text()
    )
]


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    if not Path(VMLINUX).exists():
        pytest.skip(f"this kernel has no BTF ({VMLINUX})")
    try:
        found = Btf()
    except DependencyError as error:
        pytest.skip(str(error))
    yield found
    found.close()


# ---- what this kernel has ----


def test_every_line_of_fields_h_is_read() -> None:
    text = (layout.bpf_directory() / "fields.h").read_text()
    lines = [line for line in text.splitlines() if line.startswith("FIELD(")]
    assert len(FIELDS) == len(lines) > 40
    assert sum(optional for *_, optional in FIELDS) == sum("OPTIONAL" in line for line in lines)
    assert len({name for name, *_ in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize(
    ("structure", "member"),
    [
        pytest.param(structure, member, id=name)
        for name, structure, member, optional in FIELDS
        if not optional and not member.startswith("ARG")
    ],
)
def test_fields_are_found(btf: Btf, structure: str, member: str) -> None:
    found = btf.field(structure, member)
    assert found is not None
    assert 0 <= found.offset < 100_000
    assert found.size > 0


def test_arguments_of_functions_are_found(btf: Btf) -> None:
    for number in range(1, 5):
        member, add = facts.argument_member(number)
        found = btf.field("pt_regs" if add == 0 and member != "regs" else "user_pt_regs", member)
        assert found is not None


def test_an_unknown_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(KernelError, match=r"pdp11(.|\n)*--plan tracepoints"):
        facts.argument_member(1)


def test_offsets_agree_with_each_other(btf: Btf) -> None:
    """Offsets that do not change with the kernel, and sums that hold in each."""
    state = btf.field("sock", "__sk_common.skc_state")
    common = btf.field("sock_common", "skc_state")
    assert state == common  # sock begins with its sock_common
    assert state is not None
    assert state.size == 1
    for address in ("skc_daddr", "skc_rcv_saddr"):
        found = btf.field("sock", f"__sk_common.{address}")
        assert found is not None
        assert found.size == 4
        assert found.offset in (0, 4)
    port = btf.field("sock", "__sk_common.skc_dport")
    assert port is not None
    assert port.size == 2
    assert btf.field("tcp_sock", "inet_conn.icsk_inet.sk.__sk_common.skc_state") == state
    nested = btf.field("net_device", "nd_net.net")
    assert nested is not None
    assert nested.size == 8  # a pointer


def test_anonymous_members_are_looked_into(btf: Btf) -> None:
    found = btf.field("sk_buff", "dev")  # in a struct in a union
    assert found is not None
    assert found.size == 8


def test_the_enums_of_reasons(btf: Btf) -> None:
    states = btf.enum("bpf_prog_type")
    assert states["BPF_PROG_TYPE_UNSPEC"] == 0
    assert states["BPF_PROG_TYPE_KPROBE"] == 2  # include/uapi/linux/bpf.h
    drop = btf.enum("skb_drop_reason")
    if drop:  # since 5.17
        assert drop["SKB_DROP_REASON_NO_SOCKET"] > 0
        assert len(set(drop.values())) > 20


def test_reason_names_lose_their_prefix(btf: Btf) -> None:
    enums = facts.Facts().enums()
    assert enums.keys() == {"sk_rst_reason", "skb_drop_reason"}
    assert len(enums["skb_drop_reason"]) == len(btf.enum("skb_drop_reason"))
    for names in enums.values():
        assert not any(name.startswith(("SK_RST_REASON_", "SKB_DROP_REASON_")) for name in names)
    if enums["skb_drop_reason"]:
        assert "NO_SOCKET" in enums["skb_drop_reason"]


def test_offsets_h_names_every_field(btf: Btf) -> None:
    found = facts.Facts()
    assert found.source == "btf"
    text = found.offsets()
    for name, *_ in FIELDS:
        assert re.search(rf"^#define OFF_{name} -?\d+$", text, re.MULTILINE)
        assert re.search(rf"^#define SIZE_{name} \d+$", text, re.MULTILINE)
    missing = set(re.findall(r"^#define OFF_(\w+) -1$", text, re.MULTILINE))
    assert missing == set(found.missing)
    assert missing <= {name for name, *_, optional in FIELDS if optional}


def test_a_field_that_this_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        """A kernel without anything."""

        def field(self, structure: str, member: str) -> None:
            return None

    found = facts.Facts.__new__(facts.Facts)
    found.missing, found.btf = [], Blind()  # type: ignore[assignment]
    monkeypatch.setattr(found, "fields", lambda: [("a", "sock", "sk_new", True)])
    assert found.offsets() == "#define OFF_a -1\n#define SIZE_a 0\n"
    assert found.missing == ["a"]
    monkeypatch.setattr(found, "fields", lambda: [("a", "sock", "sk_new", False)])
    with pytest.raises(KernelError, match="this kernel's struct sock has no sk_new"):
        found.offsets()


# ---- what it does not have ----


@pytest.mark.parametrize(
    ("structure", "member"),
    [
        ("no_such_structure", "x"),
        ("sock", "no_such_member"),
        ("sock", "__sk_common.no_such_member"),
        ("sock", "no_such_member.skc_state"),
        ("sock", "__sk_common.skc_state.deeper"),
        ("iphdr", "version"),  # a bit-field
        ("bpf_prog_type", "x"),  # an enum
    ],
)
def test_what_is_missing_is_none(btf: Btf, structure: str, member: str) -> None:
    assert btf.field(structure, member) is None


def test_missing_enums_and_functions(btf: Btf) -> None:
    assert btf.enum("no_such_enum") == {}
    assert btf.enum("sock") == {}
    assert btf.parameters("no_such_function") is None
    assert btf.parameters("btf_trace_no_such_event") is None


def test_parameters(btf: Btf) -> None:
    names = btf.parameters("tcp_reset")
    assert names is not None
    assert names[0] == "sk"  # sk; or sk, skb
    for hook in hooks.HOOKS:
        if not hook.kprobe:
            arguments = btf.parameters(f"btf_trace_{hook.target}")
            assert arguments, hook.target
    kfree = btf.parameters("btf_trace_kfree_skb")
    assert kfree is not None
    assert 2 <= len(kfree) <= 4  # skb, location; + reason; + rx_sk: without the probe's own


def test_closing_twice_is_harmless() -> None:
    if not Path(VMLINUX).exists():
        pytest.skip(f"this kernel has no BTF ({VMLINUX})")
    try:
        found = Btf()
    except DependencyError as error:
        pytest.skip(str(error))
    found.close()
    found.close()


# ---- errors ----


def test_libbpf_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **_: Any) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DependencyError) as caught:
        Btf()
    assert caught.value.what.startswith("libbpf.so.1 cannot be loaded: libbpf.so.1: cannot open")
    assert caught.value.hint is not None
    assert "libbpf1" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "why", "do"),
    [
        (None, "No such file or directory", "use a kernel built with CONFIG_DEBUG_INFO_BTF"),
        (b"no BTF at all", "", "use a libbpf as new as this kernel"),
    ],
)
def test_no_usable_btf(
    btf: Btf,
    content: bytes | None,
    why: str,
    do: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KernelError, match=rf"no usable BTF at {path}: {why}") as caught:
        Btf(str(path))
    assert caught.value.hint is not None
    assert do in caught.value.hint
    assert "unknown error" not in caught.value.what
    assert capfd.readouterr() == ("", "")  # libbpf's own complaints stay out


def test_neither_btf_nor_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(btf_module.Btf.__init__, "__defaults__", (str(tmp_path / "none"),))
    monkeypatch.setattr(headers, "directory", lambda: None)
    with pytest.raises((KernelError, DependencyError)) as caught:
        facts.Facts()
    assert "no kernel headers" in caught.value.what
    assert "linux-headers-" in str(caught.value)


# ---- bcc: missing, or another project of the same name ----

IMPORT = """
import json, sys
from rsttrace.errors import DependencyError
from rsttrace.kernel import bcc as finding
finding.SYSTEM_PACKAGES = {system!r}
try:
    bcc = finding.import_bcc()
except DependencyError as error:
    print(json.dumps(["error", error.what, error.hint]))
else:
    import needed
    from rsttrace.kernel import layout
    print(json.dumps(["found", bcc.__file__, layout.event_size()]))
"""

IMPOSTOR = "__version__ = '0.1'\n\n\nclass Lattice:\n    pass\n"
REAL = "__version__ = '0.31'\n\n\nclass BPF:\n    pass\n"


def package(directory: Path, text: str) -> Path:
    """A package named bcc in a directory of its own."""
    (directory / "bcc").mkdir(parents=True)
    (directory / "bcc" / "__init__.py").write_text(text)
    return directory


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """A directory that holds a package that is needed afterwards, as site-packages does."""
    directory = tmp_path / "libraries"
    directory.mkdir()
    (directory / "needed.py").write_text("")
    return directory


def import_bcc(
    paths: list[Path], system: list[Path], bcc_path: Path | None = None
) -> tuple[str, str, Any]:
    """What import_bcc() finds in an interpreter that has these directories in its path.

    Of the machine's own, those that hold a bcc are out of its sight.
    """
    root = Path(__file__).parents[2]
    code = (
        "import pathlib, sys\n"
        "sys.path[:] = [p for p in sys.path if not (pathlib.Path(p) / 'bcc').exists()]\n"
        f"sys.path[:0] = {[str(path) for path in (*paths, root)]!r}\n"
    ) + IMPORT.format(system=tuple(str(path) for path in system))
    environment = {k: v for k, v in os.environ.items() if k != "RSTTRACE_BCC_PATH"}
    if bcc_path is not None:
        environment["RSTTRACE_BCC_PATH"] = str(bcc_path)
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    kind, what, more = json.loads(done.stdout)
    return kind, what, more


def test_bcc_missing() -> None:
    kind, what, hint = import_bcc([], [])
    assert kind == "error"
    assert what == "bcc cannot be imported: No module named 'bcc'"
    assert "python3-bpfcc" in hint
    assert "RSTTRACE_BCC_PATH" in hint


def test_bcc_whose_library_does_not_load(tmp_path: Path) -> None:
    broken = package(tmp_path, "raise ImportError('libbcc.so.0: cannot open shared object file')\n")
    kind, what, hint = import_bcc([broken], [])
    assert kind == "error"
    assert what == "bcc cannot be imported: libbcc.so.0: cannot open shared object file"
    assert "python3-bpfcc" in hint


def test_the_real_bcc(tmp_path: Path, libraries: Path) -> None:
    real = package(tmp_path / "system", REAL)
    expected = ("found", str(real / "bcc" / "__init__.py"), layout.event_size())
    assert import_bcc([libraries], [real]) == expected


def test_the_impostor_alone_is_named(tmp_path: Path) -> None:
    impostor = package(tmp_path, IMPOSTOR)
    kind, what, hint = import_bcc([impostor], [])
    assert kind == "error"
    assert str(impostor / "bcc") in what
    assert "not the BPF Compiler Collection" in what
    assert "PyPI" in what
    assert hint.startswith("pip uninstall bcc")
    assert "python3-bpfcc" in hint


def test_the_impostor_does_not_hide_the_real_one(tmp_path: Path, libraries: Path) -> None:
    impostor = package(tmp_path / "first", IMPOSTOR)
    real = package(tmp_path / "second", REAL)
    found = import_bcc([impostor, libraries], [real])
    assert found[:2] == ("found", str(real / "bcc" / "__init__.py"))


def test_rsttrace_bcc_path_comes_first(tmp_path: Path, libraries: Path) -> None:
    mine = package(tmp_path / "mine", REAL)
    other = package(tmp_path / "other", REAL)
    found = import_bcc([other, libraries], [other], bcc_path=mine)
    assert found[:2] == ("found", str(mine / "bcc" / "__init__.py"))


def test_an_impostor_beside_our_dependencies_takes_none_of_them_away(
    tmp_path: Path, libraries: Path
) -> None:
    """pip puts the impostor where others are: the child needs those afterwards."""
    package(libraries, IMPOSTOR)
    real = package(tmp_path / "system", REAL)
    found = import_bcc([libraries], [real])
    assert found == ("found", str(real / "bcc" / "__init__.py"), layout.event_size())
