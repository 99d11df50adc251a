"""How probable each author makes each observation: the one table of numbers behind every verdict.

A verdict compares stories: *who may have made this RST*, each of which has to explain everything
that was seen at once. `STORIES` says how often each one is true of the resets that a host
receives, `ROWS` how often a reset of that story looks like the observation, in percent. The
numbers are coarse (90, 30, 10, 3, 1, 0.3, …) and come from mechanism first: what a stack's code can
send at all, what a box must do to its packet, how often routes change. Counts only check them
(tests/accuracy: labelled captures, and a lab of real forgers and honest hosts). Nothing is 0: there
is always a stack or a box that we do not know.

Observations of one group exclude each other, so what one cause changes together counts once.
Where a group has nothing to compare, it is left out for all authors alike.
"""

from __future__ import annotations

import functools
import math
import operator
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rsttrace.model import Author

STORIES: tuple[tuple[str, Author, float], ...] = (
    # Most resets that reach a host are honest ones, half by a socket, half for want of one.
    ("socket", Author.PEER_SOCKET, 30.0),
    ("host", Author.PEER_HOST, 30.0),
    # The same author, behind a proxy that had answered for it until then.
    ("behind", Author.PEER_HOST, 1.0),
    ("firewall", Author.PEER_FIREWALL, 1.0),
    ("raw", Author.PEER_RAW, 0.1),
    ("balancer", Author.BALANCER, 3.0),
    ("reject", Author.REJECT, 5.0),
    ("second", Author.SECOND_HOST, 1.0),
    ("injector", Author.INJECTOR, 2.0),
    # The same author, who also copies the peer's TTL: another story, for that says where it is.
    ("copier", Author.INJECTOR, 1.0),
    ("mirror", Author.MIRROR, 1.0),
    ("swap", Author.SWAP, 0.5),
)
"""Each story: its name in the table, its author, and its prior: its share of all resets, in percent
of no fixed whole."""

NAMES = tuple(name for name, _, _ in STORIES)
AUTHORS = tuple(author for _, author, _ in STORIES)
PRIORS = tuple(prior for _, _, prior in STORIES)

WORDS: dict[Author, str] = {
    Author.PEER_SOCKET: "the peer's own live socket",
    Author.PEER_HOST: "the peer's host, which has no such socket",
    Author.PEER_FIREWALL: "a firewall on the peer's host",
    Author.PEER_RAW: "a program with a raw socket on the peer's host",
    Author.BALANCER: "a NAT box, proxy or load balancer that has the peer's address",
    Author.REJECT: "a firewall's REJECT rule",
    Author.SECOND_HOST: "a second host with the same address",
    Author.INJECTOR: "a device that injects packets of its own",
    Author.MIRROR: "a box that turns our own packet around",
    Author.SWAP: "a device that turns the peer's packets into resets",
}
"""Each author in words, as the verdict names it."""


@dataclass(frozen=True)
class Row:
    """One observation: its group, its name, how probable each story makes it, and why."""

    group: str
    name: str
    likelihoods: tuple[float, ...]
    why: str


