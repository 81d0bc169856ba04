#!/bin/sh
# The agent of cdk8s-oom-kill-mode: makes memory.oom.group of the containers of opted-in pods on this
# node say what the pods' labels say, and touches nothing else.
#
# How it works. One process holds all state and does all writing: a loop that reads one queue, a FIFO,
# line by line. Two sources feed the queue: busybox inotifyd, which reports changes of the cgroup file
# system, and curl with pods.awk, which report the opted-in pods of this node. What is wanted is kept
# as symbolic links in RUN_DIR, the "farm": 0/<container> (Single) and 1/<container> (Group) lead to
# the container's memory.oom.group, so that an event's own path, "0/7-3f2a9c01", says where to look
# and what should be there: a wrong value costs one read and one write, no search and no fork. A link
# that is gone makes every event still queued for it harmless. inotifyd takes its watches as arguments
# only, so it is replaced when a cgroup appears: the new one is up before the old one ends.
#
# This file is the loop and the life of the process; node.sh, pods.sh, watch.sh and api.sh beside it
# are its four concerns, and pods.awk reads the API server's JSON. In all of them, capitals are what
# outlives a function: settings, state, and what a function leaves behind for its caller.
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
set -eu

: "${LABEL_PREFIX:=cdk8s-oom-kill-mode}"
: "${LOG_LEVEL:=info}"
: "${RESYNC_SECONDS:=60}"
: "${CGROUP_ROOT:=/host/cgroup}"
: "${CONTAINER_LOGS:=/host/containers}"
: "${RUN_DIR:=/run/oom-kill-mode}"
: "${SERVICE_ACCOUNT:=/var/run/secrets/kubernetes.io/serviceaccount}"

NL='
'
TAB='	'
HERE=$(cd "$(dirname "$0")" && pwd)
TICKER=
# The time of the last tick.
TICKED=
TIMED_READ=
MISSING=' synced connected watching '

for part in node pods watch api; do
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
log_text() { # level message key text
  case $4 in
    *[!\ -~]* | *\"* | *\\*) log "$1" "$2" "$3" '(not printable)' ;;
    *) log "$@" ;;
  esac
}

# busybox can wait without a process for it: for input that never comes.
pause() { # seconds
  if [ -n "$TIMED_READ" ]; then
    # shellcheck disable=SC3045 # only where prepare() found that it works
    read -r -t "$1" _ <&5 || :
  else
    sleep "$1" || :
  fi
}

every() { # seconds, word
  while :; do
    pause "$1"
    printf '%s\n' "$2" >&3
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
  fi
}

heartbeat() {
  read_uptime
  printf '%s\n' "$UPTIME" 1<>../alive
}

tick() {
  heartbeat
  # They pile up while the loop stands still, and nobody could have answered the first by the second.
  if [ "$UPTIME" = "$TICKED" ]; then return 0; fi
  TICKED=$UPTIME
  check_hung
  check_children
  resync
  retry_inotify
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
  mkdir -p "$farm/0" "$farm/1" "$farm/pod"
  mkfifo "$RUN_DIR/queue" "$RUN_DIR/idle"
  cd "$farm"
  printf '0\n' >../up
  : >../ping0
  : >../ping1
  : >../last0
  : >../last1
  printf '0 0\n' >../newest
  ln -s "$CONTAINER_LOGS" logs
  # Whatever reads without saying where from reads the queue: a redirection costs four system calls.
  exec 3<>../queue 5<>../idle 6>/dev/null <&3
  status=0
  # shellcheck disable=SC3045 # dash fails with another status than a time that is up
  { read -r -t 0.01 _ <&5; } 2>/dev/null || status=$?
  if [ "$status" = 1 ]; then TIMED_READ=yes; fi
  heartbeat
}

# On a node where there is nothing to do the agent says so and stays out of the way.
idle() { # message
  log warn "$1" node "$NODE_NAME"
  : >../ready
  start_ticker
  while read -r _; do
    heartbeat
  done
}

run() {
  IFS=$NL
  trap 'exit 0' TERM INT
  trap 'find_newest 2>/dev/null || :; kill $INOTIFYD $OLD $NEWEST $TICKER $API $POLLER 2>/dev/null || :' EXIT
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
  while :; do
    IFS=$TAB read -r kind path rest || continue
    if [ "$kind" = c ]; then
      enforce "$path"
      continue
    fi
    case $kind in
      n) created "$path" "$rest" ;;
      w) watch_answered "$path" ;;
      x) removed "$path" ;;
      o)
        log warn 'inotify lost events; everything is looked at'
        resync
        ;;
      poll) resync ;;
      inotifyd:*) watch_complained "$kind" ;;
      ended)
        expected=$ENDING
        watch_ended "$path"
        # One that was not to end may not be the only process that did.
        if [ "$path" != "$expected" ]; then check_children; fi
        ;;
      list) api_list ;;
      container) api_container "$path" "$rest" ;;
      pod) api_pod "$path" "$rest" ;;
      gone) opt_out "$path" ;;
      synced) api_synced ;;
      connected)
        api_answers
        become_ready connected
        ;;
      trouble) api_trouble "$path" ;;
      tick) tick ;;
      alive) check_children ;;
      *) log_text warn 'unknown event' event "$kind" ;;
    esac
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
