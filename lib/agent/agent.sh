#!/bin/sh
# The agent of cdk8s-oom-kill-mode: makes memory.oom.group of the containers of opted-in pods on this
# node say what the pods' labels say, and touches nothing else.
#
# How it works. One process holds all state and does all writing: a loop that reads one queue, a FIFO,
# line by line. Two sources feed the queue: busybox inotifyd, which reports changes of the cgroup file
# system, and curl with pods.awk, which report the opted-in pods of this node. What is wanted is kept
# as symbolic links in RUN_DIR, the "farm": 0/<container> (Single) and 1/<container> (Group) lead to
# the container's cgroup, so that an event's own path, "0/7-3f2a9c01/memory.oom.group", says where to
# look and what should be there: a wrong value costs one read and one write, no search and no fork. A
# link that is gone makes every event still queued for it harmless.
#
# inotifyd takes its watches as arguments only, so what is new takes another one. That would cost more the
# more there is to watch, so a young one has what is new, and is replaced for what is newer; the next one
# is up before the last one ends, and what lies between is looked at. When nothing new has come for three
# seconds, one for everything takes the place of all. Nothing that a start or a repair waits for grows
# with the number of pods; the regular check of everything is done pod by pod between events. While
# containers start, a "burst", whatever can wait does: its processes would take of the CPU limit.
#
# This file is the loop and the life of the process. Beside it are its concerns: node.sh (where the
# cgroups are), pods.sh (what is wanted), containers.sh (what is written), watch.sh (inotifyd), new.sh
# (what no inotifyd watches yet) and api.sh, where pods.awk reads the API server's JSON. What the
# kernel kills all the same is counted by kills.sh, when kill_watch.sh says so; where a mode cannot work
# is found by conditions.sh; events.sh and metrics.sh make both seen, beside the loop. lists.sh is how
# they keep their state. In all of them, capitals are what outlives a function: settings, state, and what
# a function leaves behind for its caller.
#
# Usage: agent.sh           run the agent
#        agent.sh ready     exit 0 when it watches and has heard of every pod (readiness probe)
#        agent.sh live      exit 0 while its loop turns (liveness probe)
#
# Environment:
#   NODE_NAME                 the node this pod runs on
#   POD_UID                   this pod's own UID: its cgroup shows where all the others are
#   KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT   the API server, set by the kubelet
#   LABEL_PREFIX              prefix of the label and the annotation  [cdk8s-oom-kill-mode]
#   LOG_LEVEL                 error, warn, info or debug              [info]
#   RESYNC_SECONDS            time between two checks of everything   [60]
#   CGROUP_ROOT               the node's /sys/fs/cgroup               [/host/cgroup]
#   CONTAINER_LOGS            the node's /var/log/containers          [/host/containers]
#   RUN_DIR                   a writable directory                    [/run/oom-kill-mode]
#   SERVICE_ACCOUNT           directory with token and ca.crt         [where the kubelet puts them]
#   EVENTS                    yes: an Event for killed processes      [no]
#   EVENTS_APPLIED            yes: also one for each mode applied     [no]
#   EVENT_SECONDS             least time between two Events of a pod  [10]
#   METRICS                   yes: write RUN_DIR/metrics              [no]
#   SCRIPT_SHA256             what the metrics call this script       [unknown]
#   KILL_SECONDS              least time between two looks for kills  [10]
#   SYSTEMD_TRANSIENT         the node's /run/systemd/transient       [not looked at]
set -eu

: "${LABEL_PREFIX:=cdk8s-oom-kill-mode}"
: "${LOG_LEVEL:=info}"
: "${RESYNC_SECONDS:=60}"
: "${CGROUP_ROOT:=/host/cgroup}"
: "${CONTAINER_LOGS:=/host/containers}"
: "${RUN_DIR:=/run/oom-kill-mode}"
: "${SERVICE_ACCOUNT:=/var/run/secrets/kubernetes.io/serviceaccount}"
: "${EVENTS:=no}"
: "${EVENTS_APPLIED:=no}"
: "${EVENT_SECONDS:=10}"
: "${METRICS:=no}"
: "${SCRIPT_SHA256:=unknown}"
: "${KILL_SECONDS:=10}"
: "${SYSTEMD_TRANSIENT:=}"

NL='
'
TAB='	'
HERE=$(cd "$(dirname "$0")" && pwd)
TICKER=
# When the last tick was done, in hundredths of a second, and the newest inotifyd at that time.
TICKED=0
TICKED_GENERATION=
TIMED_READ=
MISSING=' synced connected watching '
# How long the loop waits for the next event, and the same in hundredths of a second.
PAUSE=
HUNDREDTHS=0

for part in lists node pods containers watch new api kills kill_watch conditions events metrics; do
  # shellcheck source=/dev/null # each of them is checked by itself
  . "$HERE/$part.sh"
done

# One JSON object a line. Values are our own words or names that pods.awk checked.
log() { # level message [key value]...
  case $LOG_LEVEL:$1 in
    error:warn | error:info | error:debug | warn:info | warn:debug | info:debug) return 0 ;;
  esac
  line="{\"level\":\"$1\",\"msg\":\"$2\""
  shift 2
  while [ $# -gt 1 ]; do
    line="$line,\"$1\":\"$2\""
    shift 2
  done
  printf '%s}\n' "$line"
}

