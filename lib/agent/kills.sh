# shellcheck shell=sh
# Processes that the kernel killed for memory in containers that kept running.

# A container that ends with a kill is empty after so many seconds. Where systemd ends it, that takes longer.
SECONDS_TO_END=1 SECONDS_TO_BE_ENDED=5

# State: what the kernel had counted at the last kill of a container, "<key> <own> <inside> <pod> <limit>": how often the
# container's own limit was hit, that of a cgroup inside it or its own, and that of its pod; and whose limit the last
# kill was about.
COUNTERS=$NL

# In the child that reports. One process reads the counters of all containers. Then it waits, so that it reports
# only containers that kept running: one that ends with all its processes has time to do so.
count_kills() {
  local item='' counted='' news='' patience=$SECONDS_TO_END
  counted=$(grep -Hs '^oom_kill [1-9]' /dev/null $(
    for item in $CONTAINERS; do item=${item#* } && printf '%s/memory.events\n' "${item%/*}"; done
  )) || :
  for item in $counted; do
    find_key "${item%/*}" || continue
    if find_line "kills/$KEY " "$RECORDS"; then read_record "$RESULT"; else COUNT=0; fi
    # The child that crun makes has the counters of its container, and a scope with "stop" is ended whatever it holds.
    case $KEY:$COUNT:$POLICIES in *x:*:* | *:"${item##* }":* | *"$NL$KEY=stop$NL"*) continue ;; esac
    case $POLICIES in *"$NL$KEY=kill$NL"*) patience=$SECONDS_TO_BE_ENDED ;; esac
    news="$news$KEY ${item##* } ${item%/*}$NL"
  done
  if [ -n "$news" ]; then sleep "$patience"; fi
  for item in $news; do
    IFS=' ' && set -- $item && IFS=$NL
    grep -qsx 'populated 1' "$3/cgroup.events" || continue
    choose_limit "$1" "$3" && printf 'K\t%s\t%s\t%s\n' "$1" "$2" "$RESULT" >&3
  done
}

# What the kernel counted of a container and whose limit was hit, by what grew since the last kill: RESULT, as in COUNTERS.
choose_limit() { # key, directory
  local key=$1 limit=node
  set -- $(grep -hs '^oom ' "$2/memory.events.local" "$2/memory.events" "${2%/*}/memory.events.local" "$2/container/memory.events.local")
  # Kernels before 5.2 do not count for each cgroup alone.
  RESULT='0 0 0 unknown'
  if [ $# -lt 3 ]; then return 0; fi
  # crun gives the limit to its child as well, which reaches it first. Others have none.
  set -- "$@" 'oom 0'
  find_line "$key " "$COUNTERS" || RESULT="$key 0 0 0 -"
  IFS=' ' && set -- $((${1#* } + ${4#* })) "${2#* }" "${3#* }" $RESULT && IFS=$NL
  if [ "$3" -gt "$7" ]; then limit=pod; fi
  if [ "$2" -gt "$6" ]; then limit=inside; fi
  if [ "$1" -gt "$5" ]; then limit=container; fi
  RESULT="$1 $2 $3 $limit"
}

# The agent does not report kills from before its first look, nor a limit of the pod that was reached before this
# container began.
remember_kills() { # directory of a container of the current pod, with this KEY
  local name='' count='' kills=0 pod=0
  while IFS=' ' read -r name count; do if [ "$name" = oom_kill ]; then kills=$count; fi; done 2>&6 <"$1/memory.events" || :
  without_line "kills/$KEY " "$RECORDS" && RECORDS=$RESULT
  while [ "$name" != oom ] && IFS=' ' read -r name count; do pod=$count; done 2>&6 <"${1%/*}/memory.events.local" || :
  RESULT="0 0 $pod -"
  if [ "$kills" != 0 ]; then add_record "kills/$KEY" "$kills" "$kills" && choose_limit "$KEY" "$1"; fi
  COUNTERS="$COUNTERS$KEY $RESULT$NL"
}

# In the loop.
kills_counted() { # key, kills, own, inside, pod, limit: separated by spaces from the third on
  find_container "$1" || return 0
  find_line "kills/$1 " "$RECORDS" || add_record "kills/$1" 0 0
  find_line "kills/$1 " "$RECORDS" && read_record "$RESULT"
  if [ "$COUNT" = "$2" ]; then return 0; fi
  log warn 'processes killed for memory; the container kept running' pod "$NAMESPACE/$NAME" \
    container "$CONTAINER" kills "$(($2 - COUNT))" total "$2" limit "${3##* }"
  without_line "$1 " "$COUNTERS" && COUNTERS="$RESULT$1 $3$NL"
  without_line "kills/$1 " "$RECORDS" &&
    RECORDS="$RESULT$WHAT/$WHOSE $POD $NAMESPACE $NAME $2 $TOLD $EARLIEST $LAST_PAUSE $SINCE$NL"
  survived_kills "$2"
}

# The Event about the kills of the current record, whose container was explained: MESSAGE.
explain_kills() {
  local news=$((COUNT - TOLD)) processes=processes
  if [ "$news" = 1 ]; then processes=process; fi
  MESSAGE="The kernel killed $news $processes of container $CONTAINER for memory, $COUNT in all since it started. The container kept running."
  find_line "$WHOSE " "$COUNTERS" || RESULT=unknown
  case ${RESULT##* } in
    container) MESSAGE="$MESSAGE The container had reached its memory limit." ;;
    inside) MESSAGE="$MESSAGE A cgroup inside the container had reached its limit." ;;
    pod) MESSAGE="$MESSAGE The pod had reached its memory limit, which is the sum of its containers' limits unless it has one of its own." ;;
    node) MESSAGE="$MESSAGE Neither the container nor its pod had reached a memory limit: the node, or a cgroup above the pod, was out of memory." ;;
  esac
}
