from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rsttrace import __version__, cli
from rsttrace.errors import DependencyError, KernelError, RsttraceError, UsageError
from rsttrace.kernel.protocol import Request
from rsttrace.model import Kind, Origin

CHECKOUT = Path(__file__).parents[2]
NOBODY = 65534


class Traced:
    """Stands for commands.trace.trace(): remembers what it was asked for."""

    def __init__(self) -> None:
        self.request: Any = None
        self.options: Any = None

    def __call__(self, request: Any, options: Any, **_: Any) -> None:
        self.request, self.options = request, options


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    from rsttrace.commands import starting, trace

    def nothing(_: object) -> None:
        raise KernelError("a unit test loads nothing", hint="")

    fake = Traced()
    monkeypatch.setattr(trace, "trace", fake)
    monkeypatch.setattr(starting, "Loading", nothing)
    return fake


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command itself: exit status, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rsttrace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    return done.returncode, done.stdout, done.stderr


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the entry point in this process: exit status."""
    monkeypatch.setattr(sys, "argv", ["rsttrace", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


# ---- wrong usage: exit status 2, and a message that says what is wrong ----

WRONG = [
    (["--net", "10.0.0.0/33"], ["--net", "10.0.0.0/33", "10.0.0.0/8"]),
    (["--net", "nonsense"], ["--net", "nonsense"]),
    (["--net", "10.0.0.300/8"], ["--net", "10.0.0.300/8"]),
    (["--net", ""], ["--net"]),
    (["--host", "no-such-host.invalid"], ["--host", "no-such-host.invalid", "does not resolve"]),
    (["--host", "10.0.0.300"], ["--host", "10.0.0.300"]),
    (["--host", ""], ["--host"]),
    (["--host", "x" * 64], ["--host", "x" * 64]),  # no label of a name is so long
    (["--host", "two..dots"], ["--host", "two..dots"]),
    (["--kind", "received-maybe"], ["--kind", "received-maybe", "received-accepted"]),
    (["--origin", "aliens"], ["--origin", "aliens", "forged"]),
    (["--port", "0"], ["--port", "0"]),
    (["--port", "65536"], ["--port", "65536"]),
    (["--port", "http"], ["--port", "http"]),
    (["-p", "80,,443"], ["--port", "80,443"]),
    (["-p", "443-80"], ["--port", "443-80", "ends before"]),
    (["-p", "1-65536"], ["--port", "1-65536"]),
    (["-p", "1-2-3"], ["--port", "1-2-3"]),
    (["docter"], ["docter", "did you mean `rsttrace doctor`?"]),
    (["help", "tracer"], ["tracer", "did you mean `rsttrace trace`?"]),
    (["/etc/passwd"], ["did you mean `rsttrace read '/etc/passwd'`?"]),
    (["zzz"], ["zzz", "there are check, compare, demo, doctor"]),
    (["--netns", "no-such-namespace"], ["no-such-namespace", "ip netns list"]),
    (["--netns", "/no/such/file"], ["/no/such/file", "does not exist"]),
    (["--netns", "/etc/passwd"], ["/etc/passwd", "not a network namespace"]),
    (["--netns", "/proc/self/ns/uts"], ["/proc/self/ns/uts", "not a network namespace"]),
    (["--netns", "pid:none"], ["pid:"]),
    (["--netns", "pid:4194305"], ["4194305", "does not exist"]),
    (["--netns", "1"], ["inode 1", "lsns"]),
    (["--netns", ""], ["network namespace"]),
    (["--duration", "0"], ["--duration", "0"]),
    (["--duration", "-1"], ["--duration", "-1"]),
    (["--duration", "nan"], ["--duration", "nan"]),
    (["--duration", "soon"], ["--duration", "soon"]),
    (["--count", "0"], ["--count", "0"]),
    (["--flows", "1"], ["--flows", "1"]),
    (["--plan", "magic"], ["--plan", "magic", "tracepoints"]),
    (["--viewpoint", "moon"], ["--viewpoint", "moon", "netns"]),
    (["-o", "xml"], ["xml", "json"]),
    (["--fingerprints", "/no/such/file"], ["/no/such/file", "No such file", "fingerprints.md"]),
    (["--fingerprints", "/etc/passwd"], ["/etc/passwd", "not TOML"]),
    (["--fingerprints"], ["--fingerprints"]),
    (["--no-such-option"], ["--no-such-option"]),
    (["no-such-command"], ["no-such-command"]),
    (["trace", "surplus"], ["surplus"]),
    (["schema", "surplus"], ["surplus"]),
    (["locate"], ["PEER[:PORT]", "--entry"]),
    (["locate", "10.0.0.1:0"], ["10.0.0.1:0", "port"]),
    (["locate", "two..dots"], ["two..dots"]),
    (["locate", "10.0.0.1", "--hops", "255"], ["--hops", "255"]),
    (["locate", "10.0.0.1", "--entry", "/no/such/file"], ["--entry", "/no/such/file"]),
    (["locate", "10.0.0.1", "--entry", "/etc/passwd"], ["--entry", "line 1 is not JSON"]),
    (["locate", "10.0.0.1", "--entry", "/dev/null", "--hops", "1"], ["--hops", "--entry"]),
    (["locate", "10.0.0.1", "--netns", "no-such-namespace"], ["no-such-namespace"]),
    (["locate", "10.0.0.1", "--timeout", "nan"], ["--timeout"]),
    (["locate", "10.0.0.1", "--replay"], ["--replay", "--data"]),
    (["locate", "10.0.0.1", "--data", "x"], ["--data", "--replay"]),
    (["locate", "10.0.0.1", "--replay", "--data", ""], ["1 to 1400 bytes"]),
    (["locate", "10.0.0.1", "--replay", "--data-file", "/dev/zero"], ["1 to 1400 bytes"]),
    (["locate", "10.0.0.1", "--replay", "--data", "x" * 1401], ["1 to 1400 bytes"]),
    (["locate", "10.0.0.1", "-6"], ["10.0.0.1", "IPv6 address"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_usage(
    arguments: list[str],
    words: list[str],
    traced: Traced,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in words:
        assert word in shown.err
    assert "Traceback" not in shown.err
    assert traced.request is None  # nothing was started


@pytest.mark.parametrize(
    "arguments", [["--net", "10.0.0.0/33"], ["--netns", "no-such-namespace"], ["--port", "0"]]
)
def test_wrong_usage_for_real(arguments: list[str]) -> None:
    """Also without privileges: the usage is checked before anything else."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert arguments[0] in err or arguments[1] in err
    assert "Traceback" not in err


