/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every kernel structure member that rsttrace reads, and what it is called here. The loader turns
 * each line into OFF_<name> and SIZE_<name>: from the running kernel's BTF, or with offsetof() from
 * installed headers. A line marked OPTIONAL may be missing in some kernel: OFF_<name> is then -1
 * and the value stays unknown.
 *
 * FIELD(name, structure, member)
 */
FIELD(skb_head, sk_buff, head)
FIELD(skb_data, sk_buff, data)
FIELD(skb_end, sk_buff, end)
FIELD(skb_len, sk_buff, len)
FIELD(skb_data_len, sk_buff, data_len)
FIELD(skb_tail, sk_buff, tail)
FIELD(skb_mac_header, sk_buff, mac_header)
FIELD(skb_network_header, sk_buff, network_header)
FIELD(skb_csum_start, sk_buff, csum_start)
FIELD(skb_csum_offset, sk_buff, csum_offset)
FIELD(skb_protocol, sk_buff, protocol)
FIELD(skb_dev, sk_buff, dev)
FIELD(skb_sk, sk_buff, sk)
FIELD(skb_tstamp, sk_buff, tstamp)
FIELD(skb_iif, sk_buff, skb_iif)
FIELD(skb_dst, sk_buff, _skb_refdst)
FIELD(shinfo_gso_segs, skb_shared_info, gso_segs)
FIELD(shinfo_dataref, skb_shared_info, dataref)
FIELD(dev_ifindex, net_device, ifindex)
FIELD(dev_net, net_device, nd_net.net)
FIELD(dev_flags, net_device, flags)
FIELD(dev_type, net_device, type)
FIELD(dev_addr, net_device, dev_addr)
FIELD(net_inum, net, ns.inum)
FIELD(net_cookie, net, net_cookie) OPTIONAL
FIELD(sk_state, sock, __sk_common.skc_state)
FIELD(sk_family, sock, __sk_common.skc_family)
FIELD(sk_num, sock, __sk_common.skc_num)
FIELD(sk_dport, sock, __sk_common.skc_dport)
FIELD(sk_daddr, sock, __sk_common.skc_daddr)
FIELD(sk_rcv_saddr, sock, __sk_common.skc_rcv_saddr)
FIELD(sk_v6_daddr, sock, __sk_common.skc_v6_daddr) OPTIONAL /* CONFIG_IPV6 */
FIELD(sk_v6_rcv_saddr, sock, __sk_common.skc_v6_rcv_saddr) OPTIONAL
FIELD(sk_net, sock, __sk_common.skc_net.net)
FIELD(sk_cookie, sock, __sk_common.skc_cookie)
FIELD(sk_hash_pprev, sock, __sk_common.skc_node.pprev)
FIELD(sk_type, sock, sk_type) OPTIONAL /* a bit-field before 5.6 */
FIELD(sk_protocol, sock, sk_protocol) OPTIONAL
FIELD(sk_uid, sock, sk_uid)
FIELD(sk_socket, sock, sk_socket)
FIELD(sk_shutdown, sock, sk_shutdown)
FIELD(sk_owned, sock, sk_lock.owned)
FIELD(sk_cgroup, sock, sk_cgrp_data.cgroup) OPTIONAL /* 5.15: before, a union with other use */
FIELD(inet_sport, inet_sock, inet_sport)
FIELD(tp_srtt_us, tcp_sock, srtt_us)
FIELD(tp_rtt_min, tcp_sock, rtt_min.s)
FIELD(tp_rcv_nxt, tcp_sock, rcv_nxt)
FIELD(tp_snd_nxt, tcp_sock, snd_nxt)
FIELD(tp_copied_seq, tcp_sock, copied_seq)
FIELD(tp_rcv_tstamp, tcp_sock, rcv_tstamp) OPTIONAL
FIELD(tp_keepalive_time, tcp_sock, keepalive_time) OPTIONAL
FIELD(tp_keepalive_intvl, tcp_sock, keepalive_intvl) OPTIONAL
FIELD(tp_keepalive_probes, tcp_sock, keepalive_probes) OPTIONAL
FIELD(icsk_lrcvtime, inet_connection_sock, icsk_ack.lrcvtime) OPTIONAL
FIELD(icsk_user_timeout, inet_connection_sock, icsk_user_timeout) OPTIONAL
FIELD(icsk_probes_out, inet_connection_sock, icsk_probes_out) OPTIONAL
FIELD(icsk_retransmits, inet_connection_sock, icsk_retransmits) OPTIONAL
FIELD(sk_ack_backlog, sock, sk_ack_backlog) OPTIONAL
FIELD(sk_max_ack_backlog, sock, sk_max_ack_backlog) OPTIONAL
FIELD(tw_substate, inet_timewait_sock, tw_substate) OPTIONAL
FIELD(tw_rcv_nxt, sock, __sk_common.skc_tw_rcv_nxt) OPTIONAL
/* int, or u8 where it is one of few values: GET_LOW() */
FIELD(net_rfc1337, net, ipv4.sysctl_tcp_rfc1337) OPTIONAL
FIELD(net_abort_on_overflow, net, ipv4.sysctl_tcp_abort_on_overflow) OPTIONAL
FIELD(net_keepalive_time, net, ipv4.sysctl_tcp_keepalive_time) OPTIONAL
FIELD(net_keepalive_intvl, net, ipv4.sysctl_tcp_keepalive_intvl) OPTIONAL
FIELD(net_keepalive_probes, net, ipv4.sysctl_tcp_keepalive_probes) OPTIONAL
FIELD(task_flags, task_struct, flags)
FIELD(task_leader, task_struct, group_leader)
FIELD(task_comm, task_struct, comm)
FIELD(task_exit_code, task_struct, exit_code)
FIELD(socket_file, socket, file)
FIELD(socket_inode, socket_alloc, vfs_inode)
FIELD(inode_ino, inode, i_ino)
FIELD(cgroup_kn, cgroup, kn)
FIELD(kn_id, kernfs_node, id)
FIELD(rt_flags, rtable, rt_flags)
FIELD(rt6_flags, rt6_info, rt6i_flags) OPTIONAL
/* arguments of a probed function; the members differ by architecture (see facts.py) */
FIELD(regs_arg1, pt_regs, ARG1)
FIELD(regs_arg2, pt_regs, ARG2)
FIELD(regs_arg3, pt_regs, ARG3)
FIELD(regs_arg4, pt_regs, ARG4)
