#!/bin/sh
# PID 1 of the guest: unpack the job from the second disk, run it, leave its results on the third.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
if grep -q rsttrace.cgroup=v1 /proc/cmdline; then # a variant of variants.py
	mount -t tmpfs tmpfs /sys/fs/cgroup
	for hierarchy in pids none,name=systemd; do
		mkdir "/sys/fs/cgroup/${hierarchy#*=}"
		mount -t cgroup -o "$hierarchy" cgroup "/sys/fs/cgroup/${hierarchy#*=}"
	done
else
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mkdir -p /dev/pts /dev/shm /job/results
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
	ln -s "/proc/self/fd/${number%:*}" "/dev/${number#*:}"
done
ip link set lo up
tar -xf /dev/vdb -C /job
cd /job && python3 -u -m tests.kernels.guest 2>&1
echo "T job ended with $? $(cut -d' ' -f1 /proc/uptime)"
tar -C /job/results -cf /dev/vdc .
sync
echo o > /proc/sysrq-trigger
while :; do :; done # no program: its disk may be gone by now, and PID 1 must not end
