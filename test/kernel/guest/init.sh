#!/bin/sh
# Process 1 of the guest: prepares the machine and then executes the commands of the host,
# which it reaches at TCP port $commands (from the kernel's command line). If this script
# fails, the kernel panics and QEMU ends. Where there is a Debian in the initramfs, its root becomes that
# of the machine, which sees the initramfs at /image. With $systemd (also from the command line) its systemd
# takes over, with commands.service.
set -eu

export PATH=/bin:/usr/bin HOME=/

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1

# The tests tell processes of the agent apart by their ids: none may be used twice.
echo 4194304 >/proc/sys/kernel/pid_max

for module in /modules/*; do
  insmod "$module"
done
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2

# Ends the machine with the connection.
# shellcheck disable=SC2016 # for the shell that executes it
execute='
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount -t tmpfs tmpfs /run
  nc 10.0.2.2 "$commands" -e "$image/commands.sh"
  poweroff -f'
if [ -d /debian ]; then
  mount -o bind /debian /debian
  mount -o bind / /debian/image
  for mount in dev proc sys; do
    mount -o move "/$mount" "/debian/$mount"
  done
  # A mount of its own, unlike the initramfs, can be the root that a runtime leaves for that of a container.
  cd /debian
  mount -o move . /
  export PATH=/image/bin:/usr/bin:/usr/sbin
  [ -n "${systemd-}" ] || exec /busybox chroot . env image=/image sh -euc "$execute"
  exec /busybox chroot . /usr/lib/systemd/systemd --unit=commands.service
fi
exec env image= sh -euc "$execute"
