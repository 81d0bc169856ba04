#!/bin/sh
# The agent: makes memory.oom.group of the containers of opted-in pods on this node say what the pods'
# labels say, and touches nothing else.
#
# One process, this shell, holds all state and does all writing. It reads one queue, a FIFO, into which inotifyd
# tells what changes in the cgroup file system, and curl with api.awk which pods of this node are opted in. What
# is wanted is a list of containers. One inotifyd watches them all. It takes its watches as arguments only, so
# another one takes its place when there is more to watch; until that is up, the loop looks at what is new itself,
# every LOOK_SECONDS, so that no process has to start before a container does. Everything is looked at again every
# RESYNC_SECONDS, and every second where there is no inotify. Every TICK_SECONDS a child counts killed processes
# and sends Events.
#
# Files: agent.sh (the loop), cgroups.sh (where cgroups are, and what their files say), containers.sh (what is
# wanted, and how it gets there), watch.sh (inotifyd), api.sh and api.awk (the API server), report.sh (killed
# processes, what cannot work, Events), metrics.sh. Variables in capitals outlive a function; the "current pod" is
# POD (its UID), NAMESPACE, NAME, MODE and OVERRIDES.
#
# For busybox ash. Two files are for the probes: RUN_DIR/ready is there once the agent is connected and watches;
# RUN_DIR/alive is made anew at every tick, and the liveness probe removes it. Environment: NODE_NAME and POD_UID
# of our own pod (downward API), KUBERNETES_SERVICE_HOST and _PORT (kubelet), and what follows.
set -eu

: "${LABEL_PREFIX:=cdk8s-oom-kill-mode}" # of the pods' label and annotation
: "${LOG_LEVEL:=info}"                   # error, warn, info or debug
: "${EVENTS:=no}"                        # yes or no
: "${METRICS:=no}"                       # yes or no
: "${SCRIPT_SHA256:=}"                   # for the metrics: which script this is
: "${RESYNC_SECONDS:=60}"
: "${TICK_SECONDS:=10}"
: "${LOOK_SECONDS:=0.01}"
: "${CGROUP_ROOT:=/host/cgroup}"        # the node's /sys/fs/cgroup
: "${CONTAINER_LOGS:=/host/containers}" # the node's /var/log/containers
: "${SYSTEMD_TRANSIENT:=}"              # the node's /run/systemd/transient, to look for OOMPolicy= there
: "${SERVICE_ACCOUNT:=/var/run/secrets/kubernetes.io/serviceaccount}"
: "${RUN_DIR:=/run/oom-kill-mode}" # a writable directory

NL='
'
TAB='	'
# Lists are lines, and split where they are not quoted.
IFS=$NL
HERE=$(cd "$(dirname "$0")" && pwd)
# Seconds since the boot; when the next tick and the next look at everything are due.
UPTIME=0 TICK=0 RESYNC=0
# Set once the agent is.
READY=

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

# The time that no change of the clock touches.
read_uptime() {
  IFS=' ' read -r UPTIME _ </proc/uptime
  UPTIME=${UPTIME%.*}
}

# Takes the line that begins so out of a list: LINE and REST. A list begins and ends with a line feed. A
# loop, or a pattern after "#", would take too long where there are many lines.
take() { # beginning, list
  before=${2%%"$NL$1"*}
  if [ "$before" = "$2" ]; then return 1; fi
  # shellcheck disable=SC3057 # busybox ash
  LINE=${2:${#before}+1}
  LINE=${LINE%%"$NL"*}
  # shellcheck disable=SC3057 # busybox ash
  REST=$before${2:${#before}+1+${#LINE}}
}

# A child that ended is there until it is waited for, but without memory.
runs() { # process
  { IFS=' ' read -r pages _ <"/proc/$1/statm"; } 2>&6 && [ "$pages" != 0 ]
}

# Whatever state it is in, a stopped one too.
stop() { # process or nothing
  if [ -z "$1" ]; then return 0; fi
  kill -9 "$1" 2>&6 || :
  wait "$1" 2>&6 || :
}

become_ready() {
  READY=yes
  { echo >"$RUN_DIR/ready"; } 2>&6 || :
  log info 'ready' node "$NODE_NAME"
}

# The next event: KIND, FIRST and SECOND. Fails when the time is over. Only the first byte is waited for: a
# line is written at once, but a reader that is throttled in the middle of one would lose the rest of it.
next_event() { # seconds
  # shellcheck disable=SC3045 # busybox ash
  read -r -t "$1" -n 1 byte || return 1
  IFS= read -r event || return 1
  event=$byte$event
  KIND=${event%%"$TAB"*}
  event=${event#"$KIND"}
  event=${event#"$TAB"}
  FIRST=${event%%"$TAB"*}
  SECOND=${event#"$FIRST"}
  SECOND=${SECOND#"$TAB"}
}

handle_event() {
  case $KIND in
    c) file_written "$FIRST" event ;;
    n) created "$FIRST" "$SECOND" ;;
    # The queue of the kernel overflowed; the watch of something that is gone has ended.
    o) scan_soon ;;
    x) ;;
    inotifyd:*) log debug 'inotifyd' reason "${KIND##*: }" ;;
    kills) kills_counted "$FIRST" "$SECOND" ;;
    policy) policy_found "$FIRST" "$SECOND" ;;
    sent) event_sent "$FIRST" "$SECOND" ;;
    *) api_event "$KIND" "$FIRST" "$SECOND" ;;
  esac
}

tick() {
  TICK=$((UPTIME + TICK_SECONDS))
  { echo >"$RUN_DIR/alive"; } 2>&6 || :
  if [ -z "$ROOT" ]; then find_node; fi
  if [ -n "$ROOT" ]; then
    check_api
    check_watcher
  fi
  if [ "$UPTIME" -ge "$RESYNC" ]; then
    RESYNC=$((UPTIME + RESYNC_SECONDS))
    scan_soon
  fi
  report
}

# Where we are, and what to do there: nothing with cgroup v1; and nothing, but asking again, where our own
# container is not where it should be, since then no other is either.
find_node() {
  if ! [ -e "$CGROUP_ROOT/cgroup.controllers" ]; then
    node_condition yes cgroup_v1
    if [ -z "$READY" ]; then become_ready; fi
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
  elif [ -n "$UNWATCHED$NEXT_WATCHER" ]; then
    PAUSE=$LOOK_SECONDS
  elif [ -n "$ROOT" ] && { [ -z "$CURL" ] || ! is_watching; }; then
    PAUSE=1
  else
    PAUSE=$((TICK > UPTIME ? TICK - UPTIME : 1))
  fi
}

# What is to be done between events.
look() {
  if [ -z "$ROOT" ]; then return 0; fi
  look_at "$UNWATCHED$STARTING"
  renew_watcher
  renew_api
  scan_some
  if [ -z "$READY" ] && [ "$CONNECTS" -gt 0 ] && { is_watching || ! has_inotify; }; then become_ready; fi
}

# The queue becomes fd 0, and 3 for children; 6 is where complaints go that nobody needs. The directory of the
# metrics must stay the same one: the sidecar has it mounted.
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
  PAUSE=0.01
  turn=0
  while :; do
    if next_event "$PAUSE"; then
      handle_event
      # There may be more; but events that never pause are no excuse.
      PAUSE=$LOOK_SECONDS
      turn=$((turn + 1))
      if [ "$turn" -lt 20 ]; then continue; fi
    fi
    turn=0
    read_uptime
    look
    if [ "$UPTIME" -ge "$TICK" ]; then tick; fi
    choose_pause
  done
}

run
