"""Which TCP stack a host has, as far as its SYN or SYN-ACK tells: initial TTL, order of options.

Each stack writes the options of its SYN in an order of its own and leaves out, in a SYN-ACK, what
the other end did not offer. Sources: Linux, tcp_options_write() in net/ipv4/tcp_output.c; the
others, the signatures of p0f 3 (p0f.fp). A box that rewrites or takes away options on the way makes
an order that is nobody's: then nothing is known.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from rsttrace.model import Half, initial_ttl

_MORE = r"(,(nop|tfo|mptcp|option-\d+))*"  # Fast Open, MPTCP, experiments: behind the usual ones

LINUX_ORDER = re.compile(
    r"mss(,sackOK,TS|,nop,nop,TS|,nop,nop,sackOK)?(,nop,wscale)?" + _MORE, re.ASCII
)
"""Every order that Linux writes (but for signed connections, TCP MD5 and AO, which no rule needs);
the shorter ones are others' as well."""


class Stack(NamedTuple):
    """A stack's name, its initial TTL, and the orders that no other stack with that TTL writes."""

    name: str
    ttl: int
    order: re.Pattern[str]


STACKS = (
    Stack(
        "Linux",
        64,
        re.compile(r"mss(,sackOK,TS|,nop,nop,TS)(,nop,wscale)?" + _MORE, re.ASCII),
    ),
    Stack("Windows", 128, re.compile(r"mss((,nop,wscale)?,nop,nop,sackOK|,nop,wscale,sackOK,TS)")),
    Stack("macOS or iOS", 64, re.compile(r"mss,nop,wscale,nop,nop,TS,sackOK,eol")),
    Stack("FreeBSD", 64, re.compile(r"mss,nop,wscale,sackOK,TS")),
    Stack("OpenBSD", 64, re.compile(r"mss,nop,nop,sackOK,nop,wscale,nop,nop,TS")),
)


@lru_cache(maxsize=1024)
def order(options: str) -> str:
    """The kinds of options, in their order, without their values: ``mss,sackOK,TS,nop,wscale``."""
    return ",".join(word.split(" ", 1)[0] for word in options.split(",")) if options else ""


def stack(half: Half) -> str | None:
    """The stack that wrote a direction's SYN; None where that is not plain."""
    if half.syn_options is None or half.syn_ttl is None:
        return None
    return stack_of(order(half.syn_options), initial_ttl(half.syn_ttl))


@lru_cache(maxsize=256)
def stack_of(options: str, ttl: int) -> str | None:
    """The stack that writes its options in this order and starts with this TTL.

    32 stands for 64 as well: no stack in use starts with 32, so its host is more than 32 hops away.
    """
    for known in STACKS:
        starts = known.ttl == ttl or (ttl == 32 and known.ttl == 64)
        if starts and known.order.fullmatch(options):
            return known.name
    return None


def may_be_linux(half: Half) -> bool:
    """Whether a direction's SYN, if it was seen whole, does not speak against Linux."""
    options = half.syn_options
    if options is None or options.endswith("cut"):
        return True
    return LINUX_ORDER.fullmatch(order(options)) is not None
