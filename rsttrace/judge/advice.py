"""What to look at next: one line for each author, deed of the peer, cause and finding. Pure.

`{port}`, `{remote_port}`, `{local}`, `{remote}` and `{netns}` stand for the reset's own.
"""

from __future__ import annotations

from rsttrace.judge.why import Deed, deed, opened_here
from rsttrace.model import Author, Kind, Origin, Reset, Share

UNDECIDED: tuple[tuple[frozenset[Author], str], ...] = (
    (
        frozenset({Author.PEER_HOST, Author.REJECT}),
        "the peer's distance tells them apart: --probe asks for it (an echo, or a SYN)",
    ),
    (
        frozenset({Author.PEER_HOST, Author.BALANCER}),
        "a box that owns the address answers for every port, the peer's host for its own; --probe "
        "asks for the peer's distance",
    ),
    (
        frozenset({Author.PEER_FIREWALL, Author.REJECT}),
        "look for reject rules at both ends, or capture at the peer and compare",
    ),
    (
        frozenset({Author.PEER_HOST, Author.SECOND_HOST}),
        "ask the link for a second MAC (--probe-arp), or capture at the peer and compare",
    ),
    (
        frozenset({Author.PEER_SOCKET, Author.SWAP}),
        "only the other end knows: capture there and compare",
    ),
    (
        frozenset({Author.PEER_SOCKET, Author.INJECTOR}),
        "only the other end knows: capture there and compare",
    ),
)
"""What tells two authors apart that a verdict leaves open; the likeliest pair counts."""

NAMED: dict[Author, str] = {
    Author.BALANCER: "look at the idle timeouts and the state table of the NAT box or load "
    "balancer in front of the peer",
    Author.REJECT: "look for a rule that rejects with tcp reset on the firewall at that distance "
    "(--locate names the hop)",
    Author.SECOND_HOST: "did a virtual address move (failover)? Else look for a second host with "
    "that address (--probe-arp on our link)",
    Author.INJECTOR: "--locate names the hop; ask whoever runs it for an IPS or filter policy",
    Author.MIRROR: "--locate names the hop; ask whoever runs it for an IPS or firewall policy",
    Author.SWAP: "capture at the peer and compare: what left there was turned into this packet",
    Author.PEER_RAW: "look for a program with a raw socket on the peer's host (ss -wp)",
}
"""What to look at once the likeliest author is named."""

MADE_HERE: dict[Kind, str] = {
    Kind.SENT_NETFILTER: "list the rules of {netns}: nft -a list ruleset, iptables-save -c",
    Kind.SENT_RAW: "look at that process: ss -wp, and its packet sockets: ss -0p",
    Kind.SENT_PASSIVE: "look at what listens in {netns}: ss -ltnp, and at its routes and NAT rules",
    Kind.SENT_ACTIVE: "its own entry (sent by {netns}) says why; look at the log of that process",
}
"""What to look at where this node made a RST that another one of its namespaces received."""

DEEDS: dict[Deed, str] = {
    Deed.REFUSED: "on {remote}: ss -ltn 'sport = :{remote_port}'; is the service up, on this "
    "address?",
    Deed.CLOSED: "who closes first, and after how long: make this side's keep-alive shorter than "
    "that, or let it retry",
    Deed.RESET: "look at the reset before this one: it has the reason",
    Deed.WE_RESET: "look at our own reset before this one: it has the reason",
    Deed.REUSED: "look for hosts that share {remote} (NAT), or a client that takes ports again too "
    "soon",
    Deed.NO_HANDSHAKE: "if there are many: spoofed SYNs or a scan; else a client that gave up",
    Deed.FORGOT: "send keepalives more often (net.ipv4.tcp_keepalive_time); look at idle timeouts "
    "on the way",
    Deed.GAVE_UP: "why did it hear nothing of us? Are our answers in a capture at its end, does a "
    "firewall drop them, had this host stopped?",
    Deed.STALLED: "why does the program at {local}:{port} read nothing? ss -tnmp 'sport = :{port}' "
    "shows what waits for it (Recv-Q)",
    Deed.NO_CONNECTION: "was the service on {remote} restarted, or does a balancer spread packets "
    "over several hosts?",
    Deed.ABORTED: "look at the log of the program at {remote}:{remote_port}: it closed with data "
    "unread, or was killed",
    Deed.FIREWALL: "look for reject rules on {remote}: nft -a list ruleset, iptables-save -c",
    Deed.SAID: "look that reason up in the log, or the manual, of the device that wrote it",
    Deed.UNKNOWN: "capture at the peer and compare (rsttrace compare)",
}
"""What to look at where an honest peer sent it."""

