# shellcheck shell=sh
# What is wanted: the opted-in pods, their containers, and the farm of links that says so.

# One line for each opted-in pod: number, uid, underscored uid, mode, namespace, name, overrides as ","
# or ",name=0,name=1,", and the directory of the sandbox ("new" before there is any container, "-" if
# nobody knows). "The current pod" is the one whose fields were read last.
PODS=
LAST_NUMBER=0
# One line for each container cgroup: its key, which is the name of its link, <pod's number>-<start of
# the id>, and its directory within the pod's.
CONTAINERS=
# Keys and numbers of what no inotifyd was started for yet.
NEW_CONTAINERS=
NEW_PODS=
# Keys of the containers whose refusal was logged.
REFUSALS=' '
# Keys of those for which there was no room for a link, since there last was.
UNLINKED=' '
# Set once any pod has an override: from then on the kubelet's links, which tell names, are watched.
OVERRIDDEN=
# How many cgroups and pods are gone since the lists were tidied up.
GONE=0

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

# Makes the pod that a link or a directory belongs to the current one.
find_pod_of() { # number, and whatever follows it
  for record in $PODS; do
    case $record in "${1%%[!0-9]*} "*)
      read_fields "$record"
      return 0
      ;;
    esac
  done
  return 1
}

# Writes the current pod's line anew, or leaves it out.
replace_pod() { # new record or nothing
  kept=
  for record in $PODS; do
    case $record in
      "$NUMBER "*) if [ -n "$1" ]; then kept=$kept$1$NL; fi ;;
      *) kept=$kept$record$NL ;;
    esac
  done
  PODS=$kept
}

needs_names() {
  [ -n "$OVERRIDDEN" ]
}

# A pod is opted in, or its label or annotation changed.
opt_in() { # uid, mode, namespace, name, overrides
  if [ "$5" != , ]; then OVERRIDDEN=yes; fi
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
  PODS="$PODS$LAST_NUMBER $1 $UNDERSCORED $2 $3 $4 $5 new$NL"
  find_pod "$1"
  log info 'pod opted in' pod "$NAMESPACE/$NAME" mode "$MODE" overrides "$OVERRIDES"
  attach || :
  check_overrides
}

# Containers go back to the node value, and are none of our business from then on.
opt_out() { # uid
  find_pod "$1" || return 0
  replace_pod ''
  # A pod that is gone can wait for prune().
  if find_pod_directory "$CGROUP_UID" "$UNDERSCORED_UID"; then
    # The links first: from here on no event that is still queued can write.
    rm -f "0/$NUMBER-"* "1/$NUMBER-"* "pod/$NUMBER" || :
    for entry in $CONTAINERS; do
      case $entry in
        "$NUMBER-"*)
          directory=${entry#* }
          if looks_like_sandbox "$directory"; then kind=sandbox; else kind=container; fi
          restore "$POD_DIRECTORY/$directory" "$kind"
          ;;
      esac
    done
  fi
  GONE=$((GONE + 1))
  log info 'pod no longer opted in' pod "$NAMESPACE/$NAME"
}

# Of the containers that were there before us, the sandbox is the only one without a log file. CRI-O has
# none.
looks_like_sandbox() { # directory within the current pod's
  case $SANDBOX:$1 in
    -:crio-*) return 1 ;;
    -:*) ;;
    *) return 1 ;;
  esac
  if has_log "$1"; then return 1; fi
  others=
  for container in $CONTAINERS; do
    case $container in
      "$NUMBER-"*" $1") ;;
      "$NUMBER-"*)
        has_log "${container#* }" || return 1
        others=yes
        ;;
    esac
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
  ln -s "../$POD_DIRECTORY" "pod/$NUMBER" || return 1
  adopt_all
  look_again
}

attach_waiting() {
  for pod in $PODS; do
    if ! [ -L "pod/${pod%% *}" ]; then
      read_fields "$pod"
      attach || :
    fi
  done
}

# Something of the current pod may still come: it is looked at once more with the next inotifyd.
look_again() {
  NEW_PODS=$NEW_PODS$NUMBER$NL
  rewatch
}

adopt_all() {
  for path in "pod/$NUMBER"/$LONG_NAME; do
    adopt "${path##*/}" || :
  done
}

