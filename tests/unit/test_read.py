"""`rsttrace read`, as a user runs it."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from scapy.utils import PcapNgReader

from rsttrace import __version__
from rsttrace.commands.filters import Filter
from rsttrace.commands.read import read
from rsttrace.commands.run import Options
from rsttrace.model import Kind
from rsttrace.render.schema import schema_text
from tests.unit import captures as c
from tests.unit import command
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
    start = "2019-11-24T09:30:03.004Z IN  FORGED 99%     198.51.100.7:443 > 10.0.0.5:51234  by "
    assert lines[0].startswith(start)
    assert lines[0].endswith("  [incident.pcap, frame 5]")
    assert "handed to us by 00:d0:f8:22:33:44 (" in lines[1]
    assert "IP ID 102 repeats our own packet sent 1.0 ms earlier" in out
    assert err.splitlines() == [
        f"{incident}: our side is taken to be 10.0.0.5: "
        "its packets have passed no router, its peers' have",
        "5 packets, 1 reset",
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
    summary = last["totals"]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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
    assert (process.returncode, json.loads(out)["totals"]["shown"]) == (0, 1)
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


def test_a_closed_terminal_ends_it_and_what_it_held_is_written(tmp_path: Path) -> None:
    """The terminal goes while a pipe is read, and with it standard output and error."""
    packets = []
    for port in (50000, 50001, 50002):
        talk = Talk(port=port)
        packets += [*talk.handshake(), talk.reset(ttl=47)]
    out = tmp_path / "out.pcapng"
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rsttrace", "read", "--hold", "4.5", "-w", str(out), "-"],
        stdin=subprocess.PIPE,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(child)
    assert process.stdin is not None
    process.stdin.write(c.pcap(packets[:9], step_ns=c.SECOND))
    process.stdin.flush()
    assert b":50000" in os.read(parent, 4096)  # by the ninth packet, which is 5 s later
    os.close(parent)
    assert process.wait(DEADLINE_S) == 0
    process.stdin.close()
    with PcapNgReader(str(out)) as reader:
        ports = {packet.dport for packet in reader if "R" in packet.sprintf("%TCP.flags%")}
    assert ports == {50000, 50001}  # also the one that was held


def test_nohup_is_respected(incident: str) -> None:
    """SIGHUP stays ignored where it is."""
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "rsttrace", "read", "-o", "json", "--summary", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    data = c.pcap(c.incident())
    process.stdin.write(data)
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["origin"] == "forged"
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(data[24:], timeout=DEADLINE_S)
    assert (process.returncode, json.loads(out.splitlines()[-1])["totals"]["shown"]) == (0, 2)


# ---- silence is no answer ----


def last_line(*arguments: str, stdin: bytes = b"") -> str:
    return command.run("read", *arguments, stdin=stdin).stderr.decode().splitlines()[-1]


def test_it_ends_with_how_much_was_read(incident: str, mixed: str) -> None:
    assert last_line(incident) == "5 packets, 1 reset"
    assert last_line(incident, mixed) == "18 packets, 4 resets"
    assert last_line(incident, mixed, "--port", "1") == "18 packets, 4 resets, 0 shown"
    assert last_line("/no/such/file", incident) == "5 packets, 1 reset"
    assert "0 packets" not in last_line("/no/such/file")


def test_no_packets_no_tcp_no_resets(tmp_path: Path) -> None:
    def said(packets: list[bytes]) -> str:
        name = write(tmp_path / "x.pcap", c.pcap(packets))
        return command.run("read", name).stderr.decode()

    assert "no packets" in said([])
    assert "no TCP packets" in said([b"\xff" * 60])
    handshake = said(Talk(port=50000).handshake())
    assert "no TCP" not in handshake
    assert handshake.endswith("3 packets, 0 resets\n")


def test_an_empty_standard_input_is_said_to_be_empty() -> None:
    done = command.run("read", "-")
    assert done.returncode == 1
    assert b"standard input is empty" in done.stderr
    assert b"tcpdump" in done.stderr


def test_a_file_as_standard_input(incident: str) -> None:
    """It is read twice, as a file is: which side is ours comes first."""
    named = command.run("read", incident)
    done = command.run("read", "--hold", "60", "-", stdin=Path(incident))
    assert done.stdout == named.stdout.replace(b"[incident.pcap, ", b"[-, ")
    assert done.stderr.splitlines()[-1] == b"5 packets, 1 reset"


# ---- our own JSON lines, again ----


def test_json_lines_are_shown_again(mixed: str, tmp_path: Path) -> None:
    lines = command.run("read", "-o", "json", "--summary", mixed).stdout
    log = tmp_path / "mixed.jsonl"
    log.write_bytes(lines)
    text = command.run("read", mixed).stdout.replace(b"the server is", b"the peer is")
    for done in (
        command.run("read", str(log)),
        command.run("read", "-", stdin=lines),
        command.run("read", "-", stdin=gzip.compress(lines)),
    ):
        assert done.stdout == text
        assert done.stderr.decode().splitlines()[-1] == "3 lines of JSON, 3 resets"
    forged = command.run("read", str(log), "--origin", "forged", "-o", "json")
    (entry,) = map(json.loads, forged.stdout.splitlines())
    first = json.loads(lines.splitlines()[0])
    assert entry == first  # also the run that wrote it
    VALIDATOR.validate(entry)
    done = command.run("read", str(log), "-w", str(tmp_path / "out.pcapng"))
    assert (tmp_path / "out.pcapng").stat().st_size > 500


def test_an_amendment_is_shown_again_with_what_it_amends(incident: str) -> None:
    """Though a filter on the origin has only the first."""
    first = json.loads(command.run("read", "-o", "json", incident).stdout)
    second = {**first, "id": 2, "amends": 1, "origin": "peer"}
    lines = b"".join(json.dumps(made).encode() + b"\n" for made in (first, second))
    entries, amends = [first, second], [None, 1]
    filtered = command.run("read", "-o", "json", "--origin", "forged", "-", stdin=lines)
    assert [json.loads(line)["origin"] for line in filtered.stdout.splitlines()] == [
        "forged",
        "peer",
    ]
    # Behind another log, all numbers are other ones.
    both = command.run("read", "-o", "json", "-", stdin=lines + lines)
    again = [json.loads(line) for line in both.stdout.splitlines()]
    size = len(entries)
    assert [entry["amends"] for entry in again[:size]] == amends
    moved = [None if number is None else number + size for number in amends]
    assert [entry["amends"] for entry in again[size:]] == moved


@pytest.mark.parametrize(
    ("text", "words", "status"),
    [
        ('{"schema": 9}', "neither a capture nor JSON lines", 1),
        ("{", "neither a capture nor JSON lines", 1),
        ('{"schema": 1, "path": {}}\n{"schema": 1, "id": 1}', "broken at line 2", 0),
    ],
)
def test_json_lines_that_are_none(text: str, words: str, status: int) -> None:
    done = command.run("read", "-", stdin=text.encode())
    assert done.returncode == status
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_every_line_tells_its_run(incident: str) -> None:
    lines = command.run("read", "-o", "json", "--summary", incident).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 2
    for made in found:
        VALIDATOR.validate(made)
        assert made["run"] == found[0]["run"]
    assert found[0]["run"]["host"] == os.uname().nodename
    assert found[0]["run"]["version"] == __version__


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
    assert b"\r\x1b[K" in both.partition(b" IN  FORGED")[0]
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
    assert len(shown) == 2  # the second file is not even opened
    assert shown[1] == "5 packets, 1 reset"


def test_a_missing_reader_library_is_named(incident: str, tmp_path: Path) -> None:
    cut = write(tmp_path / "cut.pcap", Path(incident).read_bytes()[:-5])
    code = (
        "import sys\n"
        "from rsttrace.cli import main\n"
        "sys.modules['scapy'] = None\n"
        f"sys.argv[1:] = ['read', {cut!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "needs scapy" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
