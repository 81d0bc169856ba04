# shellcheck shell=sh
# Which container gets which value, and the write.

# MOST_REPAIRS: more repairs of one file within a second make it contested. Faster repairs would help nobody, and each
# write wakes the loop, which has other containers to watch.
# OVERRIDE_RESYNCS: an override of a name that no container has had for so many resyncs is likely to be misspelt.
# MOST_NAME_CHARACTERS: the kubelet makes the name of a container's log <pod>_<namespace>_<container>-<id>.log, and cuts
# what is before ".log" after 251 characters. The key is the first 12 of the id: the three names may have so many
# characters together.
# LISTS_OF_CONTAINERS: so many lists have lines about containers; see forget_containers.
MOST_REPAIRS=50 OVERRIDE_RESYNCS=5 MOST_NAME_CHARACTERS=236 LISTS_OF_CONTAINERS=7

# State: the containers, "<key> <file>"; their modes, "<key>=<0 or 1>", in another list because each event searches it;
# those that the agent wrote to, "<key>".
CONTAINERS=$NL MODES=$NL WRITTEN=$NL
# State: directories of pods that are left for the present resync, and when it began.
TO_SCAN='' SCANNED=0
# State: the keys of containers that had ended at the last resync, and in how many of the lists they are forgotten.
GONE=$NL FORGOTTEN=$LISTS_OF_CONTAINERS
# State: how often containers were repaired in this second, "<key>=<count>", and which second that is; the containers whose
# file is contested, "<key> <file>": those found since the last resync, and those found in the period before it.
REPAIRS=$NL REPAIRS_AT=0 CONTESTED=$NL FORMER_CONTESTED=$NL

# Results: the current container, see agent.sh.
KEY='' CONTAINER=- CONTAINER_FILE=''

# Makes a container and its pod the current ones. Fails if the pod is not opted in.
describe() { # its file
  find_key "$1" || :
  find_pod_uid "$1"
  if find_pod "$POD"; then name_container && return 0; fi
  NAMESPACE=- NAME=- CONTAINER=${KEY%x}
  return 1
}

# The same for the container with a key.
find_container() { find_line "$1 " "$CONTAINERS" && CONTAINER_FILE=${RESULT#* } && describe "$CONTAINER_FILE"; }

# The name of the container of the current pod with this KEY: CONTAINER. The kubelet's link to its log has it. Before
# there is a link, and for a pause container, which never gets one, CONTAINER is the key.
name_container() {
  local link=''
  CONTAINER=${KEY%x}
  for link in "$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"*"-$CONTAINER"*.log; do
    link=${link#"$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"} link=${link%-*}
    case $link in '' | *[!a-z0-9-]*) ;; *) CONTAINER=$link ;; esac
  done
}

is_named() { [ "$CONTAINER" != "${KEY%x}" ]; }

# Decides the mode of the container with this KEY: that of the current pod, or the override for its name, if the name is
# known by now.
choose_mode() {
  local mode=$MODE
  if [ "$OVERRIDES" != , ]; then name_container; fi
  case $OVERRIDES in *",$CONTAINER=0,"*) mode=0 ;; *",$CONTAINER=1,"*) mode=1 ;; esac
  case $MODES in *"$NL$KEY=$mode$NL"*) return 0 ;; esac
  without_line "$KEY=" "$MODES" && MODES=$RESULT$KEY=$mode$NL
}

# Takes note of a container of the current pod, which may be known.
adopt() { # file
  find_key "$1" || return 0
  case $MODES in *"$NL$KEY="*) ;; *) CONTAINERS="$CONTAINERS$KEY $1$NL" && remember_kills "${1%/"$FILE"}" && watch "$1" ;; esac
  choose_mode
}

# Finds the containers of the current pod. With "new", it leaves known ones to the events of the kernel.
scan_pod() { # why: start, resync or new
  local file=''
  find_pod_directory "$POD" || return 0
  for file in "$POD_DIRECTORY"/$LONG_NAME/"$FILE" "$POD_DIRECTORY"/$LONG_NAME/container/"$FILE"; do
    [ -e "$file" ] || continue
    adopt "$file"
    if [ "$1" != new ]; then file_written "$file" "$1"; fi
  done
}

resync_soon() { SCANNED=-$RESYNC_SECONDS; }

