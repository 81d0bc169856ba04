# shellcheck shell=sh
# What happens on the node: inotifyd, started, replaced and restarted, and its events.

# Each inotifyd has a number, counted up. STARTING is the newest one's until it is up, ENDING the one's
# before it until it is gone, and OLD its process number while it may have something to tell; AGAIN says
# that there is more to watch than the newest one was told.
GENERATION=0
STARTING=
ENDING=
OLD=
AGAIN=
# The one that was asked for a sign of life and gave none yet. All three at the last tick.
SILENT=
LATE=
# Which of two pairs of files the one that is up watches besides, ping0 and last0 or ping1 and last1: the
# starting or ending one has the others. A ping asks for a sign of life, the last is asked for once.
PING=0
# The number of the one that is up, and process numbers: its own, the newest one's as far as it was looked
# up, and all keepers', as "<generation>:<keeper>".
UP=
INOTIFYD=
NEWEST=
KEEPERS=
# What the starting one is going to watch for the first time.
UNCHECKED=
UNSCANNED=
# The arguments of the next inotifyd, in two parts.
WATCHES=
SOME_WATCHES=
# What the last inotifyd complained of, failures in a row, and the process number of the substitute.
COMPLAINT=
FAILURES=0
POLLER=

# Starts an inotifyd with today's watches. While one is starting or ending, the next one waits: so a
# burst of new cgroups costs a few starts, not one each, and no report can be taken for another's.
rewatch() {
  if [ -n "$STARTING$ENDING" ]; then
    AGAIN=yes
    return 0
  fi
  AGAIN=
  COMPLAINT=
  GENERATION=$((GENERATION + 1))
  STARTING=$GENERATION
  # What comes from here on is for the next one.
  UNCHECKED=$UNCHECKED$NEW_CONTAINERS
  NEW_CONTAINERS=
  UNSCANNED=$UNSCANNED$NEW_PODS
  NEW_PODS=
  keep_inotifyd &
  KEEPERS="$KEEPERS $GENERATION:$!"
}

# Runs beside the loop, as the parent of one inotifyd, to tell its beginning and its end.
keep_inotifyd() {
  ping=../ping$((1 - PING))
  run_inotifyd $((1 - PING)) >&3 2>&1 &
  child=$!
  printf '%s %s\n' "$GENERATION" "$child" 1<>../newest
  # inotifyd does not say when it is ready. It adds its watches in order, so it is once it reports
  # what is done to the last one.
  milliseconds=10
  while runs "$child"; do
    pause "0.0$milliseconds"
    read -r up <../up
    if [ "$up" = "$GENERATION" ]; then break; fi
    : >"$ping"
    if [ "$milliseconds" -lt 90 ]; then milliseconds=$((milliseconds + 20)); fi
  done
  wait "$child" 2>/dev/null || :
  printf 'ended\t%s\n' "$GENERATION" >&3
}

# The process that calls this becomes inotifyd, which gives up if one path does not exist, and mixes up
# paths that it was given twice.
run_inotifyd() { # 0 or 1
  find_qos_directories
  for path in $QOS_DIRECTORIES pod/*; do
    if [ -e "$path" ]; then add_watch "$path:n"; fi
  done
  if needs_names; then add_watch logs:n; fi
  for path in 0/* 1/*; do
    if [ -e "$path" ]; then add_watch "$path:c"; fi
  done
  if may_have_crun; then
    for path in pod/*/*.scope; do
      if [ -d "$path" ]; then add_watch "$path:n"; fi
    done
  fi
  set -f
  # shellcheck disable=SC2086 # split on purpose, at line feeds only, without wildcards
  exec inotifyd - $WATCHES$SOME_WATCHES "../last$1:w" "../ping$1:w"
}

# To append to a long string is to copy it: it grows by short ones.
add_watch() { # path:mask
  SOME_WATCHES=$SOME_WATCHES$1$NL
  if [ ${#SOME_WATCHES} -gt 1000 ]; then
    WATCHES=$WATCHES$SOME_WATCHES
    SOME_WATCHES=
  fi
}

# Looked up when it is needed, since to be told is to be woken up.
find_newest() {
  { IFS=' ' read -r generation NEWEST <"$RUN_DIR/newest"; } 2>/dev/null || return 1
  if [ "$generation" != "$GENERATION" ]; then NEWEST=; fi
  [ -n "$NEWEST" ]
}

# An inotifyd reports its ping, or that it has told everything from before the newest one was up.
watch_answered() { # path
  case $1 in
    "../ping$PING") SILENT= ;;
    ../ping*) if [ -n "$STARTING" ]; then watch_is_up; fi ;;
    *) if [ -n "$OLD" ]; then kill_old; fi ;;
  esac
}

kill_old() {
  kill -KILL "$OLD" 2>/dev/null || :
  OLD=
}

