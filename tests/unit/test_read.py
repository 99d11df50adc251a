"""`rsttrace read`, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rsttrace.commands.filters import Filter
from rsttrace.commands.read import read
from rsttrace.commands.run import Options
from rsttrace.model import Kind
from rsttrace.render.schema import schema_text
from tests.unit import captures as c
from tests.unit.captures import Talk, write

VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))
DEADLINE_S = 60


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rsttrace", "read", *arguments],
        input=stdin,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, "TZ": "UTC"},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def entries(*arguments: str, stdin: bytes = b"") -> list[dict[str, Any]]:
    status, out, err = run("-o", "json", *arguments, stdin=stdin)
    assert status == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    for entry in found:
        VALIDATOR.validate(entry)
    return found


@pytest.fixture
def incident(tmp_path: Path) -> str:
    return write(tmp_path / "incident.pcap", c.pcap(c.incident()))


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """Frames 5: forged in the peer's name; 9: an honest peer's; 13: ours."""
    honest, ours = Talk(port=50000), Talk(port=40000, server=80)
    packets = [*c.incident(), *honest.handshake(), honest.reset(ttl=47)]
    packets += [*ours.handshake(), ours.reset("RA", side=0, window=500, id=9)]
    return write(tmp_path / "mixed.pcapng", c.pcapng(packets))


def test_text(incident: str) -> None:
    status, out, err = run("--utc", incident)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("09:30:03.004Z  received  FORGED 99%    10.0.0.5:51234 <- 198.51")
    assert "incident.pcap frame 5" in lines[0]
    assert "handed to us by 00:d0:f8:22:33:44 (" in lines[1]
    assert "IP ID 102 repeats our own packet sent 1.0 ms earlier" in out
    assert err.splitlines() == [
        f"{incident}: our side is taken to be 10.0.0.5: "
        "its packets have passed no router, its peers' have"
    ]


def test_json(incident: str) -> None:
    (entry,) = entries(incident)
    assert (entry["file"], entry["frame"], entry["id"]) == (incident, 5, 1)
    assert (entry["kind"], entry["origin"]) == ("received-accepted", "forged")
    assert (entry["netns"], entry["socket"], entry["process"], entry["next_hop"]) == (None,) * 4
    assert entry["neighbor"]["mac"] == c.GATEWAY
    assert entry["neighbor"]["vendor"]
    assert [entry["neighbor"][name] for name in ("ip", "ifindex", "netns")] == [None] * 3
    assert entry["baseline"]["ours_ip_id"] == [102, 101, 100]
    assert (entry["rst"]["ip_checksum_ok"], entry["rst"]["tcp_checksum_ok"]) == (True, True)
    assert entry["trigger"]["age_ms"] == 1.0
    assert "considered" not in entry
    assert "considered" in entries("--explain", incident)[0]


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        ([], [5, 9, 13]),
        (["--kind", "sent"], [13]),
        (["--kind", "received"], [5, 9]),
        (["--kind", "received-accepted", "--kind", "sent-active"], [5, 9, 13]),
        (["--kind", "received-rejected"], []),
        (["--origin", "forged"], [5]),
        (["--origin", "local", "--origin", "peer"], [9, 13]),
        (["--port", "80"], [13]),
        (["--port", "50000", "--port", "51234"], [5, 9]),
        (["--host", c.PEER], [5, 9, 13]),
        (["--host", "10.0.0.6"], []),
        (["--net", "10.0.0.0/24"], [5, 9, 13]),
        (["--net", "10.0.0.4/31", "--port", "80"], [13]),
        (["--net", "::/0"], [5, 9, 13]),
        (["--net", "fd00::/8"], []),
        (["--count", "2"], [5, 9]),
        (["--count", "1", "--origin", "local"], [13]),
    ],
)
def test_filters(arguments: list[str], frames: list[int], mixed: str) -> None:
    found = entries(mixed, *arguments)
    assert [entry["frame"] for entry in found] == frames
    assert [entry["id"] for entry in found] == list(range(1, len(frames) + 1))


def test_ipv6_filters(tmp_path: Path) -> None:
    name = write(tmp_path / "six", c.pcap(c.incident(family=6)))
    assert [entry["family"] for entry in entries(name, "--net", "2001:db8::/64")] == [6]
    assert entries(name, "--net", "0.0.0.0/0") == []


def test_summary(mixed: str) -> None:
    *found, last = entries("--summary", "--origin", "peer", mixed)
    summary = last["summary"]
    assert (len(found), summary["shown"]) == (1, 1)
    assert summary["kinds"]["received-accepted"] == summary["origins"]["peer"] == 1
    assert summary["not_shown"]["filtered"] == 2
    assert summary["duration_s"] is None
    _, out, _ = run("--summary", mixed)
    assert "3 resets shown\n  by kind: 2 received-accepted, 1 sent-active" in out


def test_local_says_which_side_is_ours(mixed: str) -> None:
    found = entries("--local", "198.51.100.0/24", mixed)
    assert [(entry["direction"], entry["local"]["ip"]) for entry in found] == [
        ("received", c.US),  # in our side's name, but from elsewhere
        ("sent", c.PEER),
        ("received", c.PEER),
    ]


def test_standard_input(incident: str) -> None:
    data = Path(incident).read_bytes()
    for made in (data, c.compressed(data)):
        (entry,) = entries("-", stdin=made)
        assert (entry["file"], entry["frame"]) == ("-", 5)
    status, _, err = run("-", "-")
    assert (status, "only once" in err) == (2, True)


def test_several_files_have_a_baseline_each(incident: str, tmp_path: Path) -> None:
    alone = write(tmp_path / "alone.pcap", c.pcap(c.incident()[-1:]))
    found = entries(incident, alone)
    assert [(entry["id"], entry["file"], entry["frame"]) for entry in found] == [
        (1, incident, 5),
        (2, alone, 1),
    ]
    assert [entry["baseline"]["scope"] for entry in found] == ["flow", "none"]


# ---- what cannot be read ----


def test_a_file_that_breaks_off_is_read_up_to_there(incident: str, tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.pcap", Path(incident).read_bytes() + b"\1\2\3")
    status, out, err = run("-o", "json", broken)
    assert (status, len(out.splitlines())) == (0, 1)
    assert "warning: " in err
    size = os.path.getsize(incident)
    where = f"broken at packet 6, byte {size}: the file ends inside a packet"
    assert f"{where}; 5 packets could be read" in err


def test_an_unreadable_file_does_not_hide_the_others(incident: str, tmp_path: Path) -> None:
    text = write(tmp_path / "text", b"not a capture at all")
    headless = write(tmp_path / "headless", c.pcap(c.incident())[:30])
    status, out, err = run("-o", "json", text, str(tmp_path / "missing"), headless, incident)
    assert (status, len(out.splitlines())) == (1, 1)
    errors = [line for line in err.splitlines() if line.startswith("rsttrace: ")]
    assert len(errors) == 3
    assert "is no capture" in errors[0]
    assert "No such file" in errors[1]
    assert "nothing could be read" in errors[2]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "FILE"),
        (["x", "--local", "10.0.0.0/33"], "--local"),
        (["x", "--local", "here"], "10.0.0.0/8"),
        (["x", "--net", "nonsense"], "--net"),
        (["x", "--flows", "1"], "--flows"),
        (["x", "--netns", "self"], "--netns"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_hostile_file_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    name = str(tmp_path / "a\x1b]0;pwned\x07\n\u202e.pcap")
    write(Path(name), c.pcap(c.incident()) + b"\1")
    status, out, err = run(name, "-v")
    assert status == 0
    assert "FORGED" in out
    for text in (out, err, run(name + "x")[2], run("-o", "json", name)[1]):
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "\x1b" not in text
    assert entries(name)[0]["file"] == name


# ---- how it runs ----


def test_needs_neither_root_nor_bcc_nor_pyroute2(incident: str) -> None:
    code = (
        "import os, sys\n"
        "from rsttrace.cli import main\n"
        "for name in ('bcc', 'pyroute2'):\n"
        "    sys.modules[name] = None  # importing it is an ImportError\n"
        "import rsttrace.commands.read, scapy.utils\n"
        "import netaddr.eui\n"  # while they can be read for sure
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.argv[1:] = ['read', '-o', 'json', '-']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=Path(incident).read_bytes(),
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["origin"] == "forged"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_quiet_pipe_is_left_at_a_signal(number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rsttrace", "read", "-o", "json", "--summary", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(c.pcap(c.incident()))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["origin"] == "forged"  # as it comes
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, json.loads(out)["summary"]["shown"]) == (0, 1)
    assert b"Traceback" not in err
    assert b"broken" not in err


def test_nobody_reads_any_more(incident: str) -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rsttrace", "read", incident],
            stdout=writing_end,
            stderr=subprocess.PIPE,
            timeout=DEADLINE_S,
            check=False,
        )
    finally:
        os.close(writing_end)
    assert (done.returncode, done.stderr) == (0, b"")


def long_capture(path: Path) -> str:
    """More than LONG_FILE bytes, most of it not TCP."""
    return write(path, c.pcap([*c.incident(), *[b"\xff" * 60_000] * 300]))


def on_terminal(name: str, stdout: int | None = subprocess.DEVNULL) -> bytes:
    """What `read` writes to a terminal: its standard error, and with ``None`` its output too."""
    parent, child = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "rsttrace", "read", "--hold", "0", "--color", "never", name],
            stdout=child if stdout is None else stdout,
            stderr=child,
            env={**os.environ, "COLUMNS": "200"},
        )
        os.close(child)
        seen = b""
        while True:
            try:
                piece = os.read(parent, 65536)
            except OSError:  # EIO: the terminal's other end is closed
                break
            if not piece:
                break
            seen += piece
        assert process.wait(DEADLINE_S) == 0
    finally:
        os.close(parent)
    return seen


def test_progress_is_shown_on_a_terminal(tmp_path: Path, incident: str) -> None:
    name = long_capture(tmp_path / "long.pcap")
    shown = on_terminal(name)
    assert b"long.pcap" in shown
    assert b"100%" in shown
    assert b"%" not in on_terminal(incident)  # short
    both = on_terminal(name, None)
    assert b"100%" in both
    # An entry never stands behind a bar: the line was erased before.
    assert b"\r\x1b[K" in both.partition(b"  received  FORGED")[0]
    status, _, err = run(name)  # no terminal
    assert (status, "%" in err) == (0, False)


def test_memory_does_not_grow_with_the_file() -> None:
    """Ten times the packets, and the same peak of memory: only so many flows are kept."""
    code = (
        "import sys, resource\n"
        "from rsttrace.commands.filters import Filter\n"
        "from rsttrace.commands.read import read\n"
        "from rsttrace.commands.run import Options\n"
        "read(['-'], Options(output='json'), Filter(), flows=64, out=open('/dev/null', 'w'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for flows in (500, 5000):
        packets = []
        for number in range(flows):
            base = bytearray(SAMPLE[number % len(SAMPLE)])
            base[26:30] = (0x0A000000 + number).to_bytes(4, "big")
            packets.append(bytes(base))
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=c.pcap(packets),
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 3000, peaks  # kB; 4,500 flows kept would be 15 MB more


SAMPLE = [frame for port in (1, 2) for frame in Talk(port=port).handshake()]


def test_count_ends_between_files(incident: str) -> None:
    shown: list[str] = []
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        status = read(
            [incident, "/no/such/file"],
            Options(output="json", count=1),
            Filter(kinds=tuple(Kind)),
            out=nowhere,
            status=shown.append,
        )
    assert status == 0
    assert len(shown) == 1  # the second file is not even opened


def test_a_missing_reader_library_is_named(incident: str) -> None:
    code = (
        "import sys\n"
        "from rsttrace.cli import main\n"
        "sys.modules['scapy'] = None\n"
        f"sys.argv[1:] = ['read', {incident!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs scapy" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