CLIENT_GONE = (
    "was {remote}, the client, restarted or moved to another network? Did a NAT box before it lose "
    "the connection?"
)
"""What to look at where the host without the connection is the one that had opened it."""

EXPLAINED = frozenset(
    {Deed.CLOSED, Deed.RESET, Deed.WE_RESET, Deed.REUSED, Deed.FORGOT, Deed.NO_CONNECTION}
)
"""Deeds of a host that had the connection: what listens there, and its rules, tell no more."""

_SERVICE = "ss -ltnp 'sport = :{port}'"
_READ_ALL = "let the program read all it is sent before it closes"
_NETSTAT = "nstat -az 'TcpExt*'"

CAUSES: dict[str, str] = {
    "no-listener": _SERVICE + " shows nothing: start the service, or find where it listens: ss "
    "-ltnp",
    "no-socket": "was the program restarted, or is the packet meant for another host? ss -tn "
    "'sport = :{port}'",
    "no-connection": "was the program restarted, or is the packet meant for another host? ss -tn "
    "'sport = :{port}'",
    "listen": "was the service restarted, or did a SYN cookie come back too late? nstat -az "
    "TcpExtSyncookiesFailed; " + _SERVICE,
    "listen-overflow": "ss -ltn 'sport = :{port}' shows its queue: accept faster, or raise the "
    "backlog of listen() and net.core.somaxconn",
    "data-after-close": "let the program read until the other end closes (shutdown, then read), or "
    "keep connections longer than its clients do",
    "ended-by-reset": "look at the RST that ended it, just before this one: that is the one to "
    "explain",
    "after-reset": "look at our own reset before this one: it has the reason",
    "gave-up": "why did the peer not answer before? sysctl net.ipv4.tcp_retries2; look for "
    "TCP_USER_TIMEOUT in the program",
    "ports-reused": "use more ports (net.ipv4.ip_local_port_range), or take each again later",
    "time-wait": "the other end sends after the end: look at its keep-alive times",
    "unread-data": _READ_ALL,
    "linger": "look for SO_LINGER with 0 seconds in the program (strace -e setsockopt)",
    "linger2": "look for TCP_LINGER2 in the program, and net.ipv4.tcp_fin_timeout",
    "memory": "sysctl net.ipv4.tcp_mem net.ipv4.tcp_max_orphans; cat /proc/net/sockstat",
    "keepalive": "sysctl net.ipv4.tcp_keepalive_time net.ipv4.tcp_keepalive_intvl "
    "net.ipv4.tcp_keepalive_probes; is the peer still there?",
    "user-timeout": "look for TCP_USER_TIMEOUT in the program; is the peer still there?",
    "timer": "is the peer still there? ss -tino 'dport = :{remote_port}'; net.ipv4.tcp_retries2",
    "disconnect": "the program connected the socket anew (connect with AF_UNSPEC): look there",
    "orphan-timeout": "sysctl net.ipv4.tcp_fin_timeout net.ipv4.tcp_orphan_retries",
    "not-accepted": "was the service stopped with clients in its queue? Drain it first, or keep "
    "its socket (socket activation, tcp_migrate_req)",
    "aborted": "look for who runs ss -K, or a program with SOCK_DESTROY or a BPF iterator",
    "firewall-reject": "list the rules of {netns}: nft -a list ruleset, iptables-save -c",
    "raw-socket": "look at that process: ss -wp, and its packet sockets: ss -0p",
    "mptcp-reset": "ip mptcp limits; ip mptcp endpoint; nstat -az 'MPTcp*'",
    "mptcp-fastclose": _READ_ALL,
    "invalid-ack": "something answers with numbers of another connection: capture both ends and "
    "compare",
    "old-ack": "something answers with old numbers: capture both ends and compare",
    "paws": "are several hosts behind one address (NAT)? sysctl net.ipv4.tcp_timestamps; "
    + _NETSTAT,
    "invalid-syn": "look for hosts that share {remote} (NAT), or take ports again too soon",
    "unexpected-segment": "capture both ends and compare (rsttrace compare)",
    "answered": "capture both ends and compare (rsttrace compare)",
    "protocol-error": "capture both ends and compare (rsttrace compare)",
    "unspecified": "look at the log of the program that had the connection",
    "unknown": "rsttrace doctor says what this kernel cannot tell",
}
"""What to look at for what this host sent, by its cause."""

