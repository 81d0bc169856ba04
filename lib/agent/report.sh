# shellcheck shell=sh
# What users are told: processes that the kernel killed in containers that kept running, and what keeps a
# mode from working. Once in the log, in one Event each, which changes when there is more to tell, and in the
# metrics.

# "<what>/<whose> <uid> <namespace> <name> <count> <told> <due> <pause> <since>" a line, where what is "kills"
# or a condition, a heading of docs/troubleshooting.md; whose is the key of a container, the name of one, "pod"
# or "node"; told is how much of the count an Event has told, due the uptime before which there is none, pause
# the seconds until then, and since the time of the first. For the node the uid is its name.
RECORDS=$NL
# The child that counts and sends, and how the last Event failed.
REPORTER=
EVENT_PROBLEM=

read_record() { # record
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: nine words of ours
  set -- $1
  IFS=$NL
  WHAT=${1%%/*} WHOSE=${1#*/} POD=$2 NAMESPACE=$3 NAME=$4 COUNT=$5 TOLD=$6 EARLIEST=$7 LAST_PAUSE=$8 SINCE=$9
}

add_record() { # what/whose, of the current pod; count; how much of it was told
  RECORDS="$RECORDS$1 $POD $NAMESPACE $NAME $2 $3 0 0 -$NL"
}

# Whether the current pod has a condition: said once, until it has ended.
condition() { # yes or nothing, condition/whose
  if take "$2 $POD " "$RECORDS"; then
    if [ -n "$1" ]; then return 0; fi
    RECORDS=$REST
    log info 'works again' condition "${2%%/*}" pod "$NAMESPACE/$NAME"
  elif [ -n "$1" ]; then
    add_record "$2" 1 0
    explain "${2%%/*}" "${2#*/}"
    log warn "$MESSAGE" condition "${2%%/*}" pod "$NAMESPACE/$NAME" container "$CONTAINER"
  fi
}

condition_of() { # uid, namespace, name, yes or nothing, condition/whose
  POD=$1 NAMESPACE=$2 NAME=$3
  condition "$4" "$5"
}

# For Events a node is in this namespace, and its name is its UID.
node_condition() { # yes or nothing, condition
  condition_of "$NODE_NAME" default "$NODE_NAME" "$1" "$2/node"
}

end_conditions_of() { # uid
  former=$RECORDS
  RECORDS=$NL
  for entry in $former; do
    case $entry in
      *" $1 "*) ;;
      *) RECORDS=$RECORDS$entry$NL ;;
    esac
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
    no_inotify) MESSAGE='There is no inotify to be had: everything is looked at every second.' ;;
    write_refused) MESSAGE='The node refuses writes to memory.oom.group: SELinux, a read-only mount, or a user namespace.' ;;
    ancestor_group) MESSAGE='A cgroup above the containers has memory.oom.group=1: if its limit is hit, everything in it is killed, although Single.' ;;
    systemd_oom_policy) MESSAGE="The scope of container $CONTAINER has OOMPolicy=kill or stop: systemd ends all of it after any kill, although Single." ;;
    invalid_mode) MESSAGE="The label $LABEL_PREFIX/mode is neither Single nor Group: the pod is not opted in." ;;
    invalid_override) MESSAGE="The annotation $LABEL_PREFIX/containers has an entry that is not <container>=Single or <container>=Group; such entries are ignored." ;;
    unknown_container) MESSAGE="The annotation $LABEL_PREFIX/containers names the container $CONTAINER, and none of that name has started so far." ;;
  esac
}

# Of the cgroups from the container's up to the full one, the highest with 1 decides.
check_ancestors() { # of the current pod
  found=
  case $MODE$OVERRIDES in 0* | *=0,*)
    if find_pod_directory "$POD"; then above=$POD_DIRECTORY; else above=; fi
    while [ -n "$above" ] && read_value "$above/$FILE"; do
      if [ "$VALUE" = 1 ]; then found=yes; fi
      above=$above/..
    done
    ;;
  esac
  condition "$found" ancestor_group/pod
}

# At each tick, beside the loop: what takes long. The loop hears of the results through its queue.
report() {
  if [ -n "$REPORTER" ]; then
    if runs "$REPORTER"; then return 0; fi
    wait "$REPORTER" || :
  fi
  {
    count_kills
    find_policies
    send_events
    write_metrics
  } &
  REPORTER=$!
}

