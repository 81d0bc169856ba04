#!/bin/sh
# Has the systemd of this node leave a container running when the kernel has killed a process in it.
#
# systemd 253 to 258 ends the whole scope of a container after any kill in it, if the scope has OOMPolicy=kill, which
# runc sets from its release after 1.5 on. A drop-in for all scopes of a runtime overrides that with OOMPolicy=continue,
# which the scopes had before. This script writes the drop-in, has systemd read it, and then sleeps for good.
#
# It needs the process namespace of the node (hostPID), uid 0 without any capability, and the node's
# /run/systemd/system, writable. That directory is in memory: a node that starts again has no drop-in until this script
# runs there again.
#
# For busybox ash.
set -eu

: "${SYSTEMD_SYSTEM:=/host/systemd/system}" # the node's /run/systemd/system
: "${PROC:=/proc}"                          # where the node's processes are
: "${INIT_PID:=1}"                          # the process that is told to reload

# The scope of a container is called cri-containerd-<id>.scope or crio-<id>.scope. systemd takes a drop-in for all units
# whose name begins so from a directory with that beginning. The one of CRI-O also holds for crio-conmon-<id>.scope.
PREFIXES='cri-containerd- crio-'
NAME=50-cdk8s-oom-kill-mode.conf
CONTENT='[Scope]
OOMPolicy=continue'

# This file is there from before the first write until systemd was told to reload. A script that is killed in between
# leaves it behind, so the next one reloads although no file differs. systemd ignores a name that is no unit's.
UNREAD=$SYSTEMD_SYSTEM/.cdk8s-oom-kill-mode.unread

# Prints one JSON object a line. The values are our own words and need no escapes.
log() { # level, message
  printf '{"ts":%s,"level":"%s","msg":"%s"}\n' "$(date +%s)" "$1" "$2"
}

is_systemd() {
  local name=''
  read -r name 2>/dev/null <"$PROC/1/comm" && [ "$name" = systemd ]
}

# A drop-in that systemd has not read does nothing, and the agent would believe that it does. So there is none when this
# script fails. The container is started again, and tries again.
give_up() { # message
  local prefix
  for prefix in $PREFIXES; do
    rm -f "$SYSTEMD_SYSTEM/$prefix.scope.d/$NAME" || :
  done
  rm -f "$UNREAD" || :
  log error "$1"
  exit 1
}

# A rename puts the file in its place, so that nobody reads half of it. systemd reads only names that end in .conf, so
# it ignores the temporary file.
write_drop_in() { # directory
  : >"$UNREAD" &&
    mkdir -p "$1" &&
    printf '%s\n' "$CONTENT" >"$1/$NAME.new" &&
    mv "$1/$NAME.new" "$1/$NAME"
}

# Writes each drop-in that is missing or differs.
write_drop_ins() {
  local prefix directory
  for prefix in $PREFIXES; do
    directory=$SYSTEMD_SYSTEM/$prefix.scope.d
    if printf '%s\n' "$CONTENT" | cmp -s - "$directory/$NAME"; then continue; fi
    write_drop_in "$directory" ||
      give_up "cannot write $prefix.scope.d; with SELinux in enforcing mode the container needs the type spc_t"
    log info "wrote $prefix.scope.d/$NAME"
  done
}

# systemd reads all unit files anew when it gets this signal. The new values hold for scopes that run already, too.
reload_systemd() {
  kill -HUP "$INIT_PID" ||
    give_up 'cannot tell systemd to reload; the container must be unconfined by AppArmor, and with SELinux in enforcing mode it needs the type spc_t'
  rm -f "$UNREAD"
  log info 'told systemd to reload'
}

main() {
  # Files are readable by everybody and writable by root, as unit files are.
  umask 022
  if ! is_systemd; then
    log info 'process 1 of this node is not systemd: there is nothing to do'
    return
  fi
  write_drop_ins
  if [ -e "$UNREAD" ]; then reload_systemd; fi
  log info 'OOMPolicy=continue is in place for the containers of this node'
}

main
# The pod of a DaemonSet must not end. A sleep is the smallest process that does not, and it ends at SIGTERM at once,
# because with hostPID it is not process 1.
exec sleep infinity
