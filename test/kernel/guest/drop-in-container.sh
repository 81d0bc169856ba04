#!/bin/sh
# The first process of the drop-in's container, in a mount namespace of its own: leaves it what its DaemonSet gives it,
# the node's /run/systemd/system, a read-only root and no capabilities.
set -eu

root=/agent-root
mount -o bind / "$root"
mount -t proc proc "$root/proc"
mount -o bind /dev "$root/dev"
mount -o bind /run/systemd/system "$root/host/systemd/system"
mount -o remount,bind,ro "$root"

exec chroot "$root" confine sh /drop-in/drop-in.sh
