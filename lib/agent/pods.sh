# shellcheck shell=sh
# What is wanted: the opted-in pods, their containers, and the farm of links that says so.

# One line for each opted-in pod: number, uid, underscored uid, mode, namespace, name, overrides as ","
# or ",name=0,name=1,", and the directory of the sandbox ("new" before there is any container, "-" if
# nobody knows). "The current pod" is the one whose fields were read last.
PODS=
LAST_NUMBER=0
# Numbers of the pods without a cgroup (yet).
WAITING=
# Numbers of those with a cgroup without memory.oom.group (yet), and for how many pauses they are looked at.
BARE_PODS=
BARE_PATIENCE=0
# Set once any pod has an override: from then on the kubelet's links, which tell names, are watched.
OVERRIDDEN=

read_fields() { # record
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: eight checked words without blanks or wildcards
  set -- $1
  IFS=$NL
  NUMBER=$1 CGROUP_UID=$2 UNDERSCORED_UID=$3 MODE=$4 NAMESPACE=$5 NAME=$6 OVERRIDES=$7 SANDBOX=$8
}

# Makes the pod with this UID the current one.
find_pod() { # uid
  case $PODS in *" $1 "*) ;; *) return 1 ;; esac
  for record in $PODS; do
    # The second word only: the name of a pod may be the UID of another.
    case ${record#* } in "$1 "*)
      read_fields "$record"
      return 0
      ;;
    esac
  done
  return 1
}

# The line of a pod. A file has it as well, since to read that costs the same for any number of pods; it
# is empty, or has no whole line, if there was no room for it.
find_record() { # number, and whatever follows it
  number=${1%%[!0-9]*}
  RECORD=
  { IFS= read -r RECORD <"record/$number"; } 2>&6 || RECORD=
  [ -n "$RECORD" ] || find_listed "$number"
}

find_listed() { # number
  for RECORD in $PODS; do
    case $RECORD in "$1 "*) return 0 ;; esac
  done
  return 1
}

# Makes the pod that a link or a directory belongs to the current one.
find_pod_of() { # number, and whatever follows it
  find_record "$1" && read_fields "$RECORD"
}

# The same for what runs beside the loop. That may be writing the file, but each has a list of its own.
find_pod_beside() { # number
  find_listed "$1" && read_fields "$RECORD"
}

