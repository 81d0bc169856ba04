# shellcheck shell=sh
# What is wanted of which container, and how it gets there.

# The opted-in pods: "<uid> <mode> <namespace> <name> <overrides> <uptime when we heard of it>", where modes are
# 0 and 1, and overrides "," or ",name=0,name=1,". Those whose directory is watched, or going to be: "<uid>".
PODS=$NL ATTACHED=$NL
# Their containers: "<key> <file>", where the key is the start of the id, see find_id. What those are to
# have: "<key>=<mode>", apart because it is searched at each event.
CONTAINERS=$NL MODES=$NL
# Pods that are still to be looked at, and when that began.
TO_SCAN='' SCANNED=0

# Makes a pod the current one.
find_pod() { # uid
  look_up "$1 " "$PODS" || return 1
  # shellcheck disable=SC2086 # split on purpose: six words that api.awk checked
  IFS=' ' && set -- $LINE && IFS=$NL
  POD=$1 MODE=$2 NAMESPACE=$3 NAME=$4 OVERRIDES=$5 HEARD=$6
}

# Makes a container and its pod the current ones: KEY, CONTAINER (its name, if it is known) and FOUND (its file). Fails
# if the pod is not opted in.
describe() { # its file
  find_id "$1" || :
  find_pod_uid "$1"
  if ! find_pod "$POD"; then NAMESPACE=- NAME=- CONTAINER=${KEY%x} && return 1; fi
  name_container
}

find_container() { # key
  look_up "$1 " "$CONTAINERS" || return 1
  FOUND=${LINE#* }
  describe "$FOUND"
}

# By the kubelet's link to the log, <pod>_<namespace>_<container>-<id>.log, with the end cut off where names are long: the
# name of the container of the current pod with this KEY, or the start of the id.
name_container() {
  CONTAINER=${KEY%x}
  for link in "$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"*"-$CONTAINER"*.log; do
    link=${link#"$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"}
    link=${link%-*}
    case $link in '' | *[!a-z0-9-]*) ;; *) CONTAINER=$link ;; esac
  done
}

# The current pod's mode, or what its annotation has for the container with this KEY, if its name is known by now.
choose_mode() {
  wanted=$MODE
  if [ "$OVERRIDES" != , ]; then
    name_container
    case $OVERRIDES in
      *",$CONTAINER=0,"*) wanted=0 ;;
      *",$CONTAINER=1,"*) wanted=1 ;;
    esac
  fi
  case $MODES in *"$NL$KEY=$wanted$NL"*) return 0 ;; esac
  case $MODES in *"$NL$KEY="*) take "$KEY=" "$MODES" && MODES=$REST ;; esac
  MODES=$MODES$KEY=$wanted$NL
}

# A container of the current pod, which may be known.
adopt() { # file
  find_id "$1" || return 0
  case $MODES in *"$NL$KEY="*) ;; *)
    CONTAINERS="$CONTAINERS$KEY $1$NL"
    remember_kills "${1%/"$FILE"}"
    watch "$1"
    ;;
  esac
  choose_mode
}

# Looks at the containers of the current pod, new ones and others.
scan_pod() { # why: start, resync, or look if there is no need to read those that are known
  find_pod_directory "$POD" || return 0
  case $ATTACHED in *"$NL$POD$NL"*) ;; *)
    ATTACHED=$ATTACHED$POD$NL
    watch "pod $POD"
    ;;
  esac
  for file in "$POD_DIRECTORY"/$LONG_NAME/"$FILE" "$POD_DIRECTORY"/$LONG_NAME/container/"$FILE"; do
    if [ -e "$file" ]; then
      adopt "$file"
      if [ "$1" != look ]; then file_written "$file" "$1"; fi
      if [ "$1" = resync ]; then check_policy "$file"; fi
    fi
  done
}

scan_soon() { SCANNED=-$RESYNC_SECONDS; }