_NUMBERS = (
    "does a box between change numbers (sequence randomisation)? Capture both ends and compare"
)
_KEYS = "is the same key set at both ends, for these addresses? Did {remote} restart without it?"
_COUNTERS = "ip -s -s link; ethtool -S of the interface it came by"
_BUFFERS = (
    "sysctl net.ipv4.tcp_mem net.ipv4.tcp_rmem; cat /proc/net/sockstat; does the program read?"
)
_ON_ITS_WAY = "capture at each hop and compare: where were these headers damaged?"
_LEFT_OVER = "it was over: look at who closes first, and whether the other end sends after that"

IGNORED: dict[str, str] = {
    "time-wait": _LEFT_OVER,
    "closed": _LEFT_OVER,
    "socket-closed": _LEFT_OVER,
    "data-after-close": _LEFT_OVER,
    "challenge-ack": _NUMBERS,
    "out-of-window": _NUMBERS,
    "invalid-ack": _NUMBERS,
    "old-ack": _NUMBERS,
    "wrong-ack": _NUMBERS,
    "listen": "it belongs to a connection that is over here: was this service restarted? "
    + _SERVICE,
    "ignored": "rsttrace doctor says what this kernel cannot tell",
    "dropped": "rsttrace doctor says what this kernel cannot tell",
    "syn-recv": DEEDS[Deed.NO_HANDSHAKE],
    "reset-flag": "capture both ends and compare (rsttrace compare)",
    "unexpected-segment": "capture both ends and compare (rsttrace compare)",
    "invalid-syn": "look for hosts that share {remote} (NAT), or take ports again too soon",
    "fast-open": "sysctl net.ipv4.tcp_fastopen; nstat -az 'TcpExtTCPFastOpen*'",
    "listen-overflow": CAUSES["listen-overflow"],
    "bad-checksum": "capture at the peer and compare: it was damaged, or written by hand, on its "
    "way; ethtool -k (rx checksums)",
    "bad-ip-checksum": _ON_ITS_WAY,
    "bad-ip-header": _ON_ITS_WAY,
    "malformed": _ON_ITS_WAY,
    "fragments": "a RST needs no fragments: what cuts it on its way? nstat -az 'IpReasm*' "
    "'Ip6Reasm*'",
    "zero-window": _BUFFERS,
    "receive-buffer": _BUFFERS,
    "backlog": _BUFFERS,
    "no-memory": _BUFFERS,
    "queue-purged": _BUFFERS,
    "paws": CAUSES["paws"],
    "bad-echo": CAUSES["paws"],
    "min-ttl": "is {remote} farther away than the socket allows? Look for IP_MINTTL (GTSM, "
    "ttl-security) in its settings",
    "bad-signature-option": _KEYS,
    "md5-missing": _KEYS,
    "md5-unexpected": _KEYS,
    "md5-wrong": _KEYS,
    "ao-missing": _KEYS,
    "ao-unexpected": _KEYS,
    "ao-key-missing": _KEYS,
    "ao-wrong": _KEYS,
    "psp": "do both ends have the same PSP keys? Look at the log of the program that set them",
    "socket-filter": "look for SO_ATTACH_FILTER or SO_ATTACH_BPF in the program: ss -0b, ss -tnpe",
    "security-module": "ausearch -m avc -ts recent; journalctl -k | grep -i denied",
    "ipsec-policy": "ip xfrm policy; ip xfrm state; nstat -az 'Xfrm*'",
    "cgroup-program": "bpftool cgroup tree",
    "xdp": "ip -d link; bpftool net",
    "traffic-control": "tc -s filter show dev DEV ingress; bpftool net",
    "traffic-control-out": "tc -s filter show dev DEV egress; bpftool net",
    "queue-drop": "tc -s qdisc",
    "cpu-backlog": "cat /proc/net/softnet_stat; sysctl net.core.netdev_max_backlog",
    "device": _COUNTERS,
    "tunnel": "ip -d -s link: the tunnel's numbers (VNI, key) at both ends",
    "bridge": "bridge -d link; bridge fdb",
    "firewall-drop": "list this end's rules, so that a RST may end what it belongs to: nft -a list "
    "ruleset, iptables-save -c",
    "other-host": "why do frames for another MAC come here? bridge fdb; ip neigh at the sender",
    "multicast-frame": "why does one host's packet come in a broadcast? ip neigh at the sender",
    "rp-filter": "is the way back another one? ip route get {remote}; sysctl "
    "net.ipv4.conf.all.rp_filter",
    "no-protocol": _COUNTERS,
    "ipv6-off": "sysctl net.ipv6.conf.all.disable_ipv6",
    "no-route": "ip route get {remote}; ip route get {local}; ip rule",
    "bad-address": "ip route get {remote}; sysctl net.ipv4.conf.all.route_localnet",
    "too-big": "ip -d link (MTU); ip route get {remote}",
    "no-neighbor": "ip neigh; is the next hop up? sysctl net.ipv4.neigh.default.gc_thresh3",
}
"""What to look at where a RST that an honest peer may have sent did nothing here, by its cause."""

