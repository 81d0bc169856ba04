# shellcheck shell=sh
# Which processes the kernel killed for memory: the counters of the opted-in pods and their containers.
#
# The kills of a pod are in the counter of its own cgroup, those of its ended containers included; the
# counters of its containers tell whose they are. kill_watch.sh says when to look.

# One line for each pod with kills: its number, the kills and the group kills of its cgroup that are
# accounted for, and its containers as "," or ",<start of the id>:<kills>:<kills told in an Event>:<1 if
# there is an Event>,". The same without the number is in ../kills/<uid>, for an agent after us.
KILLS=
# Group containers with kills that are not accounted for, since it may be that they are ending: "<key>
# <uptime when that was found>" a line.
UNSURE=
# The UIDs of pods that left since what is known of such pods was thrown away.
POD_LEFT=

# In the processes' words: how many were killed one by one, and how often a group was.
read_events() { # cgroup
  OOM_KILLS=
  GROUP_KILLS=0
  {
    while IFS=' ' read -r word count; do
      case $word in
        oom_kill) OOM_KILLS=$count ;;
        oom_group_kill) GROUP_KILLS=$count ;;
      esac
    done <"$1/memory.events"
  } 2>&6 || :
  case $OOM_KILLS in '' | *[!0-9]*) return 1 ;; esac
}

# A pod may have kills that are not accounted for.
check_kills() { # its number, and whatever follows it; how many kills there are, if that is known
  find_kills "${1%%-*}"
  if [ -n "${2-}" ] && [ "$2" -le "$KNOWN" ]; then return 0; fi
  if read_events "pod/${1%%-*}" && [ "$OOM_KILLS" -gt "$KNOWN" ] && find_pod_of "$1"; then account; fi
}

# What is known of the kills in a pod.
find_kills() { # number of the pod
  KNOWN=0 KNOWN_GROUP=0 COUNTS=,
  for record in $KILLS; do
    case $record in "$1 "*) split_kills "${record#* }" ;; esac
  done
}

split_kills() { # record without the number
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: three words of ours
  set -- $1
  IFS=$NL
  KNOWN=$1 KNOWN_GROUP=$2 COUNTS=$3
}

# Keeps what find_kills finds from now on, for the current pod.
save_kills() {
  drop_kills
  KILLS="$KILLS$NUMBER $KNOWN $KNOWN_GROUP $COUNTS$NL"
  { printf '%s %s %s\n' "$KNOWN" "$KNOWN_GROUP" "$COUNTS" 1<>"../kills/$CGROUP_UID"; } 2>/dev/null || :
}

drop_kills() {
  if take "$NUMBER *" "$KILLS"; then KILLS=$REST; fi
}

# What is known of the kills in a container of the pod that find_kills looked for.
find_count() { # start of the id
  KILLED=0 TOLD=0 POSTED=0
  IFS=,
  for one in $COUNTS; do
    case $one in "$1":*)
      IFS=:
      # shellcheck disable=SC2086 # split on purpose: four words of ours
      set -- $one
      KILLED=$2 TOLD=$3 POSTED=$4
      ;;
    esac
  done
  IFS=$NL
}

# The current pod has more kills than are known: OOM_KILLS, GROUP_KILLS. Whose are they?
account() {
  kills_found
  pod_kills=$OOM_KILLS
  pod_group_kills=$GROUP_KILLS
  counts=,
  sum=0
  unsure=0
  ended=
  for link in 0/"$NUMBER"-* 1/"$NUMBER"-*; do
    # The kills of crun's inner level are in the outer one's counter.
    if ! is_inner "$link"; then account_container "$link"; fi
  done
  keep_untold
  # The pod's counter was read before those of its containers.
  rest=$((pod_kills - KNOWN - sum - unsure))
  if [ "$rest" -lt 0 ]; then rest=0; fi
  COUNTS=$counts
  KNOWN=$((KNOWN + sum + rest))
  if [ "$rest" -gt 0 ]; then account_rest; fi
  KNOWN_GROUP=$pod_group_kills
  save_kills
}

