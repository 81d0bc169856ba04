#!/bin/sh
# Sets memory.oom.group of the containers of opted-in pods on this node, as the labels of the pods ask. It touches nothing
# else.
#
# One process, this shell, holds all state and does all writing. It reads one queue, a FIFO. Three kinds of children
# write to the queue: inotifyd tells what changes in the cgroup file system; curl with api.awk tells which pods of this
# node are opted in; and a child that runs at each tick, every TICK_SECONDS, tells what it counted and sent. Events of
# the kernel do the work. Every RESYNC_SECONDS, the loop also looks at everything, because an event may be missing. Without
# inotify, it does so every second.
#
# Files, in the order in which they are best read:
#   agent.sh        the queue, the loop, the ticks
#   lists.sh        searches in lists
#   cgroups.sh      where cgroups are, and what their files say
#   containers.sh   which container gets which value, and the write
#   pods.sh         which pods are opted in
#   watch.sh        inotifyd
#   api.sh          the watch of the API server; api.awk makes short lines of its answers
#   conditions.sh   what keeps a mode from working
#   systemd.sh      one such condition, for which systemd's files are read
#   kills.sh        processes that the kernel killed in containers that kept running
#   events.sh       Events, which tell users of conditions and kills
#   metrics.sh      numbers for Prometheus
#
# Variables in lower case are local to a function. Those in capitals outlive it, and are of four groups:
#   environment     NODE_NAME and POD_UID of our own pod (downward API), KUBERNETES_SERVICE_HOST and _PORT (kubelet), and
#                   those with defaults just below
#   constants       set once, at the top of a file: NL, TAB, FILE, the limits (MOST_…, …_SECONDS)
#   state           set at the top of the file whose functions change it, each with a comment
#   results         RESULT, where a function leaves its result; and the current pod, container and record:
#                     find_pod        POD (its UID) MODE NAMESPACE NAME OVERRIDES FLAG HEARD
#                     find_key        KEY, and describe CONTAINER (the name, or the key if the name is not known)
#                     find_container  CONTAINER_FILE, and all of the above
#                     find_pod_directory  POD_DIRECTORY
#                     read_record     WHAT WHOSE COUNT TOLD EARLIEST LAST_PAUSE SINCE, and POD NAMESPACE NAME
#                     explain         MESSAGE CONTAINER
#
# For busybox ash. Two files are for the probes: RUN_DIR/ready exists once the agent is connected and watches. The agent
# creates RUN_DIR/alive at every tick, and the liveness probe removes it.
set -eu

# The label and the annotation of pods; error, warn, info or debug; yes or no; which script this is, for the log.
: "${LABEL_PREFIX:=cdk8s-oom-kill-mode}" "${LOG_LEVEL:=info}" "${EVENTS:=no}" "${METRICS:=no}" "${SCRIPT_SHA256:=unknown}"
# Seconds between two resyncs, between two ticks, and between two looks at files that no inotifyd watches yet.
: "${RESYNC_SECONDS:=60}" "${TICK_SECONDS:=10}" "${EXAMINE_SECONDS:=0.01}"
# The node's /sys/fs/cgroup, /var/log/containers and /run/systemd/transient.
: "${CGROUP_ROOT:=/host/cgroup}" "${CONTAINER_LOGS:=/host/containers}" "${SYSTEMD_TRANSIENT:=/host/systemd}"
# The agent's own token, and a directory that it may write.
: "${SERVICE_ACCOUNT:=/var/run/secrets/kubernetes.io/serviceaccount}" "${RUN_DIR:=/run/oom-kill-mode}"

NL='
'
TAB='	'
# A list is a string of lines. The shell splits it where it stands without quotes.
IFS=$NL
HERE=$(cd "$(dirname "$0")" && pwd)
# EVENTS_PER_TURN: the loop handles at most so many events before it does its other work.
# PIECE_LENGTH: a piece of a list has about so many characters before it is added to a longer one.
# NO_PAUSE: the loop waits so many seconds for an event when it has more to do; read takes no shorter time.
EVENTS_PER_TURN=8 PIECE_LENGTH=4000 NO_PAUSE=0.001

