# shellcheck shell=sh
# What is wanted of which container, and how it gets there.

# The opted-in pods: "<uid> <mode> <namespace> <name> <overrides> <uptime when we heard of it>", where modes are
# 0 and 1, and overrides "," or ",name=0,name=1,". Those whose directory is watched, or going to be: "<uid>".
PODS=$NL
ATTACHED=$NL
# Their containers: "<key> <uid> <file>", where the key is the start of the id, see find_id. What those are to
# have: "<key>=<mode>", apart because it is searched at each event. The fresh ones: "<key> <looks left> <uid>
# <file>", and how often each is looked at.
CONTAINERS=$NL
MODES=$NL
FRESH=$NL
LOOKS=150
# Set when everything is to be looked at, and when it was.
SCAN=
SCANNED=0

# Makes a pod the current one.
read_pod() { # record
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: six words that api.awk checked
  set -- $1
  IFS=$NL
  POD=$1 MODE=$2 NAMESPACE=$3 NAME=$4 OVERRIDES=$5 HEARD=$6
}

find_pod() { # uid
  take "$1 " "$PODS" && read_pod "$LINE"
}

# Whose directory it is, for the log: the current pod, KEY and CONTAINER, which is the name, if the
# kubelet's link to the log is there, or the start of the id.
describe() { # a container's directory
  find_id "$1" || :
  directory=${1%/container}
  find_pod_uid "${directory%/*}"
  find_pod "$POD" || NAMESPACE=- NAME=-
  name_container
}

# Of the current pod, with this KEY. The link is <pod>_<namespace>_<container>-<id>.log, with the end of the id
# cut off where names are long.
name_container() {
  CONTAINER=${KEY%c}
  for link in "$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"*"-$CONTAINER"*.log; do
    link=${link#"$CONTAINER_LOGS/${NAME}_${NAMESPACE}_"}
    link=${link%-*}
    case $link in
      '' | *[!a-z0-9-]*) ;;
      *) CONTAINER=$link ;;
    esac
  done
}

# The current pod's mode, or the one that its annotation has for the container with this KEY. Fails if that may
# change, since there is no name yet.
choose_mode() {
  WANTED=$MODE
  if [ "$OVERRIDES" = , ]; then return 0; fi
  name_container
  case $OVERRIDES in
    *",$CONTAINER=0,"*) WANTED=0 ;;
    *",$CONTAINER=1,"*) WANTED=1 ;;
  esac
  [ "$CONTAINER" != "${KEY%c}" ]
}

# A container of the current pod, which may be known. What is there before we are ready has started, and is
# not fresh; nor is one whose runtime writes the right value itself.
adopt() { # file
  find_id "${1%/"$FILE"}" || return 0
  case $MODES in *"$NL$KEY="*) return 0 ;; esac
  if choose_mode && { [ "$WANTED" = "$NODE_VALUE" ] || [ -z "$READY" ]; }; then fresh=; else fresh=yes; fi
  CONTAINERS="$CONTAINERS$KEY $POD $1$NL"
  MODES=$MODES$KEY=$WANTED$NL
  remember_kills "${1%/"$FILE"}"
  watch "$1"
  if [ -n "$fresh" ]; then FRESH="$FRESH$KEY $LOOKS $POD $1$NL"; fi
}

# Looks for containers of the current pod.
scan_pod() {
  find_pod_directory "$POD" || return 0
  case $ATTACHED in
    *"$NL$POD$NL"*) ;;
    *)
      ATTACHED=$ATTACHED$POD$NL
      watch "pod $POD"
      ;;
  esac
  for file in "$POD_DIRECTORY"/$LONG_NAME/"$FILE" "$POD_DIRECTORY"/$LONG_NAME/container/"$FILE"; do
    if [ -e "$file" ]; then adopt "$file"; fi
  done
}

# At each turn of the loop.
look_at_fresh() {
  for item in $UNWATCHED $STARTING; do
    case $item in 'pod '*) if find_pod "${item#* }"; then scan_pod; fi ;; esac
  done
  former=$FRESH
  FRESH=$NL
  for container in $former; do
    IFS=' '
    # shellcheck disable=SC2086 # split on purpose: four words of ours
    set -- $container
    IFS=$NL
    look_at "$@"
  done
}

# Done when ours was written over the runtime's value, and the name is known if that matters. Where the runtime
# writes nothing, what systemd writes is corrected meanwhile. crun makes its child a little later.
look_at() { # key, looks left, uid, file
  if ! find_pod "$3"; then return 0; fi
  child=${4%/"$FILE"}/container/$FILE
  if [ -e "$child" ]; then adopt "$child"; fi
  if learn_mode "$1"; then named=yes; else named=; fi
  read_value "$4" || :
  if [ "$VALUE" = 1 ] || [ "$WANTED" = 1 ]; then enforce "$WANTED" "$4" start; fi
  case $named$WANTED$VALUE in yes01) return 0 ;; esac
  if [ "$2" -gt 1 ]; then FRESH="$FRESH$1 $(($2 - 1)) $3 $4$NL"; fi
}