# The newest inotifyd is up: the one before it may go, once it has told what it alone knows.
watch_is_up() {
  printf '%s\n' "$GENERATION" 1<>../up
  PING=$((1 - PING))
  STARTING=
  SILENT=
  FAILURES=0
  before=$INOTIFYD
  if [ -n "$before" ]; then
    ENDING=$UP
    OLD=$before
    : 1<>"../last$((1 - PING))"
  fi
  find_newest || :
  INOTIFYD=$NEWEST
  UP=$GENERATION
  if [ -n "$POLLER" ]; then
    kill "$POLLER" 2>/dev/null || :
    POLLER=
    log info 'inotify is back'
  fi
  if [ -n "$before" ]; then
    # All the rest was watched without a gap.
    for key in $UNCHECKED; do
      enforce "0/$key"
      enforce "1/$key"
    done
    for number in $UNSCANNED; do
      if find_pod_of "$number"; then
        adopt_all
        if [ "$OVERRIDES" != , ]; then rechoose; fi
      fi
    done
  else
    resync
  fi
  UNCHECKED=
  UNSCANNED=
  if [ -n "$AGAIN" ]; then rewatch; fi
  become_ready watching
}

watch_complained() { # text
  COMPLAINT=$1
}

# An inotifyd ended: the old one, as it should, or one that we need.
watch_ended() { # generation
  wait_for_keeper "$1"
  if [ "$1" = "$ENDING" ]; then
    ENDING=
    # Nobody knows what it had still to tell.
    if [ -n "$OLD" ]; then
      OLD=
      resync
    fi
  fi
  # Even if a newer one was tried meanwhile: its end is not going to be told once more.
  if [ "$1" = "$UP" ]; then INOTIFYD=; fi
  if [ "$1" != "$GENERATION" ]; then
    if [ -n "$AGAIN" ]; then rewatch; fi
    return 0
  fi
  STARTING=
  FAILURES=$((FAILURES + 1))
  case $COMPLAINT in
    '' | *'No such file'*)
      # Killed, or a cgroup went away while it started: try again, unless that is all that happens.
      if [ "$FAILURES" -lt 50 ]; then
        rewatch
        return 0
      fi
      ;;
  esac
  if [ -z "$POLLER" ]; then
    log_text warn 'no inotify: polling every second until it is back' reason "$COMPLAINT"
    every 1 poll &
    POLLER=$!
    become_ready watching
  fi
  resync
  UNCHECKED=
  UNSCANNED=
}

# A shell keeps the status of every job until it is asked for.
wait_for_keeper() { # generation
  IFS=' '
  kept=
  for keeper in $KEEPERS; do
    case $keeper in
      "$1":*) wait "${keeper#*:}" 2>/dev/null || : ;;
      *) kept="$kept $keeper" ;;
    esac
  done
  KEEPERS=$kept
  IFS=$NL
}

# A keeper that was killed cannot tell that its inotifyd is up, or ended; that one goes as well.
check_keepers() {
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: pairs of numbers
  set -- $KEEPERS
  IFS=$NL
  for keeper; do
    if ! runs "${keeper#*:}"; then
      if [ "${keeper%%:*}" = "$GENERATION" ] && find_newest; then
        kill -KILL "$NEWEST" 2>/dev/null || :
      fi
      watch_ended "${keeper%%:*}"
    fi
  done
}

# What has been starting, ending or silent for a whole tick hangs, or its keeper does: check_keepers goes
# on without both.
check_hung() {
  for generation in $STARTING $ENDING $SILENT; do
    case " $LATE " in *" $generation "*)
      log warn 'inotifyd hangs; another one is started'
      if [ "$generation" = "$ENDING" ] && [ -n "$OLD" ]; then kill_old; fi
      kill_keeper "$generation"
      ;;
    esac
  done
  if [ -n "$INOTIFYD" ] && [ -z "$STARTING" ]; then
    SILENT=$UP
    : 1<>"../ping$PING"
  fi
  LATE="$STARTING $ENDING $SILENT"
}

kill_keeper() { # generation
  IFS=' '
  for keeper in $KEEPERS; do
    case $keeper in "$1":*)
      kill -KILL "${keeper#*:}" 2>/dev/null || :
      wait "${keeper#*:}" 2>/dev/null || :
      ;;
    esac
  done
  IFS=$NL
}

# Every tick is a chance that inotify is to be had again.
retry_inotify() {
  if [ -z "$POLLER" ]; then return 0; fi
  FAILURES=0
  rewatch
}

# A cgroup or a log file was created.
created() { # directory, name
  case $1 in
    pod/*/*)
      if [ "$2" = container ] && find_pod_of "${1#pod/}"; then
        adopt "${1#pod/*/}/container" || look_again
      fi
      ;;
    pod/*) if find_pod_of "${1#pod/}"; then adopt "$2" || look_again; fi ;;
    logs)
      for pod in $PODS; do
        read_fields "$pod"
        case $OVERRIDES:$2 in ,:*) ;; *:"${NAME}_${NAMESPACE}_"*) rechoose ;; esac
      done
      ;;
    *) attach_waiting ;;
  esac
}
