# shellcheck shell=sh
# What users see in `kubectl describe pod`: Events of the API's core group, which every version shows.
#
# One Event for each container with kills, changed as more come; its count is the number of processes
# killed. A process beside the loop sends them, one request for one pod, then not again for ten seconds,
# and with growing pauses while there is more to tell. What could not be sent is counted with the rest
# and sent later, also if only the answer shows whether the Event is to be made or changed.

# The process that sends, its number, counted up, and what it was given: "<pod's number> <what> <start of
# id> <kills> <told> <posted>" a line, where what is "kills" or what a note is about.
SENDER=
DELIVERY=0
JOBS=
# How many there are, and whether there were too many.
JOB_COUNT=0
MORE_JOBS=
# For each pod that something was sent for: its number, the uptime before which nothing else is sent, and
# the pause that was.
LIMITS=
# What is told once: "<pod's number> <condition or applied> <name of a container, start of its id, or ->".
NOTES=
# The conditions among them that were told, or are going to be.
NOTED=$NL
# The last answer that was not good.
EVENT_PROBLEM=
LONGEST_PAUSE=$((EVENT_SECONDS * 30))
# The node's name, if it is one.
EVENT_HOST=${NODE_NAME-}
case $EVENT_HOST in *[!a-z0-9.-]*) EVENT_HOST=- ;; esac

note() { # number of the pod or "-", condition, name of a container or "-"
  if [ "$EVENTS" != yes ]; then return 0; fi
  case $NOTED in *"$NL$1 $2 $3$NL"*) return 0 ;; esac
  NOTED="$NOTED$1 $2 $3$NL"
  NOTES="$NOTES$1 $2 $3$NL"
}

# A container has its mode: an Event of that is more than most want to see. It is begun once only, so
# what was told need not be remembered, of a crash loop's containers least of all.
note_applied() { # key
  if [ "$EVENTS" != yes ] || [ "$EVENTS_APPLIED" != yes ] || is_inner "$1"; then return 0; fi
  drop_note "${1%%-*} applied ${1#*-}"
  NOTES="$NOTES${1%%-*} applied ${1#*-}$NL"
}

send_events() {
  if [ "$EVENTS" != yes ] || [ -n "$SENDER" ] || [ -z "$KILLS$NOTES" ]; then return 0; fi
  # A request costs as much as the start of several containers.
  if in_burst; then return 0; fi
  read_uptime
  JOBS=
  JOB_COUNT=0
  MORE_JOBS=
  for record in $KILLS; do
    add_kills_job "${record%% *}" "${record##* }"
  done
  for line in $NOTES; do
    if [ "$JOB_COUNT" -ge 20 ]; then
      MORE_JOBS=yes
      break
    fi
    IFS=' '
    # shellcheck disable=SC2086 # split on purpose: three words of ours
    set -- $line
    IFS=$NL
    if [ "$2" = applied ] && ! has_mode "$1-$3"; then continue; fi
    if may_send "$1"; then
      JOBS="$JOBS$1 $2 $3 0 0 0$NL"
      JOB_COUNT=$((JOB_COUNT + 1))
    fi
  done
  start_sender
}

# The current pod leaves: nobody could tell of its kills later.
tell_last_kills() {
  if [ "$EVENTS" != yes ] || [ -n "$SENDER" ] || ! take "$NUMBER *" "$KILLS"; then return 0; fi
  read_uptime
  JOBS=
  add_kills_job "$NUMBER" "${TAKEN##* }"
  start_sender
}

start_sender() {
  if [ -z "$JOBS" ]; then return 0; fi
  DELIVERY=$((DELIVERY + 1))
  deliver &
  SENDER=$!
}

# Whether a container has the mode that it is to have; of one that ended there is nothing to tell.
has_mode() { # key
  for link in "0/$1" "1/$1"; do
    if read_value "$link/$FILE"; then
      [ "$VALUE" = "${link%%/*}" ]
      return
    fi
  done
  drop_note "${1%%-*} applied ${1#*-}"
  return 1
}

# Of a pod's containers the one with the most to tell: so each has its turn.
add_kills_job() { # number of the pod, its containers
  COUNTS=$2
  most=0
  IFS=,
  for count in $2; do
    if [ -n "$count" ]; then
      find_count "${count%%:*}"
      if [ $((KILLED - TOLD)) -gt "$most" ]; then
        most=$((KILLED - TOLD))
        job="$1 kills ${count%%:*} $KILLED $TOLD $POSTED"
      fi
    fi
  done
  IFS=$NL
  if [ "$most" != 0 ] && may_send "$1"; then JOBS=$JOBS$job$NL; fi
}