# The same with another program's words: quoted only if no character in them could end a JSON string.
log_text() { # level message key text [key value]...
  text=$4
  case $text in *[!\ -~]* | *\"* | *\\*) text='(not printable)' ;; esac
  level=$1 message=$2 text_key=$3
  shift 4
  log "$level" "$message" "$text_key" "$text" "$@"
}

# busybox can wait without a process for it: for input that never comes.
pause() { # seconds
  if [ -n "$TIMED_READ" ]; then
    # shellcheck disable=SC3045 # only where prepare() found that it works
    read -r -t "$1" _ <&5 || :
  else
    sleep "$1" 2>/dev/null || :
  fi
}

# Says when it did, since words pile up in the queue of a loop that is busy or stopped.
every() { # seconds, word
  while :; do
    pause "$1"
    read_uptime
    printf '%s\t%s\n' "$2" "$INSTANT" >&3
  done
}

start_ticker() {
  every "$RESYNC_SECONDS" tick &
  TICKER=$!
}

# Ready is whoever watches the node, has heard of every pod, and is going to hear of the next one.
become_ready() { # "synced", "connected" or "watching"
  case $MISSING in
    *" $1 "*) MISSING=${MISSING%% "$1" *}${MISSING#* "$1"} ;;
    *) return 0 ;;
  esac
  if [ "$MISSING" = ' ' ]; then
    : >../ready
    log info 'ready' node "$NODE_NAME" driver "$DRIVER" nodeValue "$NODE_VALUE"
    write_metrics
  fi
}

heartbeat() {
  read_uptime
  printf '%s\n' "$UPTIME" 1<>../alive
}

tick() {
  TICKED=$INSTANT
  check_hung
  check_children
  # Other events may have come all the time, so that it was never quiet.
  if [ "$TICKED_GENERATION" = "$GENERATION" ]; then end_burst; fi
  TICKED_GENERATION=$GENERATION
  retry_inotify
  # All of this can wait; its processes would take of the CPU limit what a start needs.
  if in_burst; then
    check_kill_watch
  else
    # Once now; what begins next is another burst.
    BURST=
    clean_up
  fi
  write_metrics
}

# What nobody waits for: the kills, conditions and links of what is gone.
clean_up() {
  if [ "$GONE" != 0 ]; then prune; fi
  check_kill_watch
  check_conditions
  check_sender
  send_events
}

# A child that died is there until somebody waits for it, but without memory.
runs() { # process number
  { IFS=' ' read -r pages _ <"/proc/$1/statm"; } 2>&6 && [ "$pages" != 0 ]
}

# Whatever died is started again. The ticker and whatever the API server says both lead here.
check_children() {
  check_keepers
  check_api
  if ! runs "$TICKER"; then start_ticker; fi
}