# The names behind a link, for the log; looked up after the deed. The current pod stays what it is.
describe() { # <link>/memory.oom.group
  CONTAINER=${1#*-}
  CONTAINER=${CONTAINER%%/*}
  SUBJECT=
  if find_record "${1#*/}"; then
    SUBJECT=${RECORD#* * * * }
    SUBJECT=${SUBJECT% * *}
    SUBJECT=${SUBJECT% *}/${SUBJECT#* }
  fi
}

# Writes the current pod's line anew, or leaves it out.
replace_pod() { # new record or nothing
  kept=
  some=
  for record in $PODS; do
    case $record in "$NUMBER "*) record=$1 ;; esac
    if [ -n "$record" ]; then some=$some$record$NL; fi
    # To append to a long string is to copy it: it grows by short ones.
    if [ ${#some} -gt 1000 ]; then
      kept=$kept$some
      some=
    fi
  done
  PODS=$kept$some
  write_record "$1"
}

write_record() { # record of the current pod or nothing
  { printf '%s' "${1:+$1$NL}" >"record/$NUMBER"; } 2>&6 || :
}

needs_names() {
  [ -n "$OVERRIDDEN" ]
}

# A pod is opted in, or its label or annotation changed.
opt_in() { # uid, mode, namespace, name, overrides
  if [ "$5" != , ] && ! needs_names; then
    OVERRIDDEN=yes
    rewatch
  fi
  if find_pod "$1"; then
    if [ "$MODE" = "$2" ] && [ "$OVERRIDES" = "$5" ]; then return 0; fi
    replace_pod "$NUMBER $1 $UNDERSCORED_UID $2 $3 $4 $5 $SANDBOX"
    find_pod "$1"
    log info 'pod changed' pod "$NAMESPACE/$NAME" mode "$MODE" overrides "$OVERRIDES"
    rechoose
    check_overrides
    # A name may become known before the kubelet's links are watched.
    if [ "$OVERRIDES" != , ]; then look_again; fi
    return 0
  fi
  LAST_NUMBER=$((LAST_NUMBER + 1))
  underscore "$1"
  record="$LAST_NUMBER $1 $UNDERSCORED $2 $3 $4 $5 new"
  PODS=$PODS$record$NL
  read_fields "$record"
  write_record "$record"
  log info 'pod opted in' pod "$NAMESPACE/$NAME" mode "$MODE" overrides "$OVERRIDES"
  attach || WAITING=$WAITING$NUMBER$NL
  check_overrides
}

# Containers go back to the node value, and are none of our business from then on.
opt_out() { # uid
  find_pod "$1" || return 0
  tell_last_kills
  replace_pod ''
  # A pod that is gone can wait for prune().
  if find_pod_directory "$CGROUP_UID" "$UNDERSCORED_UID"; then
    find_adopted
    # The links first: from here on no event that is still queued can write.
    rm -f "0/$NUMBER-"* "1/$NUMBER-"* "pod/$NUMBER" "../kills/$CGROUP_UID" || :
    for directory in $ADOPTED; do
      if looks_like_sandbox "$directory"; then kind=sandbox; else kind=container; fi
      restore "$POD_DIRECTORY/$directory" "$kind"
    done
  fi
  GONE=$((GONE + 1))
  pod_left
  log info 'pod no longer opted in' pod "$NAMESPACE/$NAME"
}

# Of the containers that were there before us, the sandbox is the only one without a log file. CRI-O has
# none.
looks_like_sandbox() { # directory within the current pod's, one of ADOPTED
  case $SANDBOX:$1 in
    -:crio-*) return 1 ;;
    -:*) ;;
    *) return 1 ;;
  esac
  if has_log "$1"; then return 1; fi
  others=
  for other in $ADOPTED; do
    if [ "$other" != "$1" ]; then
      has_log "$other" || return 1
      others=yes
    fi
  done
  [ -n "$others" ]
}

has_log() { # directory within the current pod's
  find_id "${1%/container}" || return 1
  # The start of the id, since the kubelet cuts names that are too long at their end.
  for log_file in "logs/${NAME}_${NAMESPACE}_"*"-${ID%"${ID#????????}"}"*.log; do
    if [ -L "$log_file" ]; then return 0; fi
  done
  return 1
}

# The current pod's cgroup and its API object appear in either order.
attach() {
  if [ -L "pod/$NUMBER" ]; then return 0; fi
  find_pod_directory "$CGROUP_UID" "$UNDERSCORED_UID" || return 1
  ln -sn "../$POD_DIRECTORY" "pod/$NUMBER" || return 1
  adopt_now
  look_again
  remember_kills
  check_ancestors
}

attach_waiting() {
  waiting=$WAITING
  WAITING=
  for number in $waiting; do
    if find_pod_of "$number" && ! attach; then WAITING=$WAITING$NUMBER$NL; fi
  done
}

# Something of the current pod may still come: it is looked at once more when it is watched.
look_again() {
  NEW_PODS=$NEW_PODS$NUMBER$NL
  watch_new
}

# Something of the current pod has no file yet, and no event is going to tell when it has. It may never
# have one, so this is not for long; from then on there are the ticks.
expect_file() {
  if [ -z "$TIMED_READ" ]; then
    look_again
    return 0
  fi
  case $NL$BARE_PODS in
    *"$NL$NUMBER$NL"*) ;;
    *) BARE_PODS=$BARE_PODS$NUMBER$NL ;;
  esac
  BARE_PATIENCE=40
}

# At a pause: whatever has its file by now is a new container like any other.
scan_bare_pods() {
  bare=$BARE_PODS
  BARE_PODS=
  BARE_PATIENCE=$((BARE_PATIENCE - 1))
  because start
  for number in $bare; do
    if find_pod_of "$number" && ! adopt_all && [ "$BARE_PATIENCE" -gt 0 ]; then
      BARE_PODS=$BARE_PODS$NUMBER$NL
    fi
  done
  because event
}

# Without a timed read the next look has to do.
adopt_now() {
  if ! adopt_all && [ -n "$TIMED_READ" ]; then expect_file; fi
}

# Fails if one of them has no file (yet).
adopt_all() {
  bare_path=
  for path in "pod/$NUMBER"/$LONG_NAME; do
    adopt "${path##*/}" || bare_path=$path
  done
  [ -z "$bare_path" ]
}

# An override that can never be followed is better said than found out.
check_overrides() {
  if [ "$OVERRIDES" = , ]; then return 0; fi
  ID=
  IFS=,
  for override in $OVERRIDES; do
    if [ -n "$override" ] && ! name_log "${override%=*}"; then
      log warn "override without effect: with names this long the kubelet cuts the container's id from the name of its log" \
        pod "$NAMESPACE/$NAME" container "${override%=*}"
    fi
  done
  IFS=$NL
}

# An agent before us in the same pod may have known pods that left while it was down.
release_earlier() {
  for earlier in ../farm.*; do
    if ! [ "$earlier" -ef . ]; then
      for link in "$earlier"/[01]/*/"$FILE"; do
        ours=
        id=${link%/*}
        id=${id##*-}
        for known in [01]/*-"${id%"${id#????????}"}"*/"$FILE"; do
          if [ "$link" -ef "$known" ]; then ours=yes; fi
        done
        if [ -z "$ours" ]; then correct "$NODE_VALUE" "$link"; fi
      done
      rm -rf "$earlier" || :
    fi
  done
}