# The same for a container that is known already: it may have got its name.
learn_mode() { # key
  KEY=$1
  if choose_mode; then set -- "$1" 0; else set -- "$1" 1; fi
  case $MODES in
    *"$NL$1=$WANTED$NL"*) ;;
    *) if take "$1=" "$MODES"; then MODES=$REST$1=$WANTED$NL; fi ;;
  esac
  return "$2"
}

scan_soon() { SCAN=yes; }

scan_if_due() {
  if [ -n "$SCAN" ] || { ! is_watching && [ "$UPTIME" != "$SCANNED" ]; }; then scan; fi
}

# Everything: what events did not tell, or nobody watches. And what is gone is forgotten.
scan() {
  SCAN=
  SCANNED=$UPTIME
  former=$PODS
  for record in $former; do
    read_pod "$record"
    scan_pod
    check_ancestors
    check_overrides
  done
  former=$CONTAINERS
  CONTAINERS=$NL
  for container in $former; do
    IFS=' '
    # shellcheck disable=SC2086 # split on purpose: three words of ours
    set -- $container
    IFS=$NL
    if [ -e "$3" ]; then
      CONTAINERS=$CONTAINERS$container$NL
      if find_pod "$2"; then learn_mode "$1" || :; fi
      file_written "$3" resync
    else
      forget "$1"
    fi
  done
}

forget() { # key of a container
  if take "$1=" "$MODES"; then MODES=$REST; fi
  if take "$1 " "$FRESH"; then FRESH=$REST; fi
  drop_record "kills/$1 "
}

# Somebody wrote this file.
file_written() { # file, why
  case $1 in "$RUN_DIR"/ping.*)
    watcher_is_up "$1"
    return 0
    ;;
  esac
  find_id "${1%/"$FILE"}" || return 0
  case $MODES in
    *"$NL$KEY=0$NL"*) enforce 0 "$1" "${2-event}" ;;
    *"$NL$KEY=1$NL"*) enforce 1 "$1" "${2-event}" ;;
  esac
}

# There is a new pod or a new container.
cgroup_created() { # directory, name
  case $2 in
    *pod*)
      find_pod_uid "$2"
      # It may be one that was there before, as a static pod's.
      if take "$POD" "$ATTACHED"; then ATTACHED=$REST; fi
      ;;
    *) find_pod_uid "$1" ;;
  esac
  if find_pod "$POD"; then scan_pod; fi
}

# A pod that opts in, or says something else than before. It may have been there before its label.
opt_in() { # uid, mode, namespace, name, overrides
  if ! find_pod "$1"; then
    log info 'pod opted in' pod "$3/$4" mode "$2" overrides "$5"
  elif [ "$MODE $OVERRIDES" = "$2 $5" ]; then
    return 0
  else
    log info 'pod changed' pod "$3/$4" mode "$2" overrides "$5"
    drop_pod "$1"
  fi
  PODS="$PODS$1 $2 $3 $4 $5 $UPTIME$NL"
  find_pod "$1"
  scan_pod
  check_ancestors
  for container in $CONTAINERS; do
    case $container in *" $1 "*) file_written "${container##* }" start ;; esac
  done
}

# Containers go back to what the kubelet gives on this node.
opt_out() { # uid
  if find_pod "$1"; then
    log info 'pod no longer opted in' pod "$NAMESPACE/$NAME"
    if find_pod_directory "$1"; then
      for file in "$POD_DIRECTORY"/$LONG_NAME/"$FILE" "$POD_DIRECTORY"/$LONG_NAME/container/"$FILE"; do
        if find_id "${file%/"$FILE"}"; then enforce "$NODE_VALUE" "$file" restore; fi
      done
    fi
    drop_pod "$1"
  fi
  end_conditions_of "$1"
}

# Takes a pod out of all lists. Where its cgroup is gone, the next scan does the rest.
drop_pod() { # uid
  if take "$1 " "$PODS"; then PODS=$REST; fi
  if take "$1" "$ATTACHED"; then ATTACHED=$REST; fi
  if ! find_pod_directory "$1"; then return 0; fi
  former=$CONTAINERS
  CONTAINERS=$NL
  for container in $former; do
    case $container in
      *" $1 "*) forget "${container%% *}" ;;
      *) CONTAINERS=$CONTAINERS$container$NL ;;
    esac
  done
}