# ---- what needs no privileges ----


def test_version() -> None:
    status, said, errors = run("--version")
    ours, libraries, kernel = said.splitlines()
    assert (status, errors, ours) == (0, "", f"rsttrace {__version__}")
    assert libraries.endswith(f", Python {platform.python_version()}")
    assert kernel.startswith(f"Linux {platform.release()} {platform.machine()}, plan: ")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands(flag: str) -> None:
    status, out, err = run(flag)
    assert (status, err) == (0, "")
    listed = out.split("Commands:")[1]
    for name, command in cli.cli.commands.items():
        assert f"\n  {name} " in listed
        assert command.help


@pytest.mark.parametrize("name", cli.cli.commands)
def test_each_command_has_help(name: str) -> None:
    done = CliRunner().invoke(cli.cli, [name, "--help"])
    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")
    for parameter in cli.cli.commands[name].params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


def test_trace_help_names_every_choice() -> None:
    shown = " ".join(CliRunner().invoke(cli.cli, ["trace", "--help"]).output.split())
    for word in (*(kind.value for kind in Kind), *(origin.value for origin in Origin)):
        assert word in shown


def test_schema_is_json() -> None:
    status, out, err = run("schema")
    assert (status, err) == (0, "")
    schema = json.loads(out)
    assert {"entry", "summary"} <= schema["$defs"].keys()


# ---- without privileges ----


def nobody() -> dict[str, Any]:
    """How to start a process without privileges; skips where the checkout is hidden from it."""
    if os.geteuid() != 0:
        return {}
    for path in (Path(sys.executable), Path(sys.executable).resolve(), CHECKOUT / "rsttrace"):
        for parent in (path, *path.parents):
            if not parent.stat().st_mode & 0o001:
                pytest.skip(f"an unprivileged user may not enter {parent}")
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.mark.parametrize(
    "arguments", [[], ["-o", "json", "--duration", "5"], ["--summary", "--count", "1"], ["-v"]]
)
def test_without_privileges_one_message_says_what_to_do(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-m", "rsttrace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        **nobody(),
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("rsttrace: tracing needs root (CAP_SYS_ADMIN, or CAP_BPF")
    assert lines[1].startswith("  what to do: run it with sudo")


def test_locate_without_privileges_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-m", "rsttrace", "locate", "127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        **nobody(),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "rsttrace: probing a path needs root (CAP_NET_RAW)",
        "  what to do: run it with sudo",
    ]


