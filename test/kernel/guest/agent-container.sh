#!/bin/sh
# Process 1 of the agent's container, in pid and mount namespaces of its own: leaves it the
# mounts that the DaemonSet gives it, a read-only root and no capabilities. TREE may name a
# part of the cgroup file system to be all that it sees.
set -eu

root=/agent-root
mount -o bind / "$root"
mount -t proc proc "$root/proc"
mount -o bind /dev "$root/dev"
mount -o bind "${TREE:-/sys/fs/cgroup}" "$root/host/cgroup"
mount -o bind /var/log/containers "$root/host/containers"
mount -o remount,bind,ro "$root/host/containers"
if [ -d /run/systemd/transient ]; then
  mount -o bind /run/systemd/transient "$root/host/systemd"
  mount -o remount,bind,ro "$root/host/systemd"
fi
mount -t tmpfs tmpfs "$root/run/oom-kill-mode"
mount -o remount,bind,ro "$root"

exec chroot "$root" confine sh /agent/agent.sh