# State: whole seconds since the boot, a clock that changes of the time of day do not affect; when the next tick is due;
# how long to wait for the next event; whether the agent was ready once; children that were stopped since the last tick,
# and before it; the child that reports.
UPTIME=0 TICK=0 PAUSE=$EXAMINE_SECONDS READY='' STOPPED='' ENDED='' REPORTER=''

for part in lists cgroups containers pods watch api conditions systemd kills events metrics; do . "$HERE/$part.sh"; done

# One JSON object a line. Values are constants of this script, or were checked by api.awk.
log() { # level, message, then pairs of a key and a value
  case $LOG_LEVEL:$1 in error:[!e]* | warn:[id]* | info:debug) return 0 ;; esac
  local text="{\"ts\":${EPOCHSECONDS:-0},\"level\":\"$1\",\"msg\":\"$2\""
  shift 2
  while [ $# -gt 1 ]; do text="$text,\"$1\":\"$2\"" && shift 2; done
  printf '%s}\n' "$text"
}

# A child that ended has an entry in /proc until somebody waits for it, but no memory.
is_running() { # process
  local pages=0 rest=''
  IFS=' ' read -r pages rest 2>&6 <"/proc/$1/statm" && [ "$pages" != 0 ]
}

# The kernel may take a while to end an inotifyd: the loop waits for it a tick later.
stop() { # process or nothing
  if [ -z "$1" ]; then return 0; fi
  kill -9 "$1" 2>&6 || :
  STOPPED=$STOPPED$1$NL
}

# The next event: a letter, then fields separated by tabs. Fails when the time is over. The time limit is for the letter
# only. A line is written at once, so the rest of it is there as well; but if this shell were throttled in the middle of
# a line, a time limit could make it lose the rest.
next_event() { read -r -t "$1" -n 1 KIND && IFS=$TAB read -r FIRST SECOND THIRD FOURTH FIFTH SIXTH; }

# All letters of the queue, and the fields behind them:
#
#   from inotifyd    c  file                        somebody wrote this file
#                    n  directory, name             there is something new in this directory
#                    o                              the kernel had no room for some events
#                    x  file                        a watch ended, because the file no longer exists: nothing to do
#   from api.awk     C                              the API server answers; first it tells of every present pod
#                    O  uid, name=mode              an override of the pod on the next line with P
#                    P  uid, mode, namespace, name, flag, version   a pod, new or changed; see api.awk
#                    L  uid                         a present pod, which is as the loop knows it
#                    G  uid, version                a pod lost its label, or ended
#                    D  uid, version                a pod was deleted
#                    B  version, "new" or "old"     a bookmark, and whether it is older than what was told before
#                    E  status, curl's exit status, seconds, reason, message   the end of a watch
#   from the child   K  key, kills, counters        processes of a container were killed; see kills.sh
#   that reports     S  what/whose uid, count, since, status, reason, message   an Event was sent; see events.sh
#                    Y  key, policy                 what systemd does with a container after a kill; see systemd.sh
handle_event() {
  case $KIND in
    c) if [ "$FIRST" = "$PING" ]; then watcher_is_up; else file_written "$FIRST" event; fi ;;
    n) created "$FIRST" "$SECOND" ;;
    o) WATCH_ANEW=yes && resync_soon ;;
    C) api_connected ;;
    O) PENDING=$PENDING$SECOND, ;;
    P) pod_told "$FIRST" "$SECOND" "$THIRD" "$FOURTH" "$FIFTH" "$SIXTH" ;;
    L) note_listed "$FIRST" ;;
    G) SEEN=$SECOND && pod_left "$FIRST" ;;
    D) SEEN=$SECOND && pod_deleted "$FIRST" ;;
    B) bookmark_told "$FIRST" "$SECOND" ;;
    E) watch_ended "$FIRST" "$SECOND" "$THIRD" "$FOURTH" "$FIFTH" ;;
    K) kills_counted "$FIRST" "$SECOND" "$THIRD" ;;
    S) event_sent "$FIRST" "$SECOND" "$THIRD" "$FOURTH" "$FIFTH" "$SIXTH" ;;
    Y) policy_found "$FIRST" "$SECOND" ;;
  esac
}