# Every runtime but CRI-O starts a pod with its sandbox (pause), to which the kubelet gives no mode, and
# so do we. It is known by being alone, and, should that be wrong, by having got a mode nonetheless.
is_sandbox() { # directory within the current pod's
  # A sandbox that ended is replaced, and with it all containers.
  case $SANDBOX in
    new | -) ;;
    *) if ! [ -d "pod/$NUMBER/$SANDBOX" ]; then SANDBOX=new; fi ;;
  esac
  case $SANDBOX in
    "$1") ! { read_value "pod/$NUMBER/$1/$FILE" && [ "$VALUE" = 1 ]; } ;;
    new)
      case $1 in crio-*) alone=no ;; *) alone=yes ;; esac
      for directory in "pod/$NUMBER"/$LONG_NAME; do
        directory=${directory##*/}
        if [ "$directory" != "$1" ] && find_id "$directory"; then alone=no; fi
      done
      if [ "$alone" = yes ]; then SANDBOX=$1; else SANDBOX=-; fi
      replace_pod "$NUMBER $CGROUP_UID $UNDERSCORED_UID $MODE $NAMESPACE $NAME $OVERRIDES $SANDBOX"
      [ "$alone" = yes ] && is_sandbox "$1"
      ;;
    *) return 1 ;;
  esac
}

# A container cgroup of the current pod, perhaps a new one. Fails if it has no file (yet).
adopt() { # directory within the pod's
  find_id "${1%/container}" || return 0
  [ -e "pod/$NUMBER/$1/$FILE" ] || return 1
  if is_sandbox "$1"; then return 0; fi
  find_id "${1%/container}"
  leaf=
  case $1 in */container)
    leaf=c
    found_crun
    ;;
  esac
  # The start of the id is enough for a name, and short events are read faster; all of it if not.
  for key in "$NUMBER-${ID%"${ID#????????}"}$leaf" "$NUMBER-$ID$leaf"; do
    link=0/$key
    if ! [ -L "$link" ]; then link=1/$key; fi
    if ! [ -L "$link" ]; then break; fi
    if [ "$link" -ef "pod/$NUMBER/$1/$FILE" ]; then
      adopt_inner "$1"
      return 0
    fi
  done
  choose "$1"
  if ! ln -s "../pod/$NUMBER/$1/$FILE" "$WANTED/$key" 2>/dev/null; then
    unlinked "$key" "pod/$NUMBER/$1/$FILE"
    return 0
  fi
  UNLINKED=' '
  CONTAINERS="$CONTAINERS$key $1$NL"
  NEW_CONTAINERS=$NEW_CONTAINERS$key$NL
  enforce "$WANTED/$key"
  rewatch
  # It may come before there is a watch for it.
  if may_have_crun; then NEW_PODS=$NEW_PODS$NUMBER$NL; fi
  adopt_inner "$1"
}

# Without a link nothing tells of a change: what is wanted is written now, and again by each resync.
unlinked() { # key, file
  case $UNLINKED in
    *" $1 "*) ;;
    *)
      UNLINKED="$UNLINKED$1 "
      log error 'container not watched: no link could be made in RUN_DIR' pod "$NAMESPACE/$NAME" container "$1"
      ;;
  esac
  if read_value "$2" && [ "$VALUE" != "$WANTED" ]; then write_value "$WANTED" "$2" || :; fi
}

# crun's level below a container's.
adopt_inner() { # directory within the pod's
  case $1 in */container) return 0 ;; esac
  if [ -d "pod/$NUMBER/$1/container" ]; then adopt "$1/container" || look_again; fi
}