KILLED = (
    "what killed it? dmesg (out of memory), coredumpctl, journalctl; the stop time limit of a "
    "container or service"
)
EXITED = "it ended with connections open: look at its log (journalctl); let it close them first"
"""What to look at where the kernel closed the sockets of a program that had ended."""

FINDINGS: dict[str, str] = {
    "rejecting-rule": "change that rule, or accept this traffic before it: nft -a list ruleset; "
    "iptables-save -c",
    "answered-here": "did the address move to {netns}, or was its service drained, its NAT entry "
    "lost? conntrack -L; ipvsadm -Ln",
    "redirected-here": "does the proxy listen that this rule leads to? In {netns}: ss -ltnp; nft "
    "-a list ruleset",
    "listens-now": "the service started just now: let its clients wait for it, or try again",
    "listener-gone": "the service has ended: look at its log (systemctl status, journalctl)",
    "listens-local-only": "let the program listen on 0.0.0.0 and :: (its bind address), not on the "
    "loopback address: ss -ltnp",
    "listens-other-address": "let the program listen on that address and IP version too: ss -ltnp",
    "listens-elsewhere": "is the service published, or its port forwarded, from that namespace? ip "
    "netns exec NAME ss -ltnp",
    "listens-other-port": "is it one of those ports that is meant? ss -ltnp",
    "keepalive-race": "set this side's keep-alive below the other's idle timeout, or let it retry "
    "requests that are safe to repeat",
    "upstream-failed": "look at that other connection first: the program may only have passed "
    "its end on",
    "port-reuse": "look for hosts that share {remote} (NAT), or a client that takes ports again "
    "too soon (net.ipv4.ip_local_port_range)",
    "port-scan": "nothing is wrong here; ss -ltn shows what it may have found",
    "spoofed-syn": "sysctl net.ipv4.tcp_syncookies; " + _NETSTAT + " | grep -i cookie",
    "health-check": "nothing is wrong: leave them out with --net or --port",
    "duplicate-address": "did {remote} move to another host (failover)? Else two have it: "
    "--probe-arp asks our link, arp -a the router there",
    "split-identity": "a proxy stands before {remote}: look for the reason in its log",
    "nat-state-lost": "on that NAT box: its idle timeouts and the size of its table (conntrack -S, "
    "nf_conntrack_max)",
    "peer-of-several": "several hosts answer for {remote}: ask each one, or its balancer",
    "idle-timeout": "send keepalives sooner than that (net.ipv4.tcp_keepalive_time, "
    "SO_KEEPALIVE), or raise the timeout",
    "escaped-nat": "conntrack -S on the NAT box (do all answers pass it?): drop ct state invalid, "
    "or set nf_conntrack_tcp_be_liberal=1",
    "connection-refused": "ss -ltn 'sport = :{remote_port}' on {remote}; does it listen, on this "
    "address?",
}
"""What a finding asks for."""

SHORT_WAY = (
    "it went past the NAT box, on one link: bridge-nf-call-iptables=1 if that is its bridge, else "
    "masquerade this, too (hairpin)"
)
"""What ``escaped-nat`` asks for where no translation could have seen the answer."""

OURS: dict[str, str] = {
    "keepalive-race": "keep idle connections longer than their clients do (this side's keep-alive "
    "timeout), or make theirs shorter",
    "port-reuse": "use more ports (net.ipv4.ip_local_port_range), or take each again later; do "
    "several hosts share {local} (NAT)?",
}
"""What a finding asks for at the end that sent the reset, where that is something else."""

OUR_FINDINGS = {**FINDINGS, **OURS}