tick() {
  local child=''
  TICK=$((UPTIME + TICK_SECONDS))
  echo 2>&6 >"$RUN_DIR/alive" || :
  if [ -z "$ROOT$READY" ]; then find_node; fi
  for child in $ENDED; do wait "$child" 2>&6 || :; done
  ENDED=$STOPPED STOPPED=''
  enforce_contested
  check_api
  check_watcher
  report
}

# At each tick, a child does the slow work. It writes its results to the queue.
report() {
  if [ -n "$REPORTER" ] && is_running "$REPORTER"; then return 0; fi
  if [ -n "$REPORTER" ]; then wait "$REPORTER" 2>&6 || :; fi
  { check_policies && count_kills && send_events && write_metrics; } &
  REPORTER=$!
}

become_ready() {
  READY=yes
  echo 2>&6 >"$RUN_DIR/ready" || :
  log info 'ready' node "$NODE_NAME" script "$SCRIPT_SHA256"
}

# With cgroup v1 there is nothing to do, and the agent is ready at once. If our own container is not in the cgroup of its
# pod, the others are not either.
find_node() {
  if ! [ -e "$CGROUP_ROOT/cgroup.controllers" ]; then node_condition yes cgroup_v1 && become_ready && return 0; fi
  if ! find_kubepods; then node_condition yes cgroup_not_found && return 0; fi
  node_condition '' cgroup_not_found
  log info 'cgroups found' driver "$DRIVER" nodeValue "$NODE_VALUE"
  cd "$ROOT" && start_api && start_watcher
}

# How long to wait for an event: as long as there is nothing else to do.
choose_pause() {
  PAUSE=$((TICK > UPTIME ? TICK - UPTIME : 1))
  if [ -n "$ROOT" ] && { [ -z "$CURL" ] || [ -n "$LISTED" ] || ! has_inotify; }; then PAUSE=1; fi
  if [ -n "$ROOT" ] && ! is_watching && has_inotify; then PAUSE=$EXAMINE_SECONDS; fi
  if [ -n "$UNWATCHED$WATCH_ANEW$NEXT_WATCHER" ]; then PAUSE=$EXAMINE_SECONDS; fi
  if [ -n "$TO_SCAN" ] || [ "$FORGOTTEN" -lt "$LISTS_OF_CONTAINERS" ]; then PAUSE=$NO_PAUSE; fi
}

# What the loop does besides events, once in each turn after it found the cgroups.
between_events() {
  resync_next
  examine "$UNWATCHED$STARTING"
  renew_watcher
  renew_api
  if [ -z "$READY" ] && [ "$CONNECTS" -gt 0 ] && { is_watching || ! has_inotify; }; then become_ready; fi
}

# The queue becomes fd 0 of the loop, and fd 3 for children; fd 6 drops messages that nobody needs. The container with the
# metrics mounts the directory metrics/, which must stay the same directory.
main() {
  local turn=0 rest=''
  # The children of a container end with its first process.
  trap 'exit 0' TERM INT
  mkdir -p "$RUN_DIR/metrics"
  rm -f "$RUN_DIR/queue" "$RUN_DIR/answers" "$RUN_DIR/ready" && mkfifo "$RUN_DIR/queue" "$RUN_DIR/answers"
  echo | tee "$RUN_DIR/ping.0" "$RUN_DIR/complaint" >"$RUN_DIR/ping.1"
  exec 3<>"$RUN_DIR/queue" 6>/dev/null <&3
  while :; do
    if next_event "$PAUSE"; then
      handle_event
      # There may be more events. They must not keep the loop from its other work, whether they come at once or one by
      # one.
      PAUSE=$NO_PAUSE
      turn=$((turn + 1)) && if [ "$turn" -lt "$EVENTS_PER_TURN" ]; then continue; fi
    fi
    turn=0
    IFS=. read -r UPTIME rest </proc/uptime
    if [ -n "$ROOT" ]; then between_events; fi
    if [ "$UPTIME" -ge "$TICK" ]; then tick; fi
    choose_pause
  done
}

main