# At most one request for a pod in ten seconds, and in five minutes if it does not stop.
may_send() { # number of the pod
  earliest=0
  interval=0
  if take "$1 *" "$LIMITS"; then
    earliest=${TAKEN#* }
    earliest=${earliest% *}
    interval=${TAKEN##* }
  fi
  if [ "$UPTIME" -lt "$earliest" ]; then return 1; fi
  # A look is late by its own pause at most: that is no quiet time.
  if [ "$UPTIME" -ge $((earliest + interval + KILL_SECONDS)) ]; then
    interval=$EVENT_SECONDS
  else
    interval=$((interval * 2))
    if [ "$interval" -gt "$LONGEST_PAUSE" ]; then interval=$LONGEST_PAUSE; fi
  fi
  # The clock has whole seconds.
  LIMITS="$REST$1 $((UPTIME + interval + 1)) $interval$NL"
}

# What an Event is about. The node is for Events what the kubelet makes of it: in this namespace, with its
# name for a UID.
find_object() { # number of the pod, or "-" for the node
  OBJECT=Pod
  if [ "$1" = - ]; then
    OBJECT=Node NAMESPACE=default NAME=$EVENT_HOST CGROUP_UID=$EVENT_HOST
  else
    find_pod_beside "$1"
  fi
}

# Beside the loop, which hears of each outcome.
deliver() {
  for job in $JOBS; do
    IFS=' '
    # shellcheck disable=SC2086 # split on purpose: six words of ours
    set -- $job
    IFS=$NL
    if find_object "$1"; then
      if [ "$2" = kills ]; then send_kills "$3" "$4" "$5" "$6"; else send_note "$2" "$3"; fi
      printf 'sent\t%s\t%s\n' "$1 $2 $3 $4" "$STATUS" >&3
      # Nobody is there: the others need not try.
      if [ "$STATUS" = 000 ]; then break; fi
    fi
  done
  printf 'delivered\t%s\n' "$DELIVERY" >&3
}

send_kills() { # start of id, kills, told, posted
  name_by_id "$1"
  new=$(($2 - $3))
  processes="$new processes"
  if [ "$new" = 1 ]; then processes='1 process'; fi
  message="The kernel killed $processes of container $CONTAINER_NAME for memory, $2 in all since it started. The container kept running."
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  name_event "$1"
  if [ "$4" = 1 ]; then
    send_event PATCH "/$EVENT_NAME" application/merge-patch+json \
      "{\"count\":$2,\"lastTimestamp\":\"$now\",\"message\":\"$message\"}"
  else
    post_event Warning OomKilledProcess "$2" "$CONTAINER_NAME"
  fi
}

send_note() { # condition or "applied", name of a container, start of its id, or "-"
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  CONTAINER_NAME=$2
  if [ "$1" = applied ]; then
    send_applied "$2"
    return 0
  fi
  explain "$1"
  if [ "$OBJECT" = Node ]; then name_event "${1%%_*}-${1#*_}"; else name_event "${1%%_*}-${CGROUP_UID%%-*}-$2"; fi
  post_event Warning OomKillModeCannotApply 1 "$CONTAINER_NAME"
}

# Others were told before: the container may have ended since. The sandbox of a pod that is older than
# this agent is no container to anybody.
send_applied() { # start of a container's id
  STATUS=-
  if [ -L "0/$NUMBER-$1" ]; then mode=Single; elif [ -L "1/$NUMBER-$1" ]; then mode=Group; else return 0; fi
  if is_old_sandbox "$NUMBER-$1"; then return 0; fi
  name_by_id "$1"
  message="Container $CONTAINER_NAME has the kill mode $mode."
  name_event "applied-$1"
  post_event Normal OomKillModeApplied 1 "$CONTAINER_NAME"
}

# In one sentence, with the condition's name, under which docs/troubleshooting.md has the rest.
explain() { # condition
  case $1 in
    cgroup_v1) message='The node has cgroup v1: the kernel kills single processes there, whatever anyone wants.' ;;
    write_refused) message='The node refuses writes to memory.oom.group: SELinux, a read-only mount, or a user namespace.' ;;
    ancestor_group) message='A cgroup above the containers has memory.oom.group=1: if its limit is hit, everything in it is killed, although Single.' ;;
    systemd_oom_policy) message="The scope of container $CONTAINER_NAME has OOMPolicy=kill or stop: systemd ends all of it after any kill, although Single." ;;
    main_process_killed)
      if [ "$CONTAINER_NAME" = - ]; then
        message='Containers ended when the kernel killed processes of them for memory, although Single: probably their main processes.'
      else
        message="Container $CONTAINER_NAME ended when the kernel killed processes of it for memory, although Single: probably its main process."
      fi
      ;;
  esac
  message="$message Condition: $1"
}

# A valid name, however long the pod's is: what is cut off may leave a dot or a hyphen at the end.
name_event() { # rest of the name, from the alphabet of names
  EVENT_NAME=$NAME
  if [ ${#EVENT_NAME} -gt 150 ]; then EVENT_NAME=$(printf '%.150s' "$EVENT_NAME"); fi
  while :; do
    case $EVENT_NAME in *[.-]) EVENT_NAME=${EVENT_NAME%?} ;; *) break ;; esac
  done
  EVENT_NAME=$EVENT_NAME.${1%-}
  while :; do
    case $EVENT_NAME in *-) EVENT_NAME=${EVENT_NAME%?} ;; *) break ;; esac
  done
}

