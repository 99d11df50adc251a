"""Why the kernel dropped a RST: each reason that it can have (skb_drop_reason) in plain words.

By the kernel's own names; the numbers are the running kernel's. Source:
``include/net/dropreason-core.h`` of 5.17 to 7.2 and the callers. `tests/lab/test_knowledge.py`
holds both lists against the running kernel.
"""

from __future__ import annotations

UNKNOWN = "a reason that this version of rsttrace does not know: {}"

OUT_OF_WINDOW = ("out-of-window", "ignored: its sequence number is out of window")
PAWS = ("paws", "ignored: its timestamp is too old (PAWS)")
INVALID_ACK = ("invalid-ack", "ignored: it acknowledges data that was never sent")
OLD_ACK = ("old-ack", "ignored: its acknowledgement is too old")
MEMORY = ("no-memory", "dropped: no memory for it")
FILTER = ("firewall-drop", "dropped by this host's firewall before any socket")
NO_ROUTE = ("no-route", "dropped: no route for it")
ADDRESS = ("bad-address", "dropped: an address that no packet may have here")
MALFORMED = ("malformed", "dropped: its headers are malformed or cut short")
FRAGMENTS = ("fragments", "dropped: its fragments could not be put together")
NEIGHBOR = ("no-neighbor", "dropped: the next hop's link-layer address was not found")
QUEUE = ("queue-drop", "dropped: a queue on its way out was full, or its discipline chose it")
CONTROL = ("traffic-control", "dropped by traffic control before any socket")
DEVICE = ("device", "dropped: the device could not take it")
TUNNEL = ("tunnel", "dropped by a tunnel")
BRIDGE = ("bridge", "dropped by a bridge")