# The value that the current pod wants for one of its containers.
choose() { # directory within the pod's
  WANTED=$MODE
  if [ "$OVERRIDES" = , ]; then return 0; fi
  find_id "${1%/container}" || return 0
  IFS=,
  for override in $OVERRIDES; do
    if [ -n "$override" ] && name_log "${override%=*}" && [ -L "$LOG_LINK" ]; then WANTED=${override#*=}; fi
  done
  IFS=$NL
}

# The kubelet cuts the names of logs that would be too long for the file system. Fewer than eight digits
# of the id could be those of another container as well: then nobody can know which one has this name.
name_log() { # container's name; its id is in ID
  LOG_LINK=logs/${NAME}_${NAMESPACE}_$1-
  digits=$((256 - ${#LOG_LINK}))
  if [ "$digits" -lt 8 ]; then return 1; fi
  if [ "$digits" -lt 64 ]; then
    LOG_LINK=$LOG_LINK$(printf "%.${digits}s" "$ID").log
  else
    LOG_LINK=$LOG_LINK$ID.log
  fi
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

# Moves the links of the current pod's containers to where they belong now.
rechoose() {
  for entry in $CONTAINERS; do
    case $entry in "$NUMBER-"*)
      key=${entry%% *}
      choose "${entry#* }"
      if ! [ -L "$WANTED/$key" ]; then
        mv -f "$((1 - WANTED))/$key" "$WANTED/$key" || :
        NEW_CONTAINERS=$NEW_CONTAINERS$key$NL
        rewatch
      fi
      enforce "$WANTED/$key"
      ;;
    esac
  done
}

# The hot path: somebody wrote the file behind a link of the farm, or may have.
enforce() { # link
  read_value "$1" || return 0
  wanted=${1%%/*}
  if [ "$VALUE" = "$wanted" ]; then return 0; fi
  if write_value "$wanted" "$1"; then
    describe "$1" && log info 'kill mode written' pod "$SUBJECT" container "${1#*-}" from "$VALUE" to "$wanted"
    if [ "$REFUSALS" != ' ' ]; then forget_refusal "$1"; fi
  else
    refused "$1"
  fi
}

# A refusal is not going to change soon: it is said once for each container, until a write succeeds.
refused() { # link
  if ! [ -e "$1" ]; then return 0; fi
  case $REFUSALS in *" ${1#*/} "*) return 0 ;; esac
  REFUSALS="$REFUSALS${1#*/} "
  describe "$1" && log error 'kill mode not written: the node refuses (SELinux? read-only mount? user namespace?)' \
    pod "$SUBJECT" container "${1#*-}"
}

forget_refusal() { # link
  case $REFUSALS in
    *" ${1#*/} "*) REFUSALS="${REFUSALS%%" ${1#*/} "*} ${REFUSALS#*" ${1#*/} "}" ;;
  esac
}

# The name of the pod behind a link, for the log; looked up after the deed. The current pod stays what
# it is.
describe() { # link
  number=${1#*/}
  SUBJECT=
  for record in $PODS; do
    case $record in "${number%%-*} "*)
      SUBJECT=${record#* * * * }
      SUBJECT=${SUBJECT% * *}
      SUBJECT=${SUBJECT% *}/${SUBJECT#* }
      ;;
    esac
  done
}

enforce_all() {
  for link in 0/* 1/*; do
    enforce "$link"
  done
}

# A watch ended because its cgroup did. If there is one of the same name, it needs a new watch.
removed() { # path
  GONE=$((GONE + 1))
  if [ -e "$1" ]; then
    rewatch
  elif [ "$GONE" -ge 100 ]; then
    prune
  fi
}

# Forgets the cgroups that are gone.
prune() {
  kept=
  refusals=' '
  set --
  for entry in $CONTAINERS; do
    key=${entry%% *}
    if [ -e "0/$key" ] || [ -e "1/$key" ]; then
      kept=$kept$entry$NL
      case $REFUSALS in *" $key "*) refusals="$refusals$key " ;; esac
    else
      set -- "$@" "0/$key" "1/$key"
    fi
  done
  CONTAINERS=$kept
  REFUSALS=$refusals
  for link in pod/*; do
    if [ -L "$link" ] && ! [ -e "$link" ]; then set -- "$@" "$link"; fi
  done
  if [ $# -gt 0 ]; then rm -f "$@" || :; fi
  GONE=0
}

# Looks at everything: what every event would have told, had none been lost.
resync() {
  prune
  attach_waiting
  for pod in $PODS; do
    read_fields "$pod"
    adopt_all
    if [ "$OVERRIDES" != , ]; then rechoose; fi
  done
  enforce_all
}

# An agent before us in the same pod may have known pods that left while it was down.
release_earlier() {
  for earlier in ../farm.*; do
    if ! [ "$earlier" -ef . ]; then
      for link in "$earlier"/[01]/*; do
        ours=
        for known in 0/* 1/*; do
          if [ "$link" -ef "$known" ]; then ours=yes; fi
        done
        if [ -z "$ours" ] && read_value "$link" && [ "$VALUE" != "$NODE_VALUE" ]; then
          write_value "$NODE_VALUE" "$link" || :
        fi
      done
      rm -rf "$earlier" || :
    fi
  done
}
