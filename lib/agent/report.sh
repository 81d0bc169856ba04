# shellcheck shell=sh
# What users are told: processes that the kernel killed in containers that kept running, and what keeps a mode from
# working. Once in the log, in one Event each, which changes when there is more to tell, and in the metrics.

# "<what>/<whose> <uid> <namespace> <name> <count> <told> <due> <pause> <since>": what is "kills" or a condition, a
# heading of docs/troubleshooting.md; whose is the key of a container, the name of one, "pod" or "node"; told is how
# much of the count an Event has told, due the uptime of the next at the earliest, pause the seconds until then, and
# since the time of the first. And the child that counts and sends, and how the last Event failed.
RECORDS=$NL REPORTER='' EVENT_PROBLEM=''

read_record() { # record
  # shellcheck disable=SC2086 # split on purpose: nine words of ours
  IFS=' ' && set -- $1 && IFS=$NL
  WHAT=${1%%/*} WHOSE=${1#*/} POD=$2 NAMESPACE=$3 NAME=$4 COUNT=$5 TOLD=$6 EARLIEST=$7 LAST_PAUSE=$8 SINCE=$9
}

add_record() { # what/whose, of the current pod; count; how much of it was told
  RECORDS="$RECORDS$1 $POD $NAMESPACE $NAME $2 $3 0 0 -$NL"
}

# Whether the current pod has a condition: said once, until it has ended.
condition() { # yes or nothing, condition/whose
  level=warn kind=pod whose=$NAMESPACE/$NAME
  case $2 in */node) level=error kind=node whose=$NAME ;; esac
  if take "$2 $POD " "$RECORDS"; then
    if [ -n "$1" ]; then return 0; fi
    RECORDS=$REST
    log info 'works again' condition "${2%%/*}" "$kind" "$whose"
  elif [ -n "$1" ]; then
    add_record "$2" 1 0
    explain "${2%%/*}" "${2#*/}"
    log "$level" "$MESSAGE" condition "${2%%/*}" "$kind" "$whose" container "$CONTAINER"
  fi
}

# For Events a node is in this namespace, and its name is its UID.
node_condition() { # yes or nothing, condition
  POD=$NODE_NAME NAMESPACE=default NAME=$NODE_NAME
  condition "$1" "$2/node"
}