# Looks at everything again, because an event may be missing: one pod in each turn of the loop, so that events do not
# wait. Then it forgets the containers that ended, one list in each turn.
resync_next() {
  local period=1 directory=''
  if [ "$FORGOTTEN" -lt "$LISTS_OF_CONTAINERS" ]; then FORGOTTEN=$((FORGOTTEN + 1)) && forget_containers "$GONE" "$FORGOTTEN" && return 0; fi
  if is_watching; then period=$RESYNC_SECONDS; fi
  if [ -z "$TO_SCAN" ]; then
    if [ "$UPTIME" -lt $((SCANNED + period)) ]; then return 0; fi
    SCANNED=$UPTIME
    list_pod_directories && TO_SCAN=$RESULT
  fi
  directory=${TO_SCAN%%"$NL"*}
  TO_SCAN=${TO_SCAN:${#directory}+1}
  find_pod_uid "$directory"
  if find_pod "$POD"; then scan_pod resync && check_ancestors && check_overrides; fi
  if [ -z "$TO_SCAN" ]; then end_resync; fi
}

# The directories of opted-in pods: RESULT. The pods that have one are few. Those that the API server told of may be many
# more, such as pods that wait.
list_pod_directories() {
  local parent='' directory=''
  RESULT=
  for parent in $PARENTS; do
    for directory in "$parent"*pod*; do
      find_pod_uid "$directory" && case $PODS in *"$NL$POD "*) RESULT=$RESULT$directory$NL ;; esac
    done
  done
}

# Forgets containers and pods that no longer exist. Contested files are watched again. The condition of a file ends if
# there was no contest since the last resync.
end_resync() {
  local line='' ended=$NL
  for line in $CONTAINERS; do [ -e "${line#* }" ] || ended=$ended${line%% *}$NL; done
  if [ "$ended" != "$NL" ]; then GONE=$ended FORGOTTEN=0; fi
  forget_deleted_pods
  for line in $FORMER_CONTESTED; do
    case $CONTESTED in *"$NL$line$NL"*) continue ;; esac
    if find_container "${line%% *}"; then condition '' "contested/$KEY"; fi
  done
  if [ "$CONTESTED" != "$NL" ]; then WATCH_ANEW=yes; fi
  FORMER_CONTESTED=$CONTESTED CONTESTED=$NL
}

forget_containers() { # list of keys, the number of a list or "all"
  case $2 in 1 | all) without_keys "$1" "$CONTAINERS" && CONTAINERS=$RESULT ;; esac
  case $2 in 2 | all) without_keys "$1" "$MODES" && MODES=$RESULT ;; esac
  case $2 in 3 | all) without_keys "$1" "$WRITTEN" && WRITTEN=$RESULT ;; esac
  case $2 in 4 | all) without_keys "$1" "$CONTESTED" && CONTESTED=$RESULT ;; esac
  case $2 in 5 | all) without_keys "$1" "$COUNTERS" && COUNTERS=$RESULT ;; esac
  case $2 in 6 | all) without_keys "$1" "$POLICIES" && POLICIES=$RESULT ;; esac
  case $2 in 7 | all) without_keys "$1" "$RECORDS" && RECORDS=$RESULT ;; esac
}