# Who the Event is about is the current pod, by the UID that `kubectl describe` asks for: a static pod's
# is the hash that its cgroup has as well. A node has no namespace.
post_event() { # type, reason, count, name of a container or "-"
  field=
  if [ "$OBJECT" = Pod ]; then field=",\"namespace\":\"$NAMESPACE\""; fi
  if [ "$4" != - ]; then field="$field,\"fieldPath\":\"spec.containers{$4}\""; fi
  send_event POST '' application/json "{\"apiVersion\":\"v1\",\"kind\":\"Event\",\
\"metadata\":{\"name\":\"$EVENT_NAME\",\"namespace\":\"$NAMESPACE\"},\
\"involvedObject\":{\"apiVersion\":\"v1\",\"kind\":\"$OBJECT\",\"name\":\"$NAME\",\
\"uid\":\"$CGROUP_UID\"$field},\
\"type\":\"$1\",\"reason\":\"$2\",\"message\":\"$message\",\"count\":$3,\
\"firstTimestamp\":\"$now\",\"lastTimestamp\":\"$now\",\
\"source\":{\"component\":\"cdk8s-oom-kill-mode\",\"host\":\"$EVENT_HOST\"},\
\"reportingComponent\":\"cdk8s-oom-kill-mode\",\"reportingInstance\":\"$EVENT_HOST\"}"
}

# Leaves the HTTP status in STATUS: 000 if there was none.
send_event() { # method, rest of the path, type of the body, body
  # If somebody kills curl, it is the shell that says so.
  { STATUS=$(request_event "$@"); } 2>/dev/null || :
  case $STATUS in [0-9][0-9][0-9]) ;; *) STATUS=000 ;; esac
}

request_event() { # the same
  call_api 30 "namespaces/$NAMESPACE/events$2" --request "$1" --header "Content-Type: $3" \
    --data-binary @/proc/self/fd/7 --output /dev/null --write-out '%{http_code}' 7<<END
$4
END
}

# The sender tells how it went.
event_sent() { # "<pod's number> <what> <start of id> <kills>", HTTP status, or "-" if there was nothing to send
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: four words of ours
  set -- "$2" $1
  IFS=$NL
  if [ "$1" = - ]; then
    drop_note "$2 $3 $4"
    return 0
  fi
  if find_pod_of "$2"; then log debug 'Event asked for' pod "$NAMESPACE/$NAME" status "$1"; fi
  restart_pause "$2"
  case $1:$3 in
    2??:kills) mark_told "$2" "$4" "$5" ;;
    404:kills | 409:kills) turn_posted "$1" "$2" "$4" || return 0 ;;
    2??:* | 409:*) drop_note "$2 $3 $4" ;;
    *)
      event_failed "$1"
      return 0
      ;;
  esac
  EVENT_PROBLEM=
}

# The Event is there, from an agent before us, or it has expired: the next request is of the other kind,
# and not before its time. Fails if that is no news.
turn_posted() { # HTTP status, number of the pod, start of the id
  turned=0
  if [ "$1" = 409 ]; then turned=1; fi
  find_pod_of "$2" || return 0
  find_kills "$NUMBER"
  find_count "$3"
  if [ "$POSTED" = "$turned" ]; then
    event_failed "$1"
    return 1
  fi
  mark_told "$2" "$3" "$TOLD" "$turned"
}

# It was to be that long between two requests, not between two decisions.
restart_pause() { # number of the pod
  read_uptime
  take "$1 *" "$LIMITS" || return 0
  LIMITS="$REST$1 $((UPTIME + ${TAKEN##* } + 1)) ${TAKEN##* }$NL"
}

mark_told() { # number of the pod, start of the id, kills, 0 if there is no Event
  find_pod_of "$1" || return 0
  find_kills "$1"
  counts=,
  IFS=,
  for count in $COUNTS; do
    IFS=$NL
    case $count in
      '') ;;
      "$2":*)
        find_count "$2"
        counts=$counts$2:$KILLED:$3:${4-1},
        ;;
      *) counts=$counts$count, ;;
    esac
  done
  IFS=$NL
  COUNTS=$counts
  save_kills
}

drop_note() { # line
  if take "$1" "$NOTES"; then NOTES=$REST; fi
}

# Said once, until it is something else.
event_failed() { # HTTP status
  if [ "$EVENT_PROBLEM" = "$1" ]; then return 0; fi
  EVENT_PROBLEM=$1
  case $1 in
    403) log warn 'Events are not allowed: the ClusterRole lacks create and patch of events; kills stay in log and metrics' status "$1" ;;
    *) log warn 'Event not sent; it is tried again later' status "$1" ;;
  esac
}

# The end of a sender may be found out before its last word is read, and then there may be another one.
events_delivered() { # number of the delivery
  if [ "$1" != "$DELIVERY" ]; then return 0; fi
  if [ -n "$SENDER" ]; then wait "$SENDER" 2>/dev/null || :; fi
  SENDER=
  if [ -n "$MORE_JOBS" ] && [ -z "$EVENT_PROBLEM" ]; then send_events; fi
}

check_sender() {
  if [ -n "$SENDER" ] && ! runs "$SENDER"; then events_delivered "$DELIVERY"; fi
}