# Kills are forgotten with their container; and a label may stay as invalid as it was.
end_conditions() { # uid, the beginning of those that stay
  former=$RECORDS RECORDS=$NL
  for entry in $former; do
    case $entry in
      kills/* | "${2:-kills}"*) ;;
      *" $1 "*) continue ;;
    esac
    RECORDS=$RECORDS$entry$NL
  done
}

# In a sentence: MESSAGE, and the CONTAINER, or "-".
explain() { # condition or "kills", whose
  CONTAINER=-
  case $1 in
    unknown_container) CONTAINER=$2 ;;
    kills | write_refused | systemd_oom_policy)
      KEY=$2
      name_container
      ;;
  esac
  case $1 in
    cgroup_v1) MESSAGE='The node has cgroup v1: the kernel kills single processes there, whatever anyone wants.' ;;
    cgroup_not_found) MESSAGE="The agent's own container is not in its pod's cgroup, so no container can be found: do the kubelet and the runtime have the same cgroup driver?" ;;
    no_inotify) MESSAGE="There is no inotify to be had ($COMPLAINT): everything is looked at every second." ;;
    write_refused) MESSAGE='The node refuses writes to memory.oom.group: SELinux, a read-only mount, or a user namespace.' ;;
    ancestor_group) MESSAGE='A cgroup above the containers has memory.oom.group=1: if its limit is hit, everything in it is killed, although Single.' ;;
    systemd_oom_policy) MESSAGE="The scope of container $CONTAINER has OOMPolicy=kill or stop: systemd ends all of it after any kill, although Single." ;;
    invalid_mode) MESSAGE="The label $LABEL_PREFIX/mode is neither Single nor Group: the pod is not opted in." ;;
    invalid_override) MESSAGE="The annotation $LABEL_PREFIX/containers has an entry that is not <container>=Single or <container>=Group; such entries are ignored." ;;
    unknown_container) MESSAGE="The annotation $LABEL_PREFIX/containers names the container $CONTAINER, and none of that name has started so far." ;;
  esac
}

# Of the cgroups from the container's up to the full one, the highest with 1 decides.
check_ancestors() { # of the current pod, whose directory is POD_DIRECTORY
  if ! [ -d "$POD_DIRECTORY" ]; then return 0; fi
  found=
  case $MODE$OVERRIDES in 0* | *=0,*)
    above=$POD_DIRECTORY
    while read_value "$above/$FILE"; do
      if [ "$VALUE" = 1 ]; then found=yes; fi
      above=$above/..
    done
    ;;
  esac
  condition "$found" ancestor_group/pod
}

# With OOMPolicy=kill or stop systemd ends all of a scope after any kill. The last assignment, in its drop-ins too, counts.
check_policy() { # file of a container of the current pod, with this KEY
  unit=${1%/"$FILE"}
  case $SYSTEMD_TRANSIENT:$unit in ?*:*.scope) ;; *) return 0 ;; esac
  unit=$SYSTEMD_TRANSIENT/${unit##*/}
  policy=
  for part in "$unit" "$unit.d"/*.conf; do
    while read -r setting; do
      case $setting in OOMPolicy=*) policy=${setting#*=} ;; esac
    done 2>&6 <"$part" || :
  done
  case $MODES:$policy in
    *"$NL$KEY=0$NL"*:kill | *"$NL$KEY=0$NL"*:stop) condition yes "systemd_oom_policy/$KEY" ;;
    *) condition '' "systemd_oom_policy/$KEY" ;;
  esac
}

# At each tick, beside the loop: what takes long. The loop hears of the results through its queue.
report() {
  if [ -n "$REPORTER" ]; then
    if runs "$REPORTER"; then return 0; fi
    wait "$REPORTER" 2>&6 || :
  fi
  {
    count_kills
    send_events
    write_metrics
  } &
  REPORTER=$!
}

# One process reads all counters. A container that is about to end with all its processes has a second to do so: what
# is told is that it kept running.
count_kills() {
  # shellcheck disable=SC2046,SC2153 # split on purpose: there is no wildcard in these paths; see containers.sh
  counted=$(grep -Hs '^oom_kill [1-9]' /dev/null $(
    for item in $CONTAINERS; do
      item=${item#* }
      printf '%s/memory.events\n' "${item%/*}"
    done
  )) || :
  news=
  for item in $counted; do
    find_id "${item%/*}" || continue
    if look_up "kills/$KEY " "$RECORDS"; then read_record "$LINE"; else COUNT=0; fi
    case $KEY:$COUNT in *x:* | *:"${item##* }") ;; *) news="$news$KEY ${item##* } ${item%/*}$NL" ;; esac
  done
  if [ -n "$news" ]; then sleep 1; fi
  for item in $news; do
    # shellcheck disable=SC2086 # split on purpose: three words of ours
    IFS=' ' && set -- $item && IFS=$NL
    if grep -qsx 'populated 1' "$3/cgroup.events"; then printf 'K\t%s\t%s\n' "$1" "$2" >&3; fi
  done
}

# What the kernel killed before we looked for the first time is nobody's news.
remember_kills() { # directory of a container of the current pod, with this KEY
  killed=0
  while IFS=' ' read -r key count; do
    if [ "$key" = oom_kill ]; then killed=$count; fi
  done 2>&6 <"$1/memory.events" || :
  if take "kills/$KEY " "$RECORDS"; then RECORDS=$REST; fi
  if [ "$killed" != 0 ]; then add_record "kills/$KEY" "$killed" "$killed"; fi
}

kills_counted() { # key, count
  find_container "$1" || return 0
  if ! look_up "kills/$1 " "$RECORDS"; then add_record "kills/$1" 0 0; fi
  take "kills/$1 " "$RECORDS" && read_record "$LINE"
  if [ "$COUNT" = "$2" ]; then return 0; fi
  log warn 'processes killed for memory; the container kept running' pod "$NAMESPACE/$NAME" \
    container "$CONTAINER" kills "$(($2 - COUNT))" total "$2"
  RECORDS="$REST$WHAT/$WHOSE $POD $NAMESPACE $NAME $2 $TOLD $EARLIEST $LAST_PAUSE $SINCE$NL"
}

# One request after the other, for what was not told yet and may be told again.
send_events() {
  if [ "$EVENTS" != yes ]; then return 0; fi
  for record in $RECORDS; do
    read_record "$record"
    if [ "$COUNT" -gt "$TOLD" ] && [ "$UPTIME" -ge "$EARLIEST" ]; then
      now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
      if [ "$SINCE" = - ]; then SINCE=$now; fi
      answer=$(send_event | awk -f "$HERE/api.awk")
      answer=${answer##*E"$TAB"}
      printf 'S\t%s\t%s\t%s\t%s\n' "$WHAT/$WHOSE $POD" "$COUNT" "$SINCE" "$answer" >&3
      # Nobody is there: the others need not try.
      case $answer in 000*) return 0 ;; esac
    fi
  done
}

# Server-side apply makes the Event or changes it, whichever it takes.
send_event() { # of the record that was read
  explain "$WHAT" "$WHOSE"
  reason=OomKillModeCannotApply kind=Pod field=
  case $WHAT in
    kills)
      reason=OomKilledProcess
      processes=processes
      if [ $((COUNT - TOLD)) = 1 ]; then processes=process; fi
      MESSAGE="The kernel killed $((COUNT - TOLD)) $processes of container $CONTAINER for memory, $COUNT in all since it started. The container kept running."
      ;;
    *) MESSAGE="$MESSAGE Condition: $WHAT" ;;
  esac
  if [ "$CONTAINER" != - ]; then field=",\"fieldPath\":\"spec.containers{$CONTAINER}\""; fi
  if [ "$WHOSE" = node ]; then kind=Node; fi
  # shellcheck disable=SC3060 # busybox ash
  event=oom-kill-mode.$POD.${WHAT//_/-}.$WHOSE
  call_api 30 "namespaces/$NAMESPACE/events/$event?fieldManager=cdk8s-oom-kill-mode&force=true" \
    --request PATCH --header 'Content-Type: application/apply-patch+yaml' --header 'Expect:' \
    --data-binary @/proc/self/fd/7 7<<EVENT
{"apiVersion":"v1","kind":"Event","metadata":{"name":"$event","namespace":"$NAMESPACE"},
"involvedObject":{"apiVersion":"v1","kind":"$kind","name":"$NAME","namespace":"$NAMESPACE","uid":"$POD"$field},
"type":"Warning","reason":"$reason","message":"$MESSAGE","count":$COUNT,"firstTimestamp":"$SINCE","lastTimestamp":"$now",
"source":{"component":"cdk8s-oom-kill-mode","host":"$NODE_NAME"},"reportingComponent":"cdk8s-oom-kill-mode","reportingInstance":"$NODE_NAME"}
EVENT
}

# Told or not, the next one about the same waits: ten seconds, then twice as long each time, up to five minutes.
event_sent() { # "<what>/<whose> <uid>"; count, since, and how it went, separated by tabs
  if ! take "$1 " "$RECORDS"; then return 0; fi
  read_record "$LINE"
  # shellcheck disable=SC2086 # split on purpose: our own words, and what api.awk made harmless
  IFS=$TAB && set -- "$1" $2 && IFS=$NL
  if [ "$UPTIME" -gt $((EARLIEST + LAST_PAUSE + TICK_SECONDS)) ] || [ "$LAST_PAUSE" = 0 ]; then
    LAST_PAUSE=10
  else
    LAST_PAUSE=$((LAST_PAUSE < 150 ? LAST_PAUSE * 2 : 300))
  fi
  case $4:$EVENT_PROBLEM in
    2??:*) TOLD=$2 EVENT_PROBLEM='' ;;
    *:"$4 $6") ;;
    *)
      EVENT_PROBLEM="$4 $6"
      log warn 'Event not sent; it is tried again later' status "$4" curl "$5" reason "$6" message "$7"
      ;;
  esac
  RECORDS="$REST$WHAT/$WHOSE $POD $NAMESPACE $NAME $COUNT $TOLD $((UPTIME + LAST_PAUSE)) $LAST_PAUSE $3$NL"
}