# Checks the overrides of the current pod. The name of the log does not show a name that is too long, so its
# override cannot work. A name that no container has while another container of the pod runs is misspelt, or that of a
# container that waits for an init container: the agent sees no more of a pod than its metadata.
check_overrides() {
  local override='' long='' missing='' waited=''
  if [ "$OVERRIDES" = , ]; then return 0; fi
  if [ $((UPTIME - HEARD)) -ge $((RESYNC_SECONDS * OVERRIDE_RESYNCS)) ] && has_started '*'; then waited=yes; fi
  IFS=,
  for override in ${OVERRIDES#,}; do
    IFS=$NL override=${override%=*} long='' missing=$waited
    if [ $((${#NAME} + ${#NAMESPACE} + ${#override})) -gt "$MOST_NAME_CHARACTERS" ]; then long=yes missing=''; fi
    if [ -n "$missing" ] && has_started "$override"; then missing=''; fi
    condition "$long" "name_too_long/$override"
    condition "$missing" "unknown_container/$override"
  done
}

# Whether a container of the current pod with this name has started, or, for "*", whether one with a name runs.
has_started() { # name or *
  local link='' key=''
  for link in "$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"$1-*.log; do
    key=${link##*-} key=${key%.log} link=${link%-*}
    case $key in *[!0-9a-f]*) continue ;; esac
    case $1:$CONTAINERS in "${link##*_}:"* | '*':*"$NL${key:0:12} "*) return 0 ;; esac
  done
  return 1
}

# Somebody may have written this file. This and enforce are the hot path.
file_written() { # file, why: start, event or resync
  find_key "$1" || return 0
  case $2$CONTESTED in event*"$NL$KEY "*) return 0 ;; esac
  case $MODES in *"$NL$KEY=0$NL"*) enforce 0 "$1" "$2" ;; *"$NL$KEY=1$NL"*) enforce 1 "$1" "$2" ;; esac
}

# Reads the value of the container with this KEY and, if need be, writes it. The write does not truncate the file first:
# that would be one more event. All else comes after it.
enforce() { # mode, file, why: start, event, resync or restore
  read_value "$2" || return 0
  if [ "$RESULT" = "$1" ]; then
    if [ "$3" = resync ]; then condition '' "write_refused/$KEY"; fi
  elif printf '%s\n' "$1" 2>&6 1<>"$2"; then
    wrote "$1" "$2" "$3" "$RESULT"
  elif [ -e "$2" ]; then
    describe "$2" || :
    condition yes "write_refused/$KEY"
  fi
}

# Follows a write. Before a container has a link, its runtime still prepares it, so the cause of the write is the start,
# whatever event told of it.
wrote() { # mode, file, why, former value
  local cause=$3
  describe "$2" || :
  case $cause in event | resync) is_named || cause=start ;; esac
  add_one "$cause" "$WRITES" && WRITES=$RESULT
  case $WRITTEN in *"$NL$KEY$NL"*) ;; *) WRITTEN=$WRITTEN$KEY$NL ;; esac
  case $CONTESTED in *"$NL$KEY "*) return 0 ;; esac
  log info 'kill mode written' pod "$NAMESPACE/$NAME" container "$CONTAINER" from "$4" to "$1"
  condition '' "write_refused/$KEY"
  if [ "$3" = event ]; then count_repair "$2"; fi
}

# Counts the repairs of the current container in this second. The next inotifyd does not watch a contested file, and
# must start at once.
count_repair() { # file
  if [ "$REPAIRS_AT" != "$UPTIME" ]; then REPAIRS=$NL REPAIRS_AT=$UPTIME; fi
  case $REPAIRS in *"$NL$KEY=$MOST_REPAIRS$NL"*) ;; *) add_one "$KEY" "$REPAIRS" && REPAIRS=$RESULT && return 0 ;; esac
  CONTESTED="$CONTESTED$KEY $1$NL" WATCH_ANEW=yes TURNS=$TURNS_TO_WAIT
  condition yes "contested/$KEY"
}

# At each tick, because nobody watches contested files.
enforce_contested() { local line='' && for line in $CONTESTED; do file_written "${line#* }" resync; done; }

# There is a new pod, a new container, the child that crun makes in one, the kubelet's link to a log, or a new level
# above pods. A container that may write its cgroups can make others inside its own, as often as it likes: of those, only
# the name that crun gives its child is looked at.
created() { # directory, name
  if find_key "$1"; then
    if [ "$2" = container ]; then examine "$1/$FILE"; fi
    return 0
  fi
  case $1:$2 in
    "$CONTAINER_LOGS:"*) link_created "$2" ;;
    *:pod* | *:*-pod*) find_pod_uid "$2" && if find_pod "$POD"; then watch "pod $POD" && scan_pod new; fi ;;
    *pod*:*) find_pod_uid "$1" && if find_pod "$POD"; then scan_pod new; fi ;;
    *) WATCH_ANEW=yes && resync_soon ;;
  esac
}

# A new link tells a container's name, which matters where its pod has overrides.
link_created() { # name of the link
  local key='' id=${1##*-} names=${1#*_}
  case $PODS in *" ${names%%_*} ${1%%_*} ,"[!\ ]*) ;; *) return 0 ;; esac
  for key in "${id:0:12}" "${id:0:12}x"; do
    if find_container "$key"; then choose_mode && file_written "$CONTAINER_FILE" start; fi
  done
}
