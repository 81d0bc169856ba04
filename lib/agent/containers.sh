# shellcheck shell=sh
# The containers of opted-in pods: their links in the farm, and their files.

# A container's key is the name of its link: <pod's number>-<start of the id>.
# Keys of the containers whose refusal was logged.
REFUSALS=' '
# Keys of those for which there was no room for a link, since there last was.
UNLINKED=' '
# How many cgroups and pods are gone since prune().
GONE=0
# Links that it has still to look at.
UNPRUNED=

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

# A container cgroup of the current pod, perhaps a new one. Fails if it, or crun's level, has no file (yet).
adopt() { # directory within the pod's, "created" if an event says so
  find_id "${1%/container}" || return 0
  [ -e "pod/$NUMBER/$1/$FILE" ] || return 1
  if is_sandbox "$1"; then return 0; fi
  if find_link "$1"; then
    # The one of which it reminds us is gone.
    if [ "${2-}" = created ]; then follow "$LINK"; else enforce "$LINK/$FILE"; fi
  else
    choose "$1"
    if ! ln -sn "../pod/$NUMBER/$1" "$WANTED/$KEY" 2>/dev/null; then
      unlinked "$KEY" "pod/$NUMBER/$1/$FILE"
      return 0
    fi
    UNLINKED=' '
    follow "$WANTED/$KEY"
    note_applied "$KEY"
  fi
  case $1 in
    */container)
      if ! may_have_crun; then
        found_crun
        rewatch
      fi
      ;;
    *) if [ -d "pod/$NUMBER/$1/container" ]; then adopt "$1/container" || return 1; fi ;;
  esac
}

# The link of a container, or the name for one in KEY. The start of the id is enough, and short events
# are read faster; all of it if not.
find_link() { # directory within the current pod's
  find_id "${1%/container}" || return 1
  leaf=
  case $1 in */container) leaf=c ;; esac
  for KEY in "$NUMBER-${ID%"${ID#????????}"}$leaf" "$NUMBER-$ID$leaf"; do
    LINK=0/$KEY
    if ! [ -L "$LINK" ]; then LINK=1/$KEY; fi
    if ! [ -L "$LINK" ]; then return 1; fi
    if [ "$LINK" -ef "pod/$NUMBER/$1" ]; then return 0; fi
  done
  return 1
}