account_container() { # link
  find_count "${1#*-}"
  if has_ended "$1"; then
    case $1 in
      0/*) ended="$ended${1#*-}$NL" ;;
      *)
        ended="${ended}group$NL"
        if take "${1#1/} *" "$UNSURE"; then UNSURE=$REST; fi
        ;;
    esac
    return 0
  fi
  read_events "$1" || OOM_KILLS=$KILLED
  if [ "$OOM_KILLS" -gt "$KILLED" ]; then
    if may_be_ending "$1"; then
      unsure=$((unsure + OOM_KILLS - KILLED))
    else
      sum=$((sum + OOM_KILLS - KILLED))
      name_by_id "${1#*-}"
      log warn 'processes killed for memory; the container kept running' pod "$NAMESPACE/$NAME" \
        container "$CONTAINER_NAME" kills $((OOM_KILLS - KILLED)) total "$OOM_KILLS"
      KILLED=$OOM_KILLS
      if [ "$EVENTS" != yes ]; then TOLD=$KILLED; fi
    fi
  fi
  if [ "$KILLED" != 0 ]; then counts="$counts${1#*-}:$KILLED:$TOLD:$POSTED,"; fi
}

# The processes of a Group container do not end all at once: only one that still runs after a pause did
# survive, since what was full was a cgroup inside it, say.
may_be_ending() { # link
  case $1 in 0/*) return 1 ;; esac
  read_uptime
  if ! take "${1#1/} *" "$UNSURE"; then
    UNSURE="$UNSURE${1#1/} $UPTIME$NL"
    return 0
  fi
  if [ $((UPTIME - ${TAKEN#* })) -lt "$KILL_SECONDS" ]; then return 0; fi
  UNSURE=$REST
  return 1
}

# Containers that ended since are remembered until their kills are told: the last twenty of a pod, for
# Events may be refused for weeks.
keep_untold() {
  remembered=0
  IFS=,
  for count in $COUNTS; do
    IFS=$NL
    case $counts in
      *",${count%%:*}:"*) ;;
      *)
        find_count "${count%%:*}"
        if [ -n "$count" ] && [ "$KILLED" != "$TOLD" ] && [ "$remembered" -lt 20 ]; then
          counts=$counts$count,
          remembered=$((remembered + 1))
        fi
        ;;
    esac
  done
  IFS=$NL
}

# Without its first process a container has none. Its cgroup may stay for a moment.
has_ended() { # cgroup
  if ! [ -d "$1" ]; then return 0; fi
  populated=1
  {
    while IFS=' ' read -r word value; do
      if [ "$word" = populated ]; then populated=$value; fi
    done <"$1/cgroup.events"
  } 2>&6 || :
  [ "$populated" = 0 ]
}

# Kills in no container that runs: a container ended with them. If nobody asked the kernel to kill all
# of it, that was its first process, or one without which the first did not want to go on.
account_rest() {
  if [ -z "$ended" ] || [ "$pod_group_kills" != "$KNOWN_GROUP" ]; then return 0; fi
  case $ended in
    *group*) return 0 ;;
    *"$NL"?*) CONTAINER_NAME= ;;
    *) name_by_id "${ended%"$NL"}" ;;
  esac
  main_process_killed "$rest"
}

# The name of a container of the current pod, as the kubelet's link to its log has it, or the start of
# its id.
name_by_id() { # start of the id
  CONTAINER_NAME=$1
  for log_file in "logs/${NAME}_${NAMESPACE}_"*"-$1"*.log; do
    log_file=${log_file#"logs/${NAME}_${NAMESPACE}_"}
    log_file=${log_file%.log}
    case ${log_file%-*} in
      '' | *[!a-z0-9-]*) ;;
      *) case ${log_file##*-} in "$1"*) CONTAINER_NAME=${log_file%-*} ;; esac ;;
    esac
  done
}

# The current pod's cgroup was found. What an agent before us knew of its kills is still true; what was
# killed before anyone looked is nobody's news.
remember_kills() {
  read_events "pod/$NUMBER" || return 0
  kills_unwatched
  file=../kills/$CGROUP_UID
  known=
  if [ -e "$file" ]; then { IFS= read -r known <"$file"; } 2>/dev/null || :; fi
  case $known in
    [0-9]*' '[0-9]*' ,'*)
      case $known in *[!0-9a-f:,\ ]*) ;; *) split_kills "$known" ;; esac
      # What was not told is found once more. A cgroup that was made anew begins with nothing.
      if [ "$OOM_KILLS" -ge "$KNOWN" ]; then
        forget_untold
        save_kills
        return 0
      fi
      ;;
  esac
  KNOWN=$OOM_KILLS KNOWN_GROUP=$GROUP_KILLS COUNTS=,
  if [ "$KNOWN" = 0 ] || [ -e "$file" ]; then
    drop_kills
    # Not ":", which ends the shell if there is no room.
    { printf '' >"$file"; } 2>/dev/null || :
    return 0
  fi
  for link in 0/"$NUMBER"-* 1/"$NUMBER"-*; do
    if ! is_inner "$link" && read_events "$link" && [ "$OOM_KILLS" != 0 ]; then
      COUNTS=$COUNTS${link#*-}:$OOM_KILLS:$OOM_KILLS:0,
    fi
  done
  save_kills
}

forget_untold() {
  counts=,
  IFS=,
  for count in $COUNTS; do
    IFS=$NL
    if [ -n "$count" ]; then
      find_count "${count%%:*}"
      KNOWN=$((KNOWN - KILLED + TOLD))
      counts=$counts${count%%:*}:$TOLD:$TOLD:$POSTED,
    fi
  done
  IFS=$NL
  COUNTS=$counts
}

# The current pod is none of our business any more.
pod_left() {
  POD_LEFT=$POD_LEFT$CGROUP_UID$NL
}

# Pods that left: what is known of them, in memory and in files.
forget_pods() {
  if [ -z "$POD_LEFT" ]; then return 0; fi
  set --
  for uid in $POD_LEFT; do
    case $PODS in *" $uid "*) ;; *) set -- "$@" "../kills/$uid" ;; esac
  done
  if [ $# -gt 0 ]; then rm -f "$@" || :; fi
  POD_LEFT=
  keep_lines_of_pods "$KILLS"
  KILLS=$LINES
  keep_lines_of_pods "$UNSURE"
  UNSURE=$LINES
  keep_lines_of_pods "$LIMITS"
  LIMITS=$LINES
  keep_lines_of_pods "$NOTES"
  NOTES=$LINES
  keep_lines_of_pods "$NOTED"
  NOTED=$NL$LINES
  keep_lines_of_pods "$CONDITIONS"
  CONDITIONS=$LINES
}

# Lines begin with the number of a pod, or with "-". A pod that is known has a record.
keep_lines_of_pods() { # lines
  LINES=
  for line in $1; do
    if [ "${line%% *}" = - ] || [ -s "record/${line%% *}" ] || find_record "$line"; then
      LINES=$LINES$line$NL
    fi
  done
}

# A list is complete: files of pods that left while no agent ran.
forget_earlier_kills() {
  set --
  for file in ../kills/*; do
    case $PODS in *" ${file##*/} "*) ;; *) set -- "$@" "$file" ;; esac
  done
  if [ $# -gt 0 ]; then rm -f "$@" || :; fi
}
