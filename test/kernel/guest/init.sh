#!/bin/sh
# Process 1 of the guest: prepares the machine and then executes the commands of the host,
# which it reaches at TCP port $commands (from the kernel's command line). If this script
# fails, the kernel panics and QEMU ends.
set -eu

export PATH=/bin:/usr/bin HOME=/

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run

# The witness tells processes apart by their ids: none may be used twice.
echo 4194304 >/proc/sys/kernel/pid_max

for module in /modules/*; do
  insmod "$module"
done
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2

nc 10.0.2.2 "${commands:?}" -e /commands.sh
poweroff -f