DROPS = {
    # ---- TCP: net/ipv4/tcp_input.c, tcp_ipv4.c, tcp_minisocks.c ----
    "TCP_CSUM": ("bad-checksum", "ignored: its TCP checksum is wrong"),
    "TCP_INVALID_SEQUENCE": OUT_OF_WINDOW,
    "TCP_INVALID_END_SEQUENCE": OUT_OF_WINDOW,
    "TCP_OVERWINDOW": OUT_OF_WINDOW,
    "TCP_OLD_SEQUENCE": OUT_OF_WINDOW,
    "TCP_OLD_DATA": OUT_OF_WINDOW,
    "TCP_OFOMERGE": OUT_OF_WINDOW,
    "TCP_ZEROWINDOW": ("zero-window", "ignored: the socket's receive window was closed"),
    "TCP_CLOSE": ("closed", "ignored: the connection was over already (CLOSE)"),
    "TCP_RFC7323_PAWS": PAWS,
    "TCP_RFC7323_PAWS_ACK": PAWS,
    "TCP_RFC7323_TW_PAWS": PAWS,
    "TCP_RFC7323_TSECR": ("bad-echo", "ignored: it echoes a timestamp that was never sent"),
    "TCP_INVALID_ACK_SEQUENCE": INVALID_ACK,
    "TCP_ACK_UNSENT_DATA": INVALID_ACK,
    "TCP_OLD_ACK": OLD_ACK,
    "TCP_TOO_OLD_ACK": OLD_ACK,
    "TCP_FLAGS": ("unexpected-segment", "ignored: flags that this state does not allow"),
    "TCP_INVALID_SYN": ("invalid-syn", "ignored: a SYN inside an existing connection"),
    "TCP_RESET": ("reset-flag", "ignored: a RST that this state does not take"),
    "TCP_ABORT_ON_DATA": ("data-after-close", "ignored: data, and the program had closed"),
    "TCP_LISTEN_OVERFLOW": ("listen-overflow", "ignored: the listener's accept queue is full"),
    "TCP_FASTOPEN": ("fast-open", "ignored: TCP Fast Open does not take it"),
    "TCP_OFO_QUEUE_PRUNE": MEMORY,
    "TCP_OFO_DROP": MEMORY,
    "TCP_MINTTL": ("min-ttl", "ignored: its TTL is below what the socket wants (IP_MINTTL)"),
    "TCP_AUTH_HDR": ("bad-signature-option", "ignored: it has both or malformed signatures"),
    "TCP_MD5NOTFOUND": ("md5-missing", "ignored: no TCP MD5 signature, and the socket wants one"),
    "TCP_MD5UNEXPECTED": ("md5-unexpected", "ignored: a TCP MD5 signature; the socket has no key"),
    "TCP_MD5FAILURE": ("md5-wrong", "ignored: its TCP MD5 signature is wrong"),
    "TCP_AONOTFOUND": ("ao-missing", "ignored: no TCP-AO signature, and the socket wants one"),
    "TCP_AOUNEXPECTED": ("ao-unexpected", "ignored: a TCP-AO signature; the socket has no key"),
    "TCP_AOKEYNOTFOUND": ("ao-key-missing", "ignored: the socket has no such TCP-AO key"),
    "TCP_AOFAILURE": ("ao-wrong", "ignored: its TCP-AO signature is wrong"),
    "PSP_INPUT": ("psp", "ignored: its encryption (PSP) is not the connection's"),
    "PSP_OUTPUT": ("psp", "ignored: its encryption (PSP) is not the connection's"),
    # ---- the socket ----
    "SOCKET_FILTER": ("socket-filter", "dropped by the socket's own filter"),
    "SOCKET_BACKLOG": ("backlog", "dropped: the socket's backlog was full"),
    "SOCKET_RCVBUFF": ("receive-buffer", "dropped: the socket's receive buffer was full"),
    "SOCKET_CLOSE": ("socket-closed", "dropped: the socket was being closed"),
    "PROTO_MEM": MEMORY,
    "PFMEMALLOC": MEMORY,
    "NOMEM": MEMORY,
    "SECURITY_HOOK": ("security-module", "dropped by a security module (SELinux, AppArmor …)"),
    "XFRM_POLICY": ("ipsec-policy", "dropped by an IPsec policy"),
    "BPF_CGROUP_EGRESS": ("cgroup-program", "dropped by a BPF program of its cgroup"),
    "QUEUE_PURGE": ("queue-purged", "dropped with a queue that was given up"),
    "PACKET_SOCK_ERROR": DEVICE,
    # ---- IP ----
    "NETFILTER_DROP": FILTER,
    "OTHERHOST": ("other-host", "ignored: it was for another host's MAC"),
    "IP_CSUM": ("bad-ip-checksum", "ignored: its IP header checksum is wrong"),
    "IP_INHDR": ("bad-ip-header", "dropped: its IP header is wrong, or its TTL ran out here"),
    "IP_RPFILTER": ("rp-filter", "dropped: its source address fails the reverse path check"),
    "UNICAST_IN_L2_MULTICAST": ("multicast-frame", "dropped: one host's address, in a broadcast"),
    "IP_NOPROTO": ("no-protocol", "dropped: nothing here takes its protocol"),
    "UNHANDLED_PROTO": ("no-protocol", "dropped: nothing here takes its protocol"),
    "PTYPE_ABSENT": ("no-protocol", "dropped: nothing here takes its protocol"),
    "INVALID_PROTO": ("no-protocol", "dropped: nothing here takes its protocol"),
    "IPV6DISABLED": ("ipv6-off", "dropped: IPv6 is switched off here (disable_ipv6)"),
    "IP_OUTNOROUTES": NO_ROUTE,
    "IP_INNOROUTES": NO_ROUTE,
    "IP_INADDRERRORS": ADDRESS,
    "IP_LOCAL_SOURCE": ADDRESS,
    "IP_INVALID_SOURCE": ADDRESS,
    "IP_LOCALNET": ADDRESS,
    "IP_INVALID_DEST": ADDRESS,
    "PKT_TOO_BIG": ("too-big", "dropped: larger than the next link takes"),
    "PKT_TOO_SMALL": MALFORMED,
    "HDR_TRUNC": MALFORMED,
    "IPV6_BAD_EXTHDR": MALFORMED,
    "IPV6_TOO_MANY_EXTHDRS": MALFORMED,
    "DUP_FRAG": FRAGMENTS,
    "FRAG_REASM_TIMEOUT": FRAGMENTS,
    "FRAG_TOO_FAR": FRAGMENTS,
    "NEIGH_CREATEFAIL": NEIGHBOR,
    "NEIGH_FAILED": NEIGHBOR,
    "NEIGH_QUEUEFULL": NEIGHBOR,
    "NEIGH_DEAD": NEIGHBOR,
    "NEIGH_HH_FILLFAIL": NEIGHBOR,
    # ---- devices and queues ----
    "XDP": ("xdp", "dropped by XDP before any socket"),
    "TC_INGRESS": CONTROL,
    "TC_EGRESS": ("traffic-control-out", "dropped by traffic control on its way out"),
    "TC_ERROR": CONTROL,
    "TC_COOKIE_ERROR": CONTROL,
    "TC_CHAIN_NOTFOUND": CONTROL,
    "TC_RECLASSIFY_LOOP": CONTROL,
    "QDISC_DROP": QUEUE,
    "QDISC_OVERLIMIT": QUEUE,
    "QDISC_CONGESTED": QUEUE,
    "QDISC_BURST_DROP": QUEUE,
    "CAKE_FLOOD": QUEUE,
    "FQ_BAND_LIMIT": QUEUE,
    "FQ_HORIZON_LIMIT": QUEUE,
    "FQ_FLOW_LIMIT": QUEUE,
    "DUALPI2_STEP_DROP": QUEUE,
    "CPU_BACKLOG": ("cpu-backlog", "dropped: the CPU's queue was full (netdev_max_backlog)"),
    "SKB_CSUM": DEVICE,
    "SKB_BAD_GSO": DEVICE,
    "SKB_GSO_SEG": DEVICE,
    "IPVLAN_MULTICAST_BACKLOG": DEVICE,
    "MACVLAN_BROADCAST_BACKLOG": DEVICE,
    "SKB_UCOPY_FAULT": DEVICE,
    "DEV_HDR": DEVICE,
    "DEV_READY": DEVICE,
    "FULL_RING": DEVICE,
    "TAP_FILTER": DEVICE,
    "TAP_TXFILTER": DEVICE,
    "NO_TX_TARGET": DEVICE,
    "RECURSION_LIMIT": DEVICE,
    "VXLAN_INVALID_HDR": TUNNEL,
    "VXLAN_VNI_NOT_FOUND": TUNNEL,
    "VXLAN_ENTRY_EXISTS": TUNNEL,
    "IP_TUNNEL_ECN": TUNNEL,
    "TUNNEL_TXINFO": TUNNEL,
    "MAC_INVALID_SOURCE": BRIDGE,
    "LOCAL_MAC": BRIDGE,
    "BRIDGE_INGRESS_STP_STATE": BRIDGE,
}
"""Cause and sentence of each reason that a RST, or what it passes through, can be dropped for.

NO_SOCKET and NOT_SPECIFIED are told apart by what else is known (`causes.received`).
"""

OTHERS = frozenset(
    {
        "SKB_NOT_DROPPED_YET",
        "SKB_CONSUMED",
        "NOT_SPECIFIED",
        "NO_SOCKET",
        "MAX",
        "SUBSYS_MASK",
        "UDP_CSUM",
        "ICMP_CSUM",
        "UNIX_DISCONNECT",
        "UNIX_SKIP_OOB",
        "IPV6_NDISC_FRAG",
        "IPV6_NDISC_HOP_LIMIT",
        "IPV6_NDISC_BAD_CODE",
        "IPV6_NDISC_BAD_OPTIONS",
        "IPV6_NDISC_NS_OTHERHOST",
        "ARP_PVLAN_DISABLE",
        "MAC_IEEE_MAC_CONTROL",
        "CAN_RX_INVALID_FRAME",
        "CANFD_RX_INVALID_FRAME",
        "CANXL_RX_INVALID_FRAME",
    }
)
"""What needs no sentence here: no reasons, none for TCP, or told by what else is known."""


def cause(reason: str) -> tuple[str, str]:
    """Name and sentence for a reason; one that a newer kernel has got is named as it is."""
    return DROPS.get(reason, ("dropped", f"dropped: {UNKNOWN.format(reason)}"))