# crun's level has a letter more than the container's own, whose key has 8 or 64 digits of the id.
is_inner() { # key, or the digits of it
  id=${1#*-}
  [ $((${#id} % 2)) = 1 ]
}

# A link that is new, or leads to a cgroup that is, or is where it belongs now.
follow() { # link, "choice" if that is why
  enforce_because "${2-start}" "$1/$FILE"
  # crun's level may come before there is a watch for it.
  if may_have_crun; then NEW_PODS=$NEW_PODS$NUMBER$NL; fi
  watch_container "$1"
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
  correct "$WANTED" "$2"
}

# The current pod's containers that have a link.
find_adopted() {
  ADOPTED=
  for directory in "pod/$NUMBER"/$LONG_NAME/. "pod/$NUMBER"/$LONG_NAME/container/.; do
    directory=${directory#pod/*/}
    directory=${directory%/.}
    if find_link "$directory"; then ADOPTED=$ADOPTED$directory$NL; fi
  done
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

# Moves the links of the current pod's containers to where they belong now.
rechoose() {
  find_adopted
  for directory in $ADOPTED; do
    find_link "$directory" || continue
    choose "$directory"
    if [ "${LINK%%/*}" != "$WANTED" ]; then
      mv -f "$LINK" "$WANTED/$KEY" || :
      follow "$WANTED/$KEY" choice
    else
      enforce_because choice "$LINK/$FILE"
    fi
  done
}

# The hot path: somebody wrote the file behind a link of the farm, or may have.
enforce() { # <link>/memory.oom.group
  read_value "$1" || return 0
  right=${1%%/*}
  if [ "$VALUE" = "$right" ]; then return 0; fi
  if write_value "$right" "$1"; then
    count_write
    if [ -n "$AWAITED" ]; then count_start "$1"; fi
    describe "$1"
    log info 'kill mode written' pod "$SUBJECT" container "$CONTAINER" from "$VALUE" to "$right"
    if [ "$REFUSALS" != ' ' ]; then forget_refusal "$1"; fi
  else
    refused "$1"
  fi
}

# A refusal is not going to change soon: it is said once for each container, until a write succeeds.
refused() { # <link>/memory.oom.group
  if ! [ -e "$1" ]; then return 0; fi
  key=${1#*/}
  key=${key%%/*}
  case $REFUSALS in *" $key "*) return 0 ;; esac
  REFUSALS="$REFUSALS$key "
  describe "$1"
  log error 'kill mode not written: the node refuses (SELinux? read-only mount? user namespace?)' \
    pod "$SUBJECT" container "$CONTAINER" condition write_refused
  write_refused "$1"
}

forget_refusal() { # <link>/memory.oom.group
  key=${1#*/}
  key=${key%%/*}
  case $REFUSALS in
    *" $key "*) REFUSALS="${REFUSALS%%" $key "*} ${REFUSALS#*" $key "}" ;;
  esac
}

# A watch ended because its cgroup did.
removed() { # path
  GONE=$((GONE + 1))
  case $1 in
    pod/*)
      if find_pod_of "${1#pod/}"; then pod_removed "$1"; fi
      ;;
    [01]/*)
      # There is another one of the same name already.
      if [ -e "$1" ] && find_pod_of "${1#*/}"; then follow "${1%/*}"; fi
      ;;
    *) rewatch ;;
  esac
  if [ "$GONE" -ge 100 ] && [ -z "$UNPRUNED" ]; then prune; fi
}

# A pod that runs on, or a static pod that is changed, gets its cgroup back.
pod_removed() { # directory
  if [ -e "$1" ]; then
    look_again
  elif [ "$1" = "pod/$NUMBER/." ]; then
    rm -f "pod/$NUMBER" || :
    WAITING=$WAITING$NUMBER$NL
  fi
}

# Forgets the cgroups and pods that are gone: a few links at each pause, for there may be hundreds of
# them, and containers that start meanwhile.
prune() {
  GONE=0
  set -- 0/* 1/* pod/* record/*
  UNPRUNED=$*$NL
  if [ "$REFUSALS" != ' ' ]; then
    refusals=' '
    IFS=' '
    for key in $REFUSALS; do
      if [ -e "0/$key" ] || [ -e "1/$key" ]; then refusals="$refusals$key "; fi
    done
    IFS=$NL
    REFUSALS=$refusals
  fi
  # Without a timed read there are no pauses.
  while [ -z "$TIMED_READ" ] && [ -n "$UNPRUNED" ]; do prune_some; done
}

# A container's link goes once its kills are accounted for.
prune_some() {
  set --
  looked_at=0
  while [ -n "$UNPRUNED" ] && [ "$looked_at" -lt 30 ]; do
    gone=${UNPRUNED%%"$NL"*}
    UNPRUNED=${UNPRUNED#*"$NL"}
    looked_at=$((looked_at + 1))
    case $gone in
      record/*) if [ -e "$gone" ] && ! [ -s "$gone" ]; then set -- "$@" "$gone"; fi ;;
      *)
        if [ -L "$gone" ] && ! [ -e "$gone" ]; then
          case $gone in [01]/*) check_kills "${gone#?/}" ;; esac
          set -- "$@" "$gone"
        fi
        ;;
    esac
  done
  if [ $# -gt 0 ]; then rm -f "$@" || :; fi
}

# Looks at everything: what every event would have told, had none been lost.
resync() {
  prune
  for pod in $PODS; do
    resync_pod "$pod"
  done
}

resync_pod() { # its number, and whatever follows it
  find_pod_of "$1" || return 0
  if [ -L "pod/$NUMBER" ]; then
    because resync
    adopt_all || :
    because event
    check_ancestors
  else
    attach || return 0
  fi
  if [ "$OVERRIDES" != , ]; then rechoose; fi
}
