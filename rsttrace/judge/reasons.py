"""What an appliance writes into its RSTs about their reason: a sentence, or a code. Pure.

RFC 9293 §3.5.3 allows a RST to carry text that says why. BIG-IP writes ``BIG-IP: [0x…] reason`` as
payload when told to (``tm.rstcause.pkt``, F5 K13223), others write sentences of their own.
NetScaler (Citrix ADC) puts the number of its reason into the window (Citrix CTX200852).
"""

from __future__ import annotations

from dataclasses import dataclass

from rsttrace.judge.facts import flow_half, once
from rsttrace.model import Reset

REASON_BYTES = 8
"""So many printable bytes are a sentence, not chance."""

SHOWN = 120
"""Characters of a payload that are shown."""

NEAR_WINDOW = 8
"""A window within an eighth (1/8) of one that the peer had is the peer's own."""

SPOKEN = (b"HTTP/", b"GET ", b"POST ", b"PUT ", b"HEAD ", b"SSH-", b"\x16\x03", b"\x17\x03")
"""What applications say: data that was left in a packet, not a reason."""

BIG_IP, NETSCALER = "an F5 BIG-IP", "a NetScaler (Citrix ADC)"

_IDLE = "a connection timed out, idle or left over, or its service went down"
_SMALL = "its protection against small windows"
_CHUNKS = "the HTTP body's chunks could not be followed"

CODES: dict[int, str] = {
    8196: "a bad TLS record",
    8201: "a packet for a connection that was closed already",
    8202: "data for a connection that is not there, its SYN cookie expired",
    8204: "the client sent its SYN again with another sequence number",
    8205: "the handshake's last ACK has a wrong number",
    8206: "while connecting to the server, a packet of an earlier connection on these ports came",
    8207: "a SYN inside the window of an established connection",
    8208: "too many retransmissions of the same data",
    8209: "out of memory for packets",
    8210: "its HTTP denial-of-service protection: a bad request",
    8211: _IDLE,
    8212: "nothing listens there, or the SYN cookie does not match",
    8213: "a POST on a connection that is closing",
    8214: "the SYN's MSS is larger than its interface can send",
    9100: "an HTTP request or answer that was never finished",
    9201: "the server sent data of an earlier transaction",
    9202: "the sequence numbers of a server connection that was used again do not fit",
    9203: "the server closed for an earlier client of a connection that was used again",
    9205: _CHUNKS,
    9206: "an invalid HTTP header",
    9207: "an HTTP header that could not be put together",
    9208: "an HTTP header that was not complete in time",
    9209: _CHUNKS,
    9210: "corrupt packets",
    9212: "an invalid HTTP request",
    9214: "its cache could not store the answer",
    9216: "its cache was out of memory",
    9217: "more body than Content-Length says",
    9218: "data after the end of the answer",
    9219: "out of memory for packets",
    9220: "out of memory for packets",
    9222: "an answer whose Content-Length and Transfer-Encoding are both invalid",
    9300: _IDLE,
    9301: _IDLE,
    9302: _IDLE,
    9303: _IDLE,
    9304: "the other side's window stayed 0 through all probes",
    9305: "the server acknowledged another number than its SYN's",
    9307: _SMALL,
    9308: _SMALL,
    9309: _SMALL,
    9310: "its keepalive probes were not answered",
    9400: "a kept server connection that could not be used again",
    9401: "it was at its limit, or the service was removed",
    9450: "a SQL handshake that failed",
    9451: "a SQL answer that it could not follow",
    9457: "a login at the SQL server that failed",
    9600: "too many packets whose numbers do not fit",
    9601: "too many data packets whose numbers do not fit",
    9700: "it passed on a RST that it received from the other side",
    9701: "it passed on a RST with ACK that it received from the other side",
    9702: "data came after the FIN",
    9704: "a packet was dropped: its queue was full, or the transaction had an error",
    9800: "a monitor's probe timed out",
    9810: "an answer with a status code that it is told to reset",
    9811: "a fatal TLS alert, as where client and server have no cipher in common",
    9812: "its address was removed from the configuration",
    9814: "a policy whose action is RESET",
    9816: "a bad TLS record",
    9817: "its certificate was being changed",
    9818: "a bad TLS header",
    9819: "out of memory for a TLS connection",
    9820: "its TLS card failed",
    9821: "TLS is turned off",
    9822: "its ciphers were changed",
    9826: "out of memory for packets",
    9827: "its TLS configuration was changed",
    9829: "the other site is down or out of reach",
    9830: "an ACL that denies",
    9832: "an error of the application",
    9833: "a fatal TLS error",
    9838: "a bad TLS record",
    9844: "too many TLS renegotiations",
    9845: "an application security policy",
    9855: "its queue of waiting connections overflowed",
    9863: "a new connection took the place of an old one",
    9872: "WebSockets are turned off in its HTTP profile",
    9874: "too many packets were held back",
    9875: "the client closed; this is for its server",
    9952: "the other side sent a fatal TLS alert",
    9953: "a timeout whose action is a reset",
    9960: "an error in the MPTCP options",
    9963: "an MPTCP checksum that does not match",
    9968: "an MPTCP fast close",
}
"""NetScaler's codes that a user meets, in our own words (Citrix CTX200852, of January 2023)."""


@dataclass(frozen=True)
class Written:
    """What a RST says of its own reason: the device (None: unknown) and the reason in words."""

    device: str | None
    reason: str


@once
def written(reset: Reset) -> Written | None:
    """The reason that a RST carries itself; None where it carries none."""
    text = sentence(reset)
    if text is not None:
        return Written(BIG_IP if text.startswith("BIG-IP") else None, text[:SHOWN])
    if reset.kind.direction == "sent":
        return None
    code = reset.rst.window
    known = CODES.get(code) if code is not None and not reset.rst.options else None
    if known is None or _is_a_window(reset):
        return None
    return Written(NETSCALER, f"{known} (code {code} in the window)")


def _is_a_window(reset: Reset) -> bool:
    """Whether a number is a window that the peer, or we, had: then it is that, and no code."""
    code = reset.rst.window or 0
    halves = (flow_half(reset), reset.baseline.ours)
    windows = [
        seen.window
        for half in halves
        for seen in (half.recent if half is not None else ())
        if seen.window is not None
    ]
    return any(abs(window - code) <= code // NEAR_WINDOW for window in windows)


def sentence(reset: Reset) -> str | None:
    """The payload, where it is a sentence and not what an application speaks."""
    data = reset.payload or b""
    if len(data) < min(REASON_BYTES, reset.rst.payload_len) or len(data) < 4:
        return None
    if data.startswith(SPOKEN):
        return None
    if not all(32 <= byte < 127 or byte in (9, 10, 13, 0) for byte in data):
        return None
    return data.decode("ascii").strip("\0\r\n ") or None