# Everything, for what events did not tell, or nobody watches: one pod at each turn of the loop, so that what happens
# meanwhile does not wait. Then what is gone is forgotten.
scan_next() {
  if is_watching; then period=$RESYNC_SECONDS; else period=1; fi
  if [ -z "$TO_SCAN" ]; then
    if [ "$UPTIME" -lt $((SCANNED + period)) ]; then return 0; fi
    SCANNED=$UPTIME TO_SCAN=$PODS
  fi
  record=${TO_SCAN%%"$NL"*}
  # shellcheck disable=SC3057 # busybox ash
  TO_SCAN=${TO_SCAN:${#record}+1}
  if find_pod "${record%% *}"; then
    scan_pod resync
    check_ancestors
    check_overrides
  fi
  if [ -z "$TO_SCAN" ]; then prune; fi
}

# Forgets containers that are gone.
prune() {
  gone=$NL
  for container in $CONTAINERS; do
    if ! [ -e "${container#* }" ]; then gone=$gone${container%% *}$NL; fi
  done
  forget "$gone"
}

# Containers, and what was said of them.
forget() { # list of keys
  if [ "$1" = "$NL" ]; then return 0; fi
  leave_out "$1" "$CONTAINERS" && CONTAINERS=$REST
  leave_out "$1" "$MODES" && MODES=$REST
  leave_out "$1" "$RECORDS" && RECORDS=$REST
}

# In pieces: long strings take long to copy.
leave_out() { # list of keys, list: REST
  REST=$NL piece=
  for record in $2; do
    key=${record%%[ =]*}
    case $1 in *"$NL${key#*/}$NL"*) ;; *) piece=$piece$record$NL ;; esac
    if [ ${#piece} -gt 4000 ]; then REST=$REST$piece piece=; fi
  done
  REST=$REST$piece
}

# A name that no container has had for a while is likely to be a wrong one.
check_overrides() { # of the current pod
  if [ "$OVERRIDES" = , ] || [ $((UPTIME - HEARD)) -lt $((RESYNC_SECONDS * 5)) ]; then return 0; fi
  IFS=,
  for override in ${OVERRIDES#,}; do
    IFS=$NL
    override=${override%=*}
    missing=yes
    for link in "$CONTAINER_LOGS/${NAME}_${NAMESPACE}_$override-"*.log; do
      link=${link##*"_$override-"}
      case ${link%.log} in *[!0-9a-f]*) ;; *) missing= ;; esac
    done
    condition "$missing" "unknown_container/$override"
  done
}

# Somebody may have written this file.
file_written() { # file, why
  find_id "$1" || return 0
  case $MODES in
    *"$NL$KEY=0$NL"*) enforce 0 "$1" "$2" ;;
    *"$NL$KEY=1$NL"*) enforce 1 "$1" "$2" ;;
  esac
}

# There is a new pod, a new container, or the kubelet's link to the log of one, which tells its name.
created() { # directory, name
  case $1:$2 in
    "$CONTAINER_LOGS:"*)
      take_name "$2"
      return 0
      ;;
    *:pod* | *:*-pod*)
      find_pod_uid "$2"
      # It may be one that was there before, as a static pod's.
      case $ATTACHED in *"$NL$POD$NL"*) take "$POD" "$ATTACHED" && ATTACHED=$REST ;; esac
      ;;
    *) find_pod_uid "$1" ;;
  esac
  if find_pod "$POD"; then scan_pod look; fi
}

# A container's name matters where its pod has overrides.
take_name() { # name of the link
  link=${1#*_}
  case $PODS in *" ${link%%_*} ${1%%_*} ,"[!\ ]*) ;; *) return 0 ;; esac
  # shellcheck disable=SC3057 # busybox ash
  id=${1##*-} id=${id:0:12}
  for key in "$id" "${id}x"; do
    if find_container "$key"; then
      choose_mode
      file_written "$FOUND" start
    fi
  done
}

# A pod that opts in, or says something else than before. It may have been there before its label.
opt_in() { # uid, mode, namespace, name, overrides
  if ! find_pod "$1"; then
    log info 'pod opted in' pod "$3/$4" mode "$2" overrides "$5"
  elif [ "$MODE $OVERRIDES" = "$2 $5" ]; then
    return 0
  else
    log info 'pod changed' pod "$3/$4" mode "$2" overrides "$5"
    take "$1 " "$PODS" && PODS=$REST
    end_conditions "$1" invalid
  fi
  PODS="$PODS$1 $2 $3 $4 $5 $UPTIME$NL"
  find_pod "$1"
  scan_pod start
  check_ancestors
}

# Containers go back to what the kubelet gives on this node. Where the cgroup is gone, the next scan does the rest.
opt_out() { # uid, and "invalid" if that is why
  if find_pod "$1"; then
    log info 'pod no longer opted in' pod "$NAMESPACE/$NAME"
    if take "$1" "$ATTACHED"; then ATTACHED=$REST; fi
    if find_pod_directory "$1"; then
      gone=$NL
      for container in $CONTAINERS; do
        case $container in *" $POD_DIRECTORY/"*) ;; *) continue ;; esac
        enforce "$NODE_VALUE" "${container#* }" restore
        gone=$gone${container%% *}$NL
      done
      forget "$gone"
    fi
    if take "$1 " "$PODS"; then PODS=$REST; fi
  fi
  end_conditions "$@"
}
