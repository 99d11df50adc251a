#!/bin/sh
# Prepares a machine for the lab tests. Vagrant's guests and QEMU's (tests/kernels) both use it.
#
#   provision.sh names          the distribution packages that the tests need
#   provision.sh packages       install them, with apt or dnf
#   provision.sh install ARG…   pip install ARG… into the system's Python
#   provision.sh modules        load what no test loads by itself: two kprobes hook into it
set -eu

COMMON="python3 python3-pip nftables tcpdump kmod"
APT="$COMMON python3-bpfcc iproute2 iptables"
DNF="$COMMON python3-bcc iproute iptables-nft"

usage() {
	sed -n '4,7s/^# *//p' "$0" >&2
	exit 2
}

names() {
	if command -v apt-get >/dev/null; then
		echo "$APT"
	elif command -v dnf >/dev/null; then
		echo "$DNF"
	else
		echo "$0: neither apt-get nor dnf is here: install by hand what corresponds to: $APT" >&2
		exit 1
	fi
}

packages() {
	wanted=$(names)
	# shellcheck disable=SC2086 # a list of words
	if command -v apt-get >/dev/null; then
		apt-get update -q
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $wanted
	else
		dnf install -qy $wanted
	fi
}

install_python() {
	# These machines are for this and nothing else: no environment of its own (PEP 668).
	stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
	[ ! -e "$stdlib/EXTERNALLY-MANAGED" ] || set -- --break-system-packages "$@"
	# Not those of the distribution, where older ones are there already.
	PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-compile --no-warn-script-location --ignore-installed "$@"
}

case "${1-}" in
names) names ;;
packages) packages ;;
install)
	shift
	install_python "$@"
	;;
modules)
	for module in nf_reject_ipv4 nf_reject_ipv6 tun; do
		modprobe "$module" || echo "$0: no module $module" >&2
	done
	;;
*) usage ;;
esac