@pytest.mark.parametrize(
    ("effective", "allowed"),
    [
        (0, False),
        (1 << 21, True),  # CAP_SYS_ADMIN
        (1 << 38, False),  # CAP_PERFMON
        (1 << 39, False),  # CAP_BPF
        (1 << 38 | 1 << 39, True),
        ((1 << 41) - 1, True),
        (1 << 12, False),  # CAP_NET_ADMIN is not it
    ],
)
def test_capabilities_that_suffice(
    effective: int, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsttrace.errors import PrivilegeError
    from rsttrace.kernel import loader

    text = f"Name:\tx\nCapPrm:\t{(1 << 41) - 1:016x}\nCapEff:\t{effective:016x}\nCapBnd:\t0\n"
    monkeypatch.setattr(Path, "read_text", lambda _: text)
    if allowed:
        loader.check_privileges()
    else:
        with pytest.raises(PrivilegeError, match="needs root"):
            loader.check_privileges()


# ---- options become the request ----


def mapped(prefix: str) -> str:
    return "00" * 10 + "ffff" + prefix


@pytest.mark.parametrize(
    ("arguments", "nets"),
    [
        ([], ()),
        (["--host", "10.9.8.7"], ((mapped("0a090807"), 128),)),
        (["--net", "10.0.0.0/8"], ((mapped("0a000000"), 104),)),
        (["--net", "10.9.8.7/8"], ((mapped("0a000000"), 104),)),  # host bits are cut
        (["--net", "0.0.0.0/0"], ((mapped("00000000"), 96),)),
        (["--net", "fd00::/8"], (("fd" + "00" * 15, 8),)),
        (["--net", "::/0"], (("00" * 16, 0),)),
        (["--host", "2001:db8::5"], (("20010db8" + "00" * 11 + "05", 128),)),
        (["--host", "10.9.8.7", "--host", "10.9.8.7"], ((mapped("0a090807"), 128),)),
        (
            ["--host", "10.9.8.7", "--net", "10.0.0.0/8"],
            ((mapped("0a090807"), 128), (mapped("0a000000"), 104)),
        ),
    ],
)
def test_hosts_and_nets(
    arguments: list[str],
    nets: tuple[tuple[str, int], ...],
    traced: Traced,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(monkeypatch, *arguments) == 0
    assert traced.request.nets == nets


def test_a_name_is_all_of_its_addresses(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", ("192.0.2.7", 0)), (10, 1, 6, "", ("2001:db8::7", 0, 0, 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert main(monkeypatch, "--host", "db.example") == 0
    assert traced.request.nets == (
        (mapped("c0000207"), 128),
        ("20010db8" + "00" * 11 + "07", 128),
    )


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ([], [kind for kind in Kind if kind is not Kind.FORWARDED]),
        (["all"], list(Kind)),
        (["sent"], [kind for kind in Kind if kind.direction == "sent"]),
        (["received"], [kind for kind in Kind if kind.direction == "received"]),
        (["forwarded"], [Kind.FORWARDED]),
        (["sent-raw", "sent-raw"], [Kind.SENT_RAW]),
    ],
)
def test_kinds(
    names: list[str], kinds: list[Kind], traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(monkeypatch, *(f"--kind={name}" for name in names)) == 0
    assert sorted(traced.request.kinds) == sorted(kind.value for kind in kinds)


def test_no_command_is_trace(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(monkeypatch) == 0
    first = traced.request, traced.options
    assert main(monkeypatch, "trace") == 0
    assert (traced.request, traced.options) == first
    assert traced.request == Request(
        kinds=tuple(kind.value for kind in Kind if kind is not Kind.FORWARDED)
    )


def test_every_option_arrives(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.stat("/proc/self/ns/net").st_ino
    arguments = (
        "trace -o json --duration 2.5 --count 3 --port 80 --port 443 --iface eth0 --netns self "
        "--origin forged --origin peer --no-baseline --summary --explain -v --utc "
        "--viewpoint netns --plan kprobes --flows 16"
    )
    assert main(monkeypatch, *arguments.split()) == 0
    request, options = traced.request, traced.options
    assert (request.ports, request.netns, request.baseline) == ((80, 443), (own,), False)
    assert (request.flows, request.plan) == (16, "kprobes")
    assert (options.output, options.duration_s, options.count) == ("json", 2.5, 3)
    assert (options.ifaces, options.origins) == (("eth0",), (Origin.FORGED, Origin.PEER))
    assert options.summary
    assert options.explain
    assert options.verbose
    assert options.utc
    assert options.viewpoint_netns
    assert not options.color


def test_fingerprints_arrive(
    traced: Traced, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = []
    for name in ("first", "second"):
        path = tmp_path / name
        path.write_text(
            f"[{name}]\ndevice = 'x'\ntext = 'x'\nsource = 'x'\n[[{name}.match]]\nttl = 7\n"
        )
        arguments += ["--fingerprints", str(path)]
    assert main(monkeypatch, *arguments) == 0
    assert {"first", "second", "tcpkill"} <= traced.options.fingerprints.by_key.keys()


def test_a_broken_file_of_the_machine_is_an_error(
    traced: Traced,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rsttrace.judge import fingerprints

    (tmp_path / "mine.toml").write_text("[mine]\nname = 'x'\n")
    real = fingerprints.load
    monkeypatch.setattr(fingerprints, "load", lambda paths: real(paths, directory=tmp_path))
    assert main(monkeypatch) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"rsttrace: fingerprints in '{tmp_path}/mine.toml', ['mine']: ")
    assert "unknown key 'name'" in shown.err
    assert traced.request is None


# ---- how a run ends ----


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RsttraceError("it broke"), 1, "rsttrace: it broke\n"),
        (
            DependencyError("bcc is missing", hint="install it"),
            1,
            "rsttrace: bcc is missing\n  what to do: install it\n",
        ),
        (UsageError("impossible"), 2, "rsttrace: impossible\n"),
    ],
)
def test_errors_are_one_message_and_a_status(
    error: RsttraceError,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rsttrace.commands import trace

    error.log = "what the compiler said"

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(trace, "trace", fail)
    assert main(monkeypatch) == status
    assert capsys.readouterr() == ("", words)
    assert main(monkeypatch, "-v") == status
    assert capsys.readouterr() == ("", f"{words}what the compiler said\n")


def test_ctrl_c_before_tracing_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rsttrace.commands import trace

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trace, "trace", interrupt)
    assert main(monkeypatch) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error() -> None:
    """Like `rsttrace schema | head -1`, made certain: the pipe is closed from the start."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rsttrace", "schema"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


# ---- habits ----


def test_ports_as_lists_and_ranges(monkeypatch: pytest.MonkeyPatch, traced: Traced) -> None:
    assert main(monkeypatch, "-p", "80,443", "-p", "8000-8003", "--port", "443") == 0
    assert traced.request.ports == (80, 443, 8000, 8001, 8002, 8003)
    assert traced.options.ports == frozenset()
    assert main(monkeypatch, "-p", "1-65535") == 0  # more than the kernel's map holds
    assert traced.request.ports == ()
    assert len(traced.options.ports) == 65535


def test_short_options_and_what_tcpdump_has(
    monkeypatch: pytest.MonkeyPatch, traced: Traced
) -> None:
    assert main(monkeypatch, "-n", "-i", "lo", "-c", "3", "-p", "22") == 0
    assert traced.options.ifaces == ("lo",)
    assert (traced.options.count, traced.request.ports) == (3, (22,))


@pytest.mark.parametrize("name", [None, *cli.cli.commands])
def test_help_of_a_command(name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert main(monkeypatch, "help", *([name] if name else [])) == 0
    shown = capsys.readouterr().out
    assert main(monkeypatch, *([name] if name else []), "--help") == 0
    expected = capsys.readouterr().out
    assert shown.split() == expected.split()
    assert shown.startswith(f"Usage: rsttrace {name or '[OPTIONS]'}")


@pytest.mark.parametrize("name", ["trace", "read", "compare"])
def test_help_has_examples(name: str) -> None:
    shown = CliRunner().invoke(cli.cli, [name, "--help"]).output
    lines = [line.strip() for line in shown.splitlines()]
    assert any(line.startswith(("rsttrace ", "tcpdump ")) for line in lines)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("d", {"demo", "doctor"}),
        ("", set(cli.cli.commands)),
        ("--if", {"--iface"}),
        ("--origin fo", {"forged"}),
        ("trace --net", {"--net", "--netns"}),
        ("read --ki", {"--kind"}),
        ("help lo", set()),
    ],
)
def test_completion(words: str, expected: set[str]) -> None:
    """As the shell's function asks for it."""
    done = subprocess.run(
        [sys.executable, "-m", "rsttrace"],
        env={
            **os.environ,
            "_RSTTRACE_COMPLETE": "bash_complete",
            "COMP_WORDS": f"rsttrace {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    offered = {line.partition(",")[2] for line in done.stdout.splitlines() if line}
    assert offered == expected
