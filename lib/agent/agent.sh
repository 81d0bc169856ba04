#!/bin/sh
# Makes memory.oom.group of the containers of opted-in pods on this node say what the pods' labels say, and
# touches nothing else.
#
# One process, this shell, holds all state and does all writing. It reads one queue, a FIFO, into which inotifyd tells
# what changes in the cgroup file system, and curl with api.awk which pods of this node are opted in. What is wanted is
# a list of containers. One inotifyd watches them all. It takes its watches as arguments only, so another one takes its
# place when there is more to watch; until that is up, the loop looks at what is new itself, every LOOK_SECONDS, so that
# no process has to start before a container does. Everything is looked at again every RESYNC_SECONDS, and every second
# where there is no inotify. Every TICK_SECONDS a child counts killed processes and sends Events.
#
# Files: agent.sh (the loop), cgroups.sh (where cgroups are, and what their files say), containers.sh (what is wanted,
# and how it gets there), watch.sh (inotifyd), api.sh and api.awk (the API server), report.sh (killed processes, what
# cannot work, Events), metrics.sh. Variables in capitals outlive a function; the "current pod" is POD (its UID),
# NAMESPACE, NAME, MODE and OVERRIDES.
#
# For busybox ash. Two files are for the probes: RUN_DIR/ready is there once the agent is connected and watches;
# RUN_DIR/alive is made anew at every tick, and the liveness probe removes it. Environment: NODE_NAME and POD_UID of our
# own pod (downward API), KUBERNETES_SERVICE_HOST and _PORT (kubelet), and what follows.
set -eu

: "${LABEL_PREFIX:=cdk8s-oom-kill-mode}" # of the pods' label and annotation
: "${LOG_LEVEL:=info}"                   # error, warn, info or debug
: "${EVENTS:=no}" "${METRICS:=no}"       # yes or no
: "${SCRIPT_SHA256:=}"                   # for the metrics: which script this is
: "${RESYNC_SECONDS:=60}" "${TICK_SECONDS:=10}" "${LOOK_SECONDS:=0.01}"
: "${CGROUP_ROOT:=/host/cgroup}"        # the node's /sys/fs/cgroup
: "${CONTAINER_LOGS:=/host/containers}" # the node's /var/log/containers
: "${SYSTEMD_TRANSIENT:=}"              # the node's /run/systemd/transient, to look for OOMPolicy= there
: "${SERVICE_ACCOUNT:=/var/run/secrets/kubernetes.io/serviceaccount}"
: "${RUN_DIR:=/run/oom-kill-mode}" # a writable directory

NL='
'
# Lists are lines, and split where they are not quoted.
IFS=$NL TAB='	'
HERE=$(cd "$(dirname "$0")" && pwd)
# Seconds since the boot; when the next tick is due; set once we are ready; children that were stopped.
UPTIME=0 TICK=0 READY='' STOPPED='' ENDED=''

for part in cgroups containers watch api report metrics; do
  # shellcheck source=/dev/null # each is checked by itself
  . "$HERE/$part.sh"
done

# One JSON object a line. Values are our own words, or were checked by api.awk.
log() { # level message [key value]...
  case $LOG_LEVEL:$1 in error:[!e]* | warn:[id]* | info:debug) return 0 ;; esac
  text="{\"level\":\"$1\",\"msg\":\"$2\""
  shift 2
  while [ $# -gt 1 ]; do
    text="$text,\"$1\":\"$2\""
    shift 2
  done
  printf '%s}\n' "$text"
}

# LINE is the one that begins so in a list, which begins and ends with a line feed. A pattern after "#" or "%" takes
# far too long in a long string, as a loop does not.
look_up() { # beginning, list
  for LINE in $2; do
    case $LINE in "$1"*) return 0 ;; esac
  done
  return 1
}

# Takes that line out: REST.
take() { # beginning, list
  look_up "$1" "$2" || return 1
  REST=$NL
  for line in $2; do
    case $line in "$1"*) ;; *) REST=$REST$line$NL ;; esac
  done
}

# A child that ended is there until it is waited for, but without memory.
runs() { # process
  IFS=' ' read -r pages _ 2>&6 <"/proc/$1/statm" && [ "$pages" != 0 ]
}

# The end of an inotifyd may take the kernel a while: it is waited for a tick later.
stop() { # process or nothing
  if [ -z "$1" ]; then return 0; fi
  kill -9 "$1" 2>&6 || :
  STOPPED=$STOPPED$1$NL
}