# The columns of the table, in the order of STORIES:
#   socket  host  behind  firewall  raw  |  balancer  reject  second  injector  copier  mirror  swap
_TABLE: tuple[tuple[str, str, str, str], ...] = (
    # ---- distance: how far it came, against what stands for the peer ----
    (
        "distance",
        "ttl-same",
        "95    85    0.3   85    50    15    3     12    3     90    10    97",
        "A host sends all its packets the same way; a REJECT is as far only on a bridge beside it, "
        "backends of one balancer stand side by side",
    ),
    (
        "distance",
        "ttl-of-several",
        "80    70    5     70    40    40    5     40    5     80    5     90",
        "The peer's own packets come with several TTLs, and this is one of them",
    ),
    (
        "distance",
        "ttl-as-data",
        "10    15    30    25    10    10    1     3     10    1     2     5",
        "As one or two of its later packets, but not its handshake: a proxy answered that, or both "
        "are injected",
    ),
    (
        "distance",
        "ttl-other-handshake",
        "1     3     20    3     20    40    5     40    5     2     5     1",
        "Another host or path behind the same address has this distance",
    ),
    (
        "distance",
        "ttl-other-handshake-near",
        "1     3     0.5   3     20    40    5     40    5     2     5     1",
        "The same, nearer than this connection's own packets: a proxy is before its host, not "
        "behind it",
    ),
    (
        "distance",
        "ttl-varies",
        "25    25    5     25    10    30    50    40    50    5     50    5",
        "The peer's own packets come with several TTLs, and this is none of them",
    ),
    (
        "distance",
        "ttl-other-initial",
        "0.1   4     10    4     10    15    2     8     4     1     1     0.1",
        "A socket keeps its TTL (IP_TTL, ip(7)), the host's own answers have the host's default; "
        "two stacks side by side behind a balancer",
    ),
    (
        "distance",
        "ttl-program",
        "0.1   30    1     30    10    5     5     5     5     0.3   2     0.1",
        "A program set its socket's TTL (IP_TTL, ip(7)); the host answers with its default",
    ),
    (
        "distance",
        "ttl-program-perhaps",
        "0.1   5     0.3   5     10    20    30    10    15    1     15    0.1",
        "The same of a TTL that may be an ordinary one as well",
    ),
    (
        "distance",
        "ttl-near-many",
        "0.3   0.3   0.3   0.3   10    45    40    15    15    1     30    0.1",
        "1 to 3 hops nearer than many packets: that a route changes in that very moment",
    ),
    (
        "distance",
        "ttl-near-few",
        "0.5   0.5   0.5   0.5   10    45    40    15    15    2     30    0.3",
        "1 to 3 hops nearer than some packets",
    ),
    (
        "distance",
        "ttl-near-one",
        "2     4     0.5   4     10    30    30    15    15    2     30    0.5",
        "1 to 3 hops nearer than the handshake alone: paths differ by flow and by direction",
    ),
    (
        "distance",
        "ttl-next-peer",
        "5     5     1     5     10    40    40    15    15    2     30    1",
        "1 hop nearer than another connection's handshake: ways of two connections may differ so",
    ),
    (
        "distance",
        "ttl-near-peer",
        "0.2   0.2   1     0.2   10    40    40    15    15    2     30    1",
        "2 or 3 hops nearer than another connection's handshake",
    ),
    (
        "distance",
        "ttl-behind-many",
        "0.3   0.3   0.5   0.3   10    5     0.2   30    15    1     1     0.1",
        "1 to 3 hops farther than many packets: what is on the path is never farther than its end",
    ),
    (
        "distance",
        "ttl-behind-few",
        "0.7   0.7   35    0.7   10    8     0.2   20    15    2     1     0.3",
        "1 to 3 hops farther than some packets",
    ),
    (
        "distance",
        "ttl-behind-one",
        "2     2     35    2     10    15    0.2   20    15    2     1     0.5",
        "1 to 3 hops farther than the handshake alone: a proxy may have answered that",
    ),
    (
        "distance",
        "ttl-behind-peer",
        "3     3     35    3     10    15    0.2   20    15    2     1     1",
        "1 to 3 hops farther than another connection's handshake",
    ),
    (
        "distance",
        "ttl-nearer",
        "0.03  0.05  0.1   0.05  15    15    55    15    35    2     60    0.03",
        "More than 3 hops nearer: 1 of 321 honest resets in labelled captures, and that a box's",
    ),
    (
        "distance",
        "ttl-nearer-one",
        "0.1   0.2   0.1   0.2   15    15    55    15    35    2     60    0.1",
        "More than 3 hops nearer than the handshake alone",
    ),
    (
        "distance",
        "ttl-nearer-peer",
        "0.1   0.1   0.3   0.1   15    15    55    15    35    2     60    0.3",
        "More than 3 hops nearer than another connection's handshake",
    ),
    (
        "distance",
        "ttl-farther",
        "0.1   0.1   1     0.1   15    3     0.1   35    35    2     1     0.05",
        "4 to 8 hops farther than many packets",
    ),
    (
        "distance",
        "ttl-farther-few",
        "0.1   0.1   30    0.1   15    3     0.1   35    35    2     1     0.05",
        "4 to 8 hops farther than some packets: a proxy may have answered for a while",
    ),
    (
        "distance",
        "ttl-farther-one",
        "0.5   0.5   30    0.5   15    10    0.1   35    35    2     1     0.1",
        "More than 3 hops farther than the handshake alone: a SYN proxy may have answered that",
    ),
    (
        "distance",
        "ttl-farther-peer",
        "2     4     30    4     15    15    0.1   35    35    2     1     0.3",
        "More than 3 hops farther than another connection's handshake",
    ),
    (
        "distance",
        "ttl-other-start-behind",
        "0.03  0.1   10    0.4   15    5     0.3   25    35    1     1     0.03",
        "Farther, and with another initial TTL: a proxy may have answered for another stack",
    ),
    (
        "distance",
        "ttl-other-start",
        "0.03  0.1   0.5   0.4   15    10    15    25    35    1     20    0.03",
        "Nearer, and with another initial TTL than the peer's: another stack, elsewhere",
    ),
    (
        "distance",
        "ttl-beyond-one",
        "0.1   0.2   0.5   0.2   15    2     0.1   35    35    2     1     0.05",
        "More than 15 hops farther than the handshake: no proxy stands so far before its server",
    ),
    (
        "distance",
        "ttl-too-far-one",
        "0.3   0.5   20    0.5   15    5     0.1   35    35    2     1     0.1",
        "9 to 15 hops farther than the handshake: a proxy far in front may have answered",
    ),
    (
        "distance",
        "ttl-too-far",
        "0.03  0.1   0.5   0.1   15    2     0.1   35    35    2     1     0.03",
        "More than 8 hops farther than its packets",
    ),
    (
        "distance",
        "ttl-lone-whole",
        "8     8     20    8     20    20    45    30    30    2     40    3",
        "Another distance than a SYN that nobody confirmed, which has all the options of a stack: "
        "forged ones are often simpler",
    ),
    (
        "distance",
        "ttl-lone",
        "10    25    20    20    20    20    45    30    30    2     40    3",
        "Another distance than a SYN that nobody confirmed: the SYN may be the forgery",
    ),
    (
        "distance",
        "ttl-undiminished",
        "0.03  0.07  0.03  0.07  3     25    30    8     8     0.3   15    0.03",
        "No router passed it on (each takes one, RFC 1812 §5.3.1), though the way to the peer "
        "leads through one: made on our own link, by the gateway itself",
    ),
    (
        "distance",
        "ttl-new-syn",
        "3     85    10    20    15    40    3     60    12    3     3     0.5",
        "As far as a new SYN on these ports that came just before: who sent that answers our "
        "challenge ACK",
    ),
    (
        "distance",
        "ttl-routed",
        "2     2     10    2     10    15    1     30    40    1     2     0.3",
        "Came through routers though our route says that the peer is on our own link",
    ),
    (
        "distance",
        "ttl-counting",
        "0.01  0.01  0.01  0.01  5     0.1   0.03  0.03  20    1     1     0.03",
        "Resets of one moment with different TTLs: no stack draws or counts them",
    ),
    # ---- asked: what the peer answered when it was asked (--probe) ----
    (
        "asked",
        "asked-same",
        "90    90    30    90    50    70    3     50    4     85    3     90",
        "From where the peer's answer comes now; a box that owns the address, and a second host "
        "that the way leads to, answer for themselves",
    ),
    (
        "asked",
        "asked-other-initial",
        "3     3     5     3     10    5     5     8     5     1     2     1",
        "As far as the peer's answer, but started with another TTL: ICMP often has one of its own",
    ),
    (
        "asked",
        "asked-near",
        "0.2   0.2   0.2   0.2   10    8     43    12    15    2     30    0.3",
        "1 to 3 hops nearer than several answers, each a flow of its own, at the same moment: that "
        "one flow's way is shorter (Augustin, Friedman, Teixeira, ToN 2011)",
    ),
    (
        "asked",
        "asked-near-once",
        "1     1     1     1     10    8     40    12    15    3     30    1",
        "1 to 3 hops nearer than one answer, or than some of several: ways differ by flow",
    ),
    (
        "asked",
        "asked-nearer",
        "0.1   0.1   0.1   0.1   10    10    43    12    35    2     60    0.1",
        "More than 3 hops nearer than the peer's answer: nothing of the peer's stands there",
    ),
    (
        "asked",
        "asked-farther",
        "6     6     40    6     10    7     6     15    15    3     3     6",
        "Farther than the peer's answer: a router that passes its ports on answers an echo itself; "
        "then a REJECT may stand behind that, too",
    ),
    (
        "asked",
        "asked-beyond",
        "5     5     5     5     20    15    90    40    80    60    90    30",
        "Undiminished, while the peer's answer came through our gateway, which takes one: "
        "so that is no router that takes none",
    ),
    (
        "asked",
        "asked-two-holders",
        "3     3     3     3     3     3     3     55    3     3     3     3",
        "Two MACs say to have the address, one of them the RST's (RFC 5227 §2.4); a host with two "
        "interfaces in one network does so, too",
    ),
    (
        "asked",
        "asked-holder",
        "60    60    60    60    60    10    5     30    10    10    5     40",
        "The RST's MAC is the only one that says to have the address",
    ),
    (
        "asked",
        "asked-no-holder",
        "5     5     5     5     5     5     8     10    40    40    8     5",
        "The RST's MAC does not say to have the address; a bond and VRRP (RFC 5798 §7.3) have such",
    ),
    # ---- make: its shape against the peer's stack ----
    (
        "make",
        "bare",
        "0.2   85    85    80    5     55    85    60    4     10    1     10",
        "R or RA, ID 0, DF, window 0, no options: tcp_v4_send_reset(), nf_send_reset()",
    ),
    (
        "make",
        "bare-not-its-stack",
        "0.03  0.3   30    3     5     45    85    50    4     8     1     1",
        "The shape of a Linux host without a socket, from a peer that runs another stack",
    ),
    (
        "make",
        "bare-any-stack",
        "20    60    60    60    5     50    80    50    5     8     1     8",
        "The same, from a peer whose stack is unknown: some give up a live socket with it",
    ),
    (
        "make",
        "bare-unasked",
        "0.02  0.02  0.02  0.05  20    1     0.02  0.3   20    20    5     20",
        "An answer that no packet of ours asked for: without a socket, the numbers come from the "
        "packet that is answered (RFC 9293 §3.10.7.1)",
    ),
    (
        "make",
        "plain-answer",
        "20    40    40    8     8     12    4     20    10    10    15    8",
        "R or RA, window 0, no options, DF and IP ID of the kind that the peer's packets have",
    ),
    (
        "make",
        "live",
        "80    0.03  0.03  0.1   0.05  0.3   0.01  0.05  0.02  0.1   0.03  20",
        "RA, and ID, DF and timestamps go on as the peer's socket's: tcp_send_active_reset()",
    ),
    (
        "make",
        "live-by-clock",
        "80    0.03  0.03  0.1   0.1   0.5   0.01  0.1   0.1   0.5   0.1   20",
        "RA, with timestamps that go on by the peer's clock and echo ours",
    ),
    (
        "make",
        "live-window",
        "60    0.3   1     0.5   5     5     0.1   1     5     8     1     40",
        "RA with the peer's next number and its own window, from a stack whose IDs tell nothing",
    ),
    (
        "make",
        "live-plain",
        "60    0.3   3     1     5     10    0.5   5     20    30    5     30",
        "RA with a sequence number of its own, and nothing else to compare",
    ),
    (
        "make",
        "windows",
        "50    60    20    5     2     5     1     15    0.3   0.5   0.5   3",
        "As Windows sends it: ID goes on, DF, window 0, TTL 128 at birth",
    ),
    (
        "make",
        "continues",
        "30    20    1     5     0.5   1     0.1   0.3   0.2   0.3   0.3   20",
        "Its IP ID goes on where the peer's stopped",
    ),
    (
        "make",
        "timestamps-wrong",
        "0.005 0.005 1     0.1   20    1     0.01  3     10    30    20    3",
        "A timestamp that is not of the peer's clock, or echoes what we never sent (RFC 7323 §3.2)",
    ),
    (
        "make",
        "timestamps-missing",
        "0.01  0.01  0.1   0.1   3     0.3   0.03  0.1   1     3     1     30",
        "ID goes on as a live Linux socket's, without the timestamps that both ends agreed on",
    ),
    (
        "make",
        "alien",
        "0.01  0.01  15    0.1   30    10    1     8     45    45    40    8",
        "Something that the peer's stack, known by its SYN and habits, never sends",
    ),
    (
        "make",
        "alien-many",
        "0.003 0.003 5     0.05  30    5     0.5   5     50    50    50    8",
        "Several things that the peer's stack never sends",
    ),
    (
        "make",
        "ack-unflagged",
        "0.2   0.5   3     1     20    10    0.5   3     15    15    10    3",
        "An ack number without ACK, which Linux leaves 0: boxes on the way that shift numbers may "
        "write it (nf_ct_seq_adjust())",
    ),
    (
        "make",
        "pf",
        "0.03  0.1   0.1   10    0.3   10    10    0.3   0.3   0.3   0.1   0.03",
        "As pf's 'block return-rst' sends it: TOS 0x10 (pf_send_tcp(), FreeBSD and OpenBSD)",
    ),
    (
        "make",
        "pf-not-its-stack",
        "0.003 0.02  1     0.05  0.3   10    10    0.3   3     3     0.1   0.03",
        "The same, where the peer is a Linux host, which has no pf",
    ),
    (
        "make",
        "zero-no-df",
        "0.3   0.7   3     2     20    8     2     3     15    15    1     3",
        "IP ID 0 without DF, which the peer's packets do not have: a packet that may be fragmented "
        "needs an ID (RFC 6864 §4.1)",
    ),
    (
        "make",
        "df-lost",
        "1     3     15    5     20    10    3     8     30    30    5     3",
        "No DF, where all of the peer's packets had it",
    ),
    (
        "make",
        "df-lost-one",
        "3     5     15    6     20    10    4     10    28    28    8     4",
        "No DF, where the peer's handshake had it",
    ),
    (
        "make",
        "id-stranger",
        "0.5   2     15    4     20    12    4     10    30    30    10    5",
        "IP ID of another kind than the peer's: not 0 where all are, or far off its counter",
    ),
    (
        "make",
        "generic",
        "10    10    15    10    20    15    8     20    25    25    20    10",
        "No shape that tells anybody apart",
    ),
    # ---- copied: what is ours in it ----
    (
        "copied",
        "ip-id-ours",
        "0.01  0.01  0.02  0.02  0.05  0.1   0.02  0.05  0.3   0.3   60    0.3",
        "The IP ID of one of our own packets (or the next): by chance 1 of 8,000",
    ),
    (
        "copied",
        "ip-id-and-window-ours",
        "0.001 0.001 0.001 0.001 0.01  0.01  0.001 0.003 0.1   0.1   40    0.1",
        "Both of our own packets: its maker turned one around",
    ),
    (
        "copied",
        "window-ours",
        "1     0.3   0.3   0.3   10    3     0.3   1     30    20    40    2",
        "Our own window, and not the peer's: 186 of 702 labelled resets, all forged",
    ),
    (
        "copied",
        "window-ours-near",
        "8     2     2     2     10    5     2     3     15    12    20    6",
        "Our own window, where the peer's is near, or unknown",
    ),
    # ---- history: what the connection was doing ----
    (
        "history",
        "refused",
        "0.05  30    2     30    2     30    80    10    8     8     8     0.3",
        "The answer to our SYN, the first thing that came from the peer; a REJECT rule lets pass "
        "what is under way, so most that it rejects is new",
    ),
    (
        "history",
        "handshake",
        "15    10    10    2     3     10    6     3     5     5     3     1",
        "Right after the handshake, before any data",
    ),
    (
        "history",
        "shaken",
        "30    0.5   5     2     5     10    10    3     8     8     5     2",
        "Right after the peer had ended the handshake, before any data: its socket is there",
    ),
    (
        "history",
        "denied",
        "0.3   30    30    3     3     1     0.3   1     1     1     3     0.3",
        "The answer to our SYN-ACK of one who never sent that SYN, or no longer wants it: who "
        "let the SYN pass, or reads along, has no cause to refuse that",
    ),
    (
        "history",
        "peer-closed",
        "20    40    40    2     1     5     8     1     4     4     2     1",
        "After the peer's own FIN: its socket may be gone",
    ),
    (
        "history",
        "peer-reset",
        "1     40    40    3     1     5     5     3     3     3     2     1",
        "After another RST of the peer: its socket is gone",
    ),
    (
        "history",
        "peer-reset-later",
        "1     3     20    3     1     5     5     3     3     3     2     1",
        "The peer's own reset came just after it: an answer for want of a socket seldom "
        "overtakes that socket's last packet",
    ),
    (
        "history",
        "we-reset",
        "1     50    5     3     1     5     8     5     5     5     3     1",
        "After our own RST: the peer's socket is gone, and its host says so",
    ),
    (
        "history",
        "ports-reused",
        "1     30    3     5     5     20    5     30    8     5     3     1",
        "A new SYN on these ports came just before: our challenge ACK draws a RST of whoever sent "
        "it (RFC 5961 §4)",
    ),
    (
        "history",
        "we-closed",
        "25    5     15    3     3     5     15    3     4     4     3     3",
        "After our FIN: the peer may throw away what is left, but has its socket until it closes",
    ),
    (
        "history",
        "alive",
        "30    0.3   5     15    15    5     40    30    40    40    40    40",
        "The peer spoke a moment ago and had not closed: a host does not lose a socket that lives",
    ),
    (
        "history",
        "quiet",
        "20    0.5   10    10    10    10    20    20    15    15    15    30",
        "The peer had been silent for a while",
    ),
    (
        "history",
        "idle",
        "8     10    10    5     5     50    5     10    5     5     5     5",
        "The connection was idle for a minute or more: boxes forget those, hosts restart",
    ),
    (
        "history",
        "unanswered",
        "2     30    30    10    5     10    8     15    4     4     3     2",
        "The peer had left several of our packets unanswered: it may have restarted",
    ),
    # ---- timing ----
    (
        "timing",
        "too-soon",
        "0.1   0.1   0.1   0.1   0.3   20    40    10    50    50    50    2",
        "Sooner after what it answers than half the least of several round trips",
    ),
    (
        "timing",
        "too-soon-perhaps",
        "10    10    10    10    10    25    40    20    50    50    50    10",
        "The same, of too few round trips to know the least one",
    ),
    # ---- numbers ----
    (
        "numbers",
        "beyond-reach",
        "0.1   0.1   0.1   0.1   0.1   20    30    10    20    20    30    3",
        "It acknowledges a packet of ours that died before it could reach the peer",
    ),
    (
        "numbers",
        "behind-data",
        "0.7   1     1     1     10    5     5     5     20    15    10    5",
        "A number that the peer has used already, and none that we asked for",
    ),
    (
        "numbers",
        "strange-ack-perhaps",
        "2     3     3     3     10    6     5     6     20    15    10    6",
        "It acknowledges what a capture does not show as sent: it may lack our last packet",
    ),
    (
        "numbers",
        "sweep",
        "0.02  0.02  0.02  0.1   10    0.1   0.1   0.1   30    20    3     0.3",
        "One of several RSTs with numbers that no packet of this connection had: blind guesses",
    ),
    (
        "numbers",
        "strange-ack",
        "0.3   1     1     1     10    5     3     5     20    15    10    5",
        "It acknowledges less than the peer had already, or what we never sent (RFC 9293 §3.4)",
    ),
    (
        "numbers",
        "next-number",
        "90    1     1     1     20    20    5     1     30    60    15    90",
        "The peer's own next numbers in a RST+ACK from another distance: its socket has them, "
        "and who reads along; a REJECT has those of the packet that it answers",
    ),
    (
        "numbers",
        "tripled",
        "0.1   0.1   0.1   0.3   10    0.3   0.3   0.3   15    10    3     1",
        "The same RST three times or more, where the peer's other packets came once: to be sure",
    ),
    (
        "numbers",
        "moves-on",
        "0.02  0.02  0.02  0.1   5     0.1   0.1   0.1   30    20    5     1",
        "Several RSTs whose numbers answer nothing and move, though the peer sent nothing (Weaver, "
        "Sommer, Paxson, NDSS 2009)",
    ),
    # ---- link: the frame's source MAC ----
    (
        "link",
        "mac-own",
        "97    97    97    97    97    3     1     2     5     10    1     10",
        "The peer is on our own link, and this is its own MAC",
    ),
    (
        "link",
        "mac-other-gateway",
        "1     1.5   3     1.5   1     3     3     15    3     3     2     1",
        "From our next hop, where the peer's packets came from another: a failover does that",
    ),
    (
        "link",
        "mac-another",
        "0.1   0.2   1     0.2   1     3     3     60    25    20    5     0.3",
        "The peer is on our own link, and this is another machine's MAC there",
    ),
    (
        "link",
        "mac-stranger",
        "0.3   0.5   1     0.5   1     5     3     50    20    20    3     0.3",
        "From a MAC that is neither the peer's packets' nor our next hop's",
    ),
    (
        "link",
        "mac-unexpected",
        "3     3     3     3     3     6     4     20    12    12    4     3",
        "Not from our next hop, and no packet of the peer to compare with: asymmetric routing",
    ),
    # ---- aftermath ----
    (
        "aftermath",
        "went-on",
        "0.003 0.03  20    0.2   30    8     3     10    30    30    30    15",
        "The peer went on after its RST, with what answers us: a RST is a socket's last packet",
    ),
    (
        "aftermath",
        "went-on-perhaps",
        "1     3     10    30    30    20    40    30    30    30    30    15",
        "The peer went on, but that may have been under way, or the RST answers one stray packet",
    ),
    (
        "aftermath",
        "accepted",
        "0.003 0.003 1     0.03  3     5     0.3   20    30    30    30    3",
        "A SYN-ACK for the very SYN that was refused, sent once: two answered it",
    ),
    (
        "aftermath",
        "asked-again",
        "0.5   0.7   3     15    15    10    30    20    20    20    20    10",
        "The peer repeated its SYN-ACK, though we had answered it",
    ),
    (
        "aftermath",
        "reset-again",
        "0.003 0.01  0.01  0.1   0.3   0.3   0.1   0.1   1     1     1     40",
        "A live socket's RST again, with the same number: a socket resets once, only data is sent "
        "again",
    ),
    (
        "aftermath",
        "live-twice",
        "0.1   0.3   0.3   0.3   5     1     0.3   1     20    20    5     5",
        "Several live sockets' RSTs with IP IDs of no one counter",
    ),
    # ---- content ----
    (
        "content",
        "payload",
        "0.01  0.01  0.01  0.1   3     1     0.01  0.3   5     5     10    40",
        "Application data in a RST: RFC 9293 §3.10.7.4 allows it, no stack sends it",
    ),
    (
        "content",
        "payload-unseen",
        "0.1   0.2   0.2   0.3   3     8     0.5   0.3   4     3     5     20",
        "Data in a RST that was cut off before it: a reason in words, or application data",
    ),
    (
        "content",
        "reason-text",
        "0.2   0.3   0.3   0.5   1     15    1     0.3   3     1     0.3   0.3",
        "A reason in words (RFC 1122 §4.2.2.12): some load balancers and firewalls write one",
    ),
    (
        "content",
        "reserved-bits",
        "0.03  0.03  0.03  0.03  5     0.3   0.03  0.1   10    10    3     1",
        "Reserved TCP header bits set (RFC 9293 §3.1): every stack sends 0",
    ),
    (
        "content",
        "bad-checksum",
        "0.3   0.3   0.3   0.3   3     1     0.3   0.3   8     5     5     10",
        "A wrong TCP checksum, where the peer's others are right: hand-made, or damaged",
    ),
    # ---- shared ----
    (
        "shared",
        "ip-id-shared",
        "0.3   0.5   0.5   0.3   1     10    0.3   0.1   15    10    1     0.1",
        "One counter in the RSTs of several addresses: one box makes them all",
    ),
    # ---- other end ----
    (
        "other-end",
        "other-end-log",
        "3     3     3     3     3     40    40    40    40    40    40    40",
        "The other end's own log has no such RST; that the log is whole cannot be seen from it",
    ),
)