# One process reads all counters. A container that is about to end with all its processes has a second to do
# so: what is told is that it kept running.
count_kills() {
  files=
  for entry in $CONTAINERS; do
    case $entry in *c' '*) ;; *)
      entry=${entry##* }
      files=$files${entry%/*}/memory.events$NL
      ;;
    esac
  done
  # shellcheck disable=SC2086 # split on purpose: there is no wildcard in these paths
  counted=$(grep -Hs '^oom_kill [1-9]' /dev/null $files) || return 0
  news=
  for entry in $counted; do
    if find_id "${entry%/*}" && ! knows_kills "${entry##* }"; then news="$news$KEY ${entry##* } ${entry%/*}$NL"; fi
  done
  if [ -n "$news" ]; then sleep 1; fi
  for entry in $news; do
    populated=
    { read -r populated <"${entry##* }/cgroup.events"; } 2>&6 || :
    if [ "$populated" = 'populated 1' ]; then
      entry=${entry% *}
      printf 'kills\t%s\t%s\n' "${entry% *}" "${entry#* }" >&3
    fi
  done
}

# Whether that many kills of the container with this KEY are known.
knows_kills() { # count
  take "kills/$KEY " "$RECORDS" && read_record "$LINE" && [ "$COUNT" = "$1" ]
}

# What the kernel killed before we looked for the first time is nobody's news.
remember_kills() { # directory of a container of the current pod, with this KEY
  killed=0
  { while IFS=' ' read -r key count; do
    if [ "$key" = oom_kill ]; then killed=$count; fi
  done <"$1/memory.events"; } 2>&6 || :
  if [ "$killed" != 0 ]; then add_record "kills/$KEY" "$killed" "$killed"; fi
}

kills_counted() { # key, count
  if ! find_container "$1"; then return 0; fi
  known=0
  if take "kills/$1 " "$RECORDS"; then
    read_record "$LINE"
    known=$COUNT
    RECORDS="$REST$WHAT/$WHOSE $POD $NAMESPACE $NAME $2 $TOLD $EARLIEST $LAST_PAUSE $SINCE$NL"
  else
    add_record "kills/$1" "$2" 0
  fi
  log warn 'processes killed for memory; the container kept running' pod "$NAMESPACE/$NAME" \
    container "$CONTAINER" kills "$(($2 - known))" total "$2"
}

# The OOMPolicy= of containers' scopes: the last assignment in a unit and its drop-ins counts.
find_policies() {
  if [ -z "$SYSTEMD_TRANSIENT" ]; then return 0; fi
  units=
  for entry in $CONTAINERS; do
    entry=${entry%/"$FILE"}
    case $entry in
      *.scope) units="$units$SYSTEMD_TRANSIENT/${entry##*/}$NL$SYSTEMD_TRANSIENT/${entry##*/}.d/*.conf$NL" ;;
    esac
  done
  # shellcheck disable=SC2086 # split on purpose, with the wildcards in it
  found=$(grep -Hs '^OOMPolicy=' /dev/null $units) || return 0
  policies=$NL
  for entry in $found; do
    unit=${entry%%:*}
    find_id "${unit%.d/*}" || continue
    if take "$KEY " "$policies"; then policies=$REST; fi
    policies="$policies$KEY ${entry##*=}$NL"
  done
  for entry in $policies; do printf 'policy\t%s\t%s\n' "${entry% *}" "${entry#* }" >&3; done
}

policy_found() { # key, policy
  find_container "$1" || return 0
  case $MODES$2 in
    *"$NL$1=0$NL"*kill | *"$NL$1=0$NL"*stop) condition yes "systemd_oom_policy/$1" ;;
    *) condition '' "systemd_oom_policy/$1" ;;
  esac
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
      answer=${answer##*ended"$TAB"}
      printf 'sent\t%s\t%s\t%s\t%s\n' "$WHAT/$WHOSE $POD" "$COUNT" "$SINCE" "$answer" >&3
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
      new=$((COUNT - TOLD))
      processes="$new processes"
      if [ "$new" = 1 ]; then processes='1 process'; fi
      MESSAGE="The kernel killed $processes of container $CONTAINER for memory, $COUNT in all since it started. The container kept running."
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

# Told or not, the next one about the same waits: ten seconds, twice as long each time it goes on, at most
# five minutes.
event_sent() { # "<what>/<whose> <uid>"; count, since, and how it went, separated by tabs
  if ! take "$1 " "$RECORDS"; then return 0; fi
  read_record "$LINE"
  IFS=$TAB
  # shellcheck disable=SC2086 # split on purpose: our own words, and what api.awk made harmless
  set -- "$1" $2
  IFS=$NL
  if [ "$UPTIME" -gt $((EARLIEST + LAST_PAUSE + TICK_SECONDS)) ] || [ "$LAST_PAUSE" = 0 ]; then
    LAST_PAUSE=10
  else
    LAST_PAUSE=$((LAST_PAUSE < 150 ? LAST_PAUSE * 2 : 300))
  fi
  case $4 in
    2??) TOLD=$2 EVENT_PROBLEM= ;;
    *)
      if [ "$4 $6" != "$EVENT_PROBLEM" ]; then log_answer 'Event not sent; it is tried again later' "$4" "$5$TAB$6$TAB$7"; fi
      EVENT_PROBLEM="$4 $6"
      ;;
  esac
  RECORDS="$REST$WHAT/$WHOSE $POD $NAMESPACE $NAME $COUNT $TOLD $((UPTIME + LAST_PAUSE)) $LAST_PAUSE $3$NL"
}