# A directory for our links, beside those of an agent before us, and the queue.
prepare() {
  last=0
  for farm in "$RUN_DIR"/farm.*; do
    if [ -d "$farm" ] && [ "${farm##*.}" -gt "$last" ]; then last=${farm##*.}; fi
  done
  farm=$RUN_DIR/farm.$((last + 1))
  rm -f "$RUN_DIR/ready" "$RUN_DIR/queue" "$RUN_DIR/idle" "$RUN_DIR/curl"
  mkdir -p "$farm/0" "$farm/1" "$farm/pod" "$farm/record" "$RUN_DIR/kills"
  mkfifo "$RUN_DIR/queue" "$RUN_DIR/idle"
  cd "$farm"
  printf '0\n' >../up
  printf '0 0\n' >../killwatch
  slot=0
  while [ "$slot" -lt "$SLOTS" ]; do
    : >"../ping$slot"
    : >"../last$slot"
    printf '0 0\n' >"../pid$slot"
    slot=$((slot + 1))
  done
  ln -s "$CONTAINER_LOGS" logs
  prepare_metrics
  # Whatever reads without saying where from reads the queue: a redirection costs four system calls.
  exec 3<>../queue 5<>../idle 6>/dev/null <&3
  status=0
  # shellcheck disable=SC3045 # dash fails with another status than a time that is up
  { read -r -t 0.01 -n 1 _ <&5; } 2>/dev/null || status=$?
  if [ "$status" = 1 ]; then TIMED_READ=yes; fi
  heartbeat
}

# How long to wait for the next event before the next pod of a tick, or before it counts as quiet: as long
# as it takes if there is nothing of the kind. Without a timed read a tick is one piece.
choose_pause() { # how many pods the tick has still to look at
  PAUSE=
  if [ -z "$TIMED_READ" ]; then return 0; fi
  if [ -n "$AWAITED" ]; then
    PAUSE=0.02 HUNDREDTHS=2
  elif [ "$1" -gt 0 ] || [ -n "$BARE_PODS$UNPRUNED" ]; then
    PAUSE=0.05 HUNDREDTHS=5
  elif [ -n "$BURST" ]; then
    PAUSE=1 HUNDREDTHS=100
  fi
}

# The next event, if there is one before the pause is over. Only its first character is waited for: a
# line is written in one piece, but a reader that is throttled in the middle of it would run out of time
# and lose it.
read_in_time() {
  # shellcheck disable=SC3045 # only where prepare() found that it works
  read -r -t "$PAUSE" -n 1 first || return 1
  IFS= read -r line || return 1
  line=$first$line
  kind=${line%%"$TAB"*}
  line=${line#"$kind"}
  line=${line#"$TAB"}
  path=${line%%"$TAB"*}
  rest=${line#"$path"}
  rest=${rest#"$TAB"}
}

pause_is_over() {
  if [ -n "$AWAITED" ]; then nothing_came; fi
  if [ -n "$BARE_PODS" ]; then scan_bare_pods; fi
  be_quiet "$HUNDREDTHS"
}

# On a node where there is nothing to do the agent says so and stays out of the way.
idle() { # message
  log warn "$1" condition cgroup_v1 node "$NODE_NAME"
  add_condition - cgroup_v1 - || :
  note - cgroup_v1 -
  : >../ready
  start_ticker
  while :; do
    # There is nothing to ask the API server for, so nothing of it is missing.
    api_heard
    check_sender
    send_events
    write_metrics
    IFS=$TAB read -r kind path rest || :
    heartbeat
    case $kind in
      sent) event_sent "$path" "$rest" ;;
      delivered) events_delivered "$path" ;;
    esac
  done
}

run() {
  IFS=$NL
  trap 'exit 0' TERM INT
  trap 'IFS=$NL; kill_watchers; kill $TICKER $API $POLLER $KILL_TIMER $SENDER 2>/dev/null || :; stop_kill_watch || :' EXIT
  prepare
  if ! [ -e "$CGROUP_ROOT/cgroup.controllers" ]; then
    idle 'cgroup v1: the kernel kills single processes on this node whatever anyone wants; nothing to do'
  fi
  until find_kubepods; do
    log error "own pod's cgroup not found below CGROUP_ROOT" node "$NODE_NAME"
    heartbeat
    pause 10
  done
  rewatch
  start_api
  start_ticker
  # The arguments are the pods that a tick has still to look at.
  set --
  busy=0
  while :; do
    choose_pause $#
    if [ -z "$PAUSE" ]; then
      IFS=$TAB read -r kind path rest || continue
    elif read_in_time; then
      # Events that never pause are no excuse.
      busy=$((busy + 1))
    else
      pause_is_over
      kind=
      busy=30
    fi
    case $kind in
      c) enforce "$path" ;;
      '') ;;
      n) created "$path" "$rest" ;;
      w) watch_answered "$path" ;;
      x) removed "$path" ;;
      o)
        log warn 'inotify lost events; everything is looked at'
        resync
        ;;
      poll) poll "$path" ;;
      inotifyd:*) watch_complained "$kind" ;;
      ended)
        expected=
        if take "$path:*" "$ENDING"; then expected=yes; fi
        watch_ended "$path"
        # One that was not to end may not be the only process that did.
        if [ -z "$expected" ]; then check_children; fi
        ;;
      list) api_list ;;
      container) api_container "$path" "$rest" ;;
      pod) api_pod "$path" "$rest" ;;
      gone) opt_out "$path" ;;
      synced) api_synced ;;
      killed) check_kills "$path" "$rest" ;;
      oom) kills_changed "$path" ;;
      look) looked_for_kills "$path" ;;
      sent) event_sent "$path" "$rest" ;;
      delivered) events_delivered "$path" ;;
      policy) oom_policy_found "$path" ;;
      connected)
        watch_connected
        log debug 'watch of the API server opened' opened "$CONNECTS"
        api_answers
        become_ready connected
        ;;
      trouble) api_trouble "$path" ;;
      tick)
        heartbeat
        # Nobody had the time to answer the last one if that came late, up to after this one was sent.
        if [ "$path" -ge $((TICKED + RESYNC_SECONDS * 50)) ]; then
          tick
          if [ -z "$TIMED_READ" ]; then
            resync
          elif [ $# = 0 ]; then
            # shellcheck disable=SC2086 # split on purpose, at line feeds
            set -- $PODS
          fi
        fi
        ;;
      alive)
        api_heard
        check_children
        ;;
      *) log_text warn 'unknown event' event "$kind" ;;
    esac
    if [ "$busy" -ge 30 ]; then
      busy=0
      if [ $# -gt 0 ]; then
        resync_pod "$1"
        shift
      elif [ -n "$UNPRUNED" ]; then
        prune_some
      fi
    fi
  done
}

live() {
  read_uptime
  read -r beat <"$RUN_DIR/alive"
  [ $((UPTIME - beat)) -le $((RESYNC_SECONDS * 2 + 60)) ]
}

case ${1-} in
  '') run ;;
  ready) [ -e "$RUN_DIR/ready" ] ;;
  live) live ;;
  *)
    printf 'agent.sh: unknown argument; see the head of the file\n' >&2
    exit 2
    ;;
esac