def _row(group: str, name: str, numbers: str, why: str) -> Row:
    likelihoods = tuple(float(number) / 100 for number in numbers.split())
    assert len(likelihoods) == len(STORIES), name
    return Row(group, name, likelihoods, why)


ROWS: dict[str, Row] = {row[1]: _row(*row) for row in _TABLE}
"""Every observation by its name."""

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(row.group for row in ROWS.values()))
"""The groups, in the order in which a person would look."""

PEERS = sum(author.is_peer for author in AUTHORS)
"""So many stories, the first ones, are the peer's."""

TINY = 1e-30

FORGED_FROM = 0.95
"""So probable must "not the peer" be for an accusation."""

PEER_FROM = 0.90
"""So probable must the peer's stack, host and firewall be together."""


class Model:
    """The table, ready to be added up: logarithms of priors and likelihoods.

    `priors` and `rows` replace the table's own (tests move them at random). `memo` is for who
    weighs the same observations again and again.
    """

    def __init__(
        self,
        priors: tuple[float, ...] = PRIORS,
        rows: dict[str, tuple[float, ...]] | None = None,
    ) -> None:
        self.memo: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        whole = sum(priors)
        self.priors = tuple(math.log(prior / whole) for prior in priors)
        numbers = rows or {name: row.likelihoods for name, row in ROWS.items()}
        self.rows = {
            name: tuple(math.log(value) for value in values) for name, values in numbers.items()
        }
        self._inverses = {
            name: (
                tuple(1 / value for value in values[:PEERS]),
                tuple(1 / value for value in values[PEERS:]),
            )
            for name, values in numbers.items()
        }

    def weigh(self, names: tuple[str, ...]) -> tuple[float, ...]:
        """The stories' probabilities after these observations (Bayes' rule); they add up to 1."""
        return shares_of(self.logs(names))

    def without(self, shares: tuple[float, ...], name: str) -> float:
        """The log-odds of "not the peer" if one of the observations had not been made."""
        peers, others = self._inverses[name]
        peer = sum(map(operator.mul, shares, peers))
        other = sum(map(operator.mul, shares[PEERS:], others))
        return math.log(max(other, TINY) / max(peer, TINY))

    def logs(self, names: tuple[str, ...]) -> list[float]:
        """The logarithms of the stories' priors times their likelihoods."""
        rows = [self.rows[name] for name in names]
        return [sum(column) for column in zip(self.priors, *rows)]