DECISIVE = frozenset(
    {
        *("keepalive-race", "upstream-failed", "port-reuse", "escaped-nat"),
        *("port-scan", "spoofed-syn", "health-check"),
    }
)
"""Findings that explain the reset: what they ask for comes first. What this node itself has found
(`Reset.notes`) does, too."""

LEFT = 0.05
"""An author less likely than this is not one of those left."""

FALLBACK = "capture at the peer and compare (rsttrace compare)"


def advice(
    reset: Reset, origin: Origin, authors: tuple[Share, ...], found: tuple[str, ...], cause: str
) -> str | None:
    """The next step, in one line; None where there is nothing to be looked for.

    `found` are the names of the findings, `cause` that of the cause.
    """
    asks = FINDINGS if reset.kind.direction == "received" else OUR_FINDINGS
    known = [name for name in found if name in asks]
    if known and _took_the_short_way(reset):
        asks = {**asks, "escaped-nat": SHORT_WAY}
    decisive = DECISIVE.union([note.name for note in reset.notes]) if reset.notes else DECISIVE
    line = next((asks[name] for name in known if name in decisive), None)
    made = reset.made_here
    if reset.kind is Kind.RECEIVED_REJECTED and origin is not Origin.FORGED:
        line = line or IGNORED.get(cause)
    if made is not None and reset.kind.direction == "received":
        line = line or _made_here(reset, made.kind, origin)
    elif origin is Origin.FORGED:
        line = NAMED.get(authors[0].author) if authors else None
    elif origin is Origin.INCONCLUSIVE:
        line = line or _left_open(reset, authors)
    elif origin is Origin.PEER:
        did = deed(reset)[0]
        if did in (Deed.UNKNOWN, Deed.NO_CONNECTION):
            line = line or next((asks[name] for name in known), None)
        if did is Deed.NO_CONNECTION and authors and authors[0].author is Author.PEER_FIREWALL:
            did = Deed.FIREWALL
        if did is Deed.NO_CONNECTION and opened_here(reset) is False:
            line = line or CLIENT_GONE
        line = line or DEEDS[did]
    else:
        line = line or _ended(reset, cause) or CAUSES.get(cause)
    return _filled(line, reset) if line is not None else None


def _made_here(reset: Reset, kind: Kind, origin: Origin) -> str:
    """Where another namespace of this node made it: what its history explains needs no more."""
    did = deed(reset)[0]
    if kind is Kind.SENT_PASSIVE and origin is Origin.PEER and did in EXPLAINED:
        return DEEDS[did]
    return MADE_HERE[kind]


def _ended(reset: Reset, cause: str) -> str | None:
    """What to look at where a program has ended, and its sockets were closed for it."""
    process = reset.process
    of_its_close = reset.kind is Kind.SENT_ACTIVE or cause == "data-after-close"
    if not of_its_close or process is None:
        return None
    if process.exit_signal is not None:
        return KILLED
    return EXITED if process.exit_status is not None else None


def _took_the_short_way(reset: Reset) -> bool:
    """Whether the other end is on our own link: what it sends passes no router."""
    hop = reset.next_hop
    return hop is not None and not hop.is_gateway and hop.ip == reset.remote.ip


def _left_open(reset: Reset, authors: tuple[Share, ...]) -> str:
    """What tells the likeliest authors apart."""
    left = {share.author: share.probability for share in authors[:3] if share.probability >= LEFT}
    pairs = [
        (sum(left[who] for who in pair), text) for pair, text in UNDECIDED if pair <= set(left)
    ]
    if reset.probed is not None:  # the peer has been asked already
        pairs = [pair for pair in pairs if "--probe " not in pair[1]]
    return max(pairs, key=lambda pair: pair[0])[1] if pairs else FALLBACK


def _filled(line: str, reset: Reset) -> str:
    """A line with the reset's own addresses, ports and namespace in it."""
    if "{" not in line:
        return line
    made = reset.made_here
    inode, name = (reset.netns, reset.netns_name) if made is None else (made.netns, made.netns_name)
    local, remote = reset.local, reset.remote
    if reset.kind is Kind.FORWARDED:  # its sender is the remote end, as its receiver sees it
        local, remote = remote, local
    return line.format(
        port=local.port,
        remote_port=remote.port,
        local=local.ip,
        remote=remote.ip,
        netns=f"netns {name}" if name else f"netns:{inode}" if inode else "this host",
    )
