#!/bin/sh
# Keeps systemd from ending a container after the kernel has killed one process in it.
#
# systemd 253 to 258 ends a scope with OOMPolicy=kill after any kill in it. A runc after 1.5 sets OOMPolicy=kill. This
# script writes a drop-in for the scopes of all containers, with OOMPolicy=continue, which they had before. Then it makes
# systemd reload, and sleeps.
#
# It needs the process namespace of the node (hostPID), uid 0 without any capability, and the node's
# /run/systemd/system, writable. That directory is in memory, so a node that starts again has lost the drop-in. This
# script also starts again there, and writes it again.
#
# For busybox ash.
set -eu

: "${SYSTEMD_SYSTEM:=/host/systemd/system}" # the node's /run/systemd/system
: "${INIT:=/proc/1}"                        # the first process of the node

# The scope of a container is called cri-containerd-<id>.scope or crio-<id>.scope. For all units whose name begins with
# "crio-", systemd reads drop-ins from the directory crio-.scope.d: also for crio-conmon-<id>.scope.
PREFIXES='cri-containerd- crio-'
NAME=50-cdk8s-oom-kill-mode.conf
CONTENT='[Scope]
OOMPolicy=continue'

# This file exists from before the first write until systemd was told to reload. If the script fails or is killed in
# between, the next one finds it, and has systemd reload although no drop-in differs. systemd itself ignores the file,
# because a unit cannot have such a name.
UNREAD=$SYSTEMD_SYSTEM/.cdk8s-oom-kill-mode.unread

# Prints one JSON object a line. The messages need no escapes.
log() { # level, message
  printf '{"ts":%s,"level":"%s","msg":"%s"}\n' "$(date +%s)" "$1" "$2"
}

# The kubelet starts the container again, and the script tries again.
fail() { # message
  log error "$1"
  exit 1
}

# Writes the drop-in if it is missing or differs.
write_drop_in() { # prefix
  local directory=$SYSTEMD_SYSTEM/$1.scope.d
  if [ "$(cat "$directory/$NAME" 2>/dev/null)" = "$CONTENT" ]; then return; fi
  { touch "$UNREAD" && mkdir -p "$directory" && printf '%s\n' "$CONTENT" >"$directory/$NAME"; } ||
    fail "cannot write $1.scope.d/$NAME; with SELinux in enforcing mode the container needs the type spc_t"
  log info "wrote $1.scope.d/$NAME"
}

# systemd reads all unit files again when it gets this signal. The new value is also that of scopes which run already.
reload_systemd() {
  kill -HUP "${INIT##*/}" ||
    fail 'cannot tell systemd to reload; AppArmor must not confine the container, and with SELinux in enforcing mode it needs the type spc_t'
  rm "$UNREAD"
  log info 'told systemd to reload'
}

umask 022 # Nobody but root may write a unit file.
if [ "$(cat "$INIT/comm" 2>/dev/null)" = systemd ]; then
  for prefix in $PREFIXES; do write_drop_in "$prefix"; done
  if [ -e "$UNREAD" ]; then reload_systemd; fi
  log info 'OOMPolicy=continue is in place for the containers of this node'
else
  log info 'process 1 of this node is not systemd: there is nothing to do'
fi

# The pod of a DaemonSet must not end, and this is the smallest process that does not. SIGTERM ends it at once, because
# with hostPID it is not process 1.
exec sleep infinity