# The next event: a letter, and fields separated by tabs. Fails when the time is over. Only the letter is waited for: a
# line is written at once, but a reader that is throttled in the middle of one would lose the rest of it.
next_event() { # seconds
  # shellcheck disable=SC3045 # busybox ash
  read -r -t "$1" -n 1 KIND && IFS=$TAB read -r FIRST SECOND
}

handle_event() {
  case $KIND in
    # inotifyd: changed, new, overflowed, and what it complains of. There is "x" as well, when a watch ends.
    c) if [ "$FIRST" = "$PING" ]; then watcher_is_up; else file_written "$FIRST" event; fi ;;
    n) created "$FIRST" "$SECOND" ;;
    o) scan_soon ;;
    i) complain "${FIRST##*: }" ;;
    # api.awk
    C) api_connected ;;
    O) PENDING=$PENDING$SECOND, ;;
    P) pod_told "$FIRST" "$SECOND" ;;
    G) opt_out "$FIRST" ;;
    B) bookmark_told ;;
    E) watch_ended "$FIRST" "$SECOND" ;;
    # The child that reports.
    K) kills_counted "$FIRST" "$SECOND" ;;
    S) event_sent "$FIRST" "$SECOND" ;;
  esac
}

tick() {
  TICK=$((UPTIME + TICK_SECONDS))
  echo 2>&6 >"$RUN_DIR/alive" || :
  if [ -z "$ROOT" ]; then find_node; fi
  for child in $ENDED; do wait "$child" 2>&6 || :; done
  ENDED=$STOPPED STOPPED=''
  check_api
  check_watcher
  report
}

become_ready() {
  if [ -n "$READY" ]; then return 0; fi
  READY=yes
  echo 2>&6 >"$RUN_DIR/ready" || :
  log info 'ready' node "$NODE_NAME"
}

# With cgroup v1 there is nothing to do. Where our own container is not where it should be, no other is either.
find_node() {
  if ! [ -e "$CGROUP_ROOT/cgroup.controllers" ]; then
    node_condition yes cgroup_v1
    become_ready
  elif find_kubepods; then
    node_condition '' cgroup_not_found
    cd "$ROOT"
    start_api
    start_watcher
  else
    node_condition yes cgroup_not_found
  fi
}

# How long to wait for an event: as long as there is nothing else to do.
choose_pause() {
  if [ -n "$TO_SCAN" ]; then
    PAUSE=0.001
  elif [ -n "$UNWATCHED$NEXT_WATCHER" ] || { [ -n "$ROOT" ] && ! is_watching && has_inotify; }; then
    PAUSE=$LOOK_SECONDS
  elif [ -n "$ROOT" ] && { [ -z "$CURL" ] || ! has_inotify; }; then
    PAUSE=1
  else
    PAUSE=$((TICK > UPTIME ? TICK - UPTIME : 1))
  fi
}

look() { # between events
  scan_next
  if [ -z "$ROOT" ]; then return 0; fi
  look_at "$UNWATCHED$STARTING"
  renew_watcher
  renew_api
  if [ "$CONNECTS" -gt 0 ] && { is_watching || ! has_inotify; }; then become_ready; fi
}

# The queue becomes fd 0, and 3 for children; 6 is for complaints that nobody needs. The sidecar mounts metrics/, which
# must stay the same directory.
prepare() {
  mkdir -p "$RUN_DIR/metrics"
  exec 6>/dev/null
  rm -f "$RUN_DIR/queue" "$RUN_DIR/answers" "$RUN_DIR/ready"
  mkfifo "$RUN_DIR/queue" "$RUN_DIR/answers"
  echo | tee "$RUN_DIR/ping.0" >"$RUN_DIR/ping.1"
  exec 3<>"$RUN_DIR/queue" <&3
}

run() {
  # The children of a container end with its first process.
  trap 'exit 0' TERM INT
  prepare
  PAUSE=0.01 turn=0
  while :; do
    if next_event "$PAUSE"; then
      handle_event
      # There may be more, but neither events without a pause nor those that come one by one are to keep us from a look.
      PAUSE=0.001
      turn=$((turn + 1))
      if [ "$turn" -lt 8 ]; then continue; fi
    fi
    turn=0
    # The time that no change of the clock touches.
    IFS=. read -r UPTIME _ </proc/uptime
    look
    if [ "$UPTIME" -ge "$TICK" ]; then tick; fi
    choose_pause
  done
}

run