def shares_of(logs: Iterable[float]) -> tuple[float, ...]:
    """Logarithms of weights as shares that add up to 1."""
    logs = list(logs)
    most = max(logs)
    weights = [math.exp(value - most) for value in logs]
    whole = sum(weights)
    return tuple(weight / whole for weight in weights)


TABLE = Model()
"""The table that verdicts rest on."""


def peer_share(shares: tuple[float, ...]) -> float:
    """How much of the stories' probabilities is the peer's."""
    return sum(shares[:PEERS])


def by_author(shares: tuple[float, ...]) -> dict[Author, float]:
    """The authors' probabilities: those of their stories together, the largest first."""
    found: dict[Author, float] = {}
    for author, share in zip(AUTHORS, shares):
        found[author] = found.get(author, 0.0) + share
    return dict(sorted(found.items(), key=_share, reverse=True))


def _share(item: tuple[Author, float]) -> float:
    return item[1]


PRIOR_OF: Mapping[Author, float] = by_author(TABLE.weigh(()))
"""How often resets are each author's, of all that a host receives."""


@functools.cache
def factors(name: str) -> Mapping[Author, float]:
    """How probable each author makes an observation; of two stories of one, their priors' mean."""
    found: dict[Author, float] = {}
    weight: dict[Author, float] = {}
    for author, prior, value in zip(AUTHORS, PRIORS, ROWS[name].likelihoods):
        found[author] = found.get(author, 0.0) + prior * value
        weight[author] = weight.get(author, 0.0) + prior
    return {author: found[author] / weight[author] for author in found}
