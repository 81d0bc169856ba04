# shellcheck shell=sh
# What happens on the node: inotifyds, started, replaced and restarted, and their events.
#
# inotifyd takes its watches as arguments only, so what is new takes a new one; and a new one for
# everything costs more the more there is. So there are several, a few at the most. The oldest watches
# everything there was when it started; only the youngest is replaced, by one that watches a little more.
# When nothing new comes any more, one for everything takes the place of them all.

# Each inotifyd is "<generation>:<slot>", lines in lists. Generations count up; the slot is the number of
# the files that it alone watches besides, ping<slot> (asks for a sign of life) and last<slot> (asks for
# its last word), and of pid<slot>, where its process number is.
GENERATION=0
SLOT=0
SLOTS=14
# The one that is starting, and whether it is to watch "all" or what is "new"; what the next one is to.
STARTING=
SCOPE=
AGAIN=
# Those that are up, oldest first; the youngest, if it may be replaced; how many there may be.
WATCHERS=
YOUNGEST=
MOST_WATCHERS=8
# Those that are replaced and were asked for their last word, and those that said it and were killed.
ASKED=
ENDING=
# Set as long as somebody may have written what no inotifyd saw.
LOST=yes
# Those that were asked for a sign of life and gave none yet. Whatever was awaited at the last tick.
SILENT=
LATE=
# The parents of them all: "<generation>:<slot>:<process number>".
KEEPERS=
# What the last inotifyd complained of, failures in a row, the process number of the substitute, and when
# its last look at everything ended.
COMPLAINT=
FAILURES=0
POLLER=
POLLED=0

# Everything is to be watched by one inotifyd, which takes the place of all others.
rewatch() {
  start_watcher all
}

# What is new is to be watched, by one that takes the place of the youngest at most.
watch_new() {
  begin_burst
  start_watcher new
}

# One starts at a time: so a burst of new cgroups costs a few starts, not one each.
start_watcher() { # "all" or "new"
  if [ -n "$STARTING" ] || ! find_slot; then
    if [ "$AGAIN" != all ]; then AGAIN=$1; fi
    return 0
  fi
  SCOPE=$1
  # Without a timed read nobody would notice that nothing new comes any more.
  if [ -n "$LOST" ] || [ -z "$TIMED_READ" ]; then SCOPE=all; fi
  if [ -z "$YOUNGEST" ] && too_many; then SCOPE=all; fi
  AGAIN=
  COMPLAINT=
  GENERATION=$((GENERATION + 1))
  STARTING=$GENERATION:$SLOT
  hand_over
  keep_inotifyd &
  KEEPERS=$KEEPERS$STARTING:$!$NL
}

# In turns: of the one that had a slot before, something may still be in the queue.
find_slot() {
  last_slot=$SLOT
  while :; do
    SLOT=$(((SLOT + 1) % SLOTS))
    case $WATCHERS$ASKED$ENDING in *":$SLOT$NL"*) ;; *) return 0 ;; esac
    if [ "$SLOT" = "$last_slot" ]; then return 1; fi
  done
}

too_many() {
  count=0
  for watcher in $WATCHERS; do count=$((count + 1)); done
  [ "$count" -ge "$MOST_WATCHERS" ]
}

several_watchers() {
  case $WATCHERS in *"$NL"?*) return 0 ;; esac
  return 1
}

# Runs beside the loop, as the parent of one inotifyd, to tell its beginning and its end.
keep_inotifyd() {
  slot=${STARTING#*:}
  run_inotifyd "$slot" >&3 2>&1 &
  child=$!
  printf '%s %s\n' "$GENERATION" "$child" 1<>"../pid$slot"
  # inotifyd does not say when it is ready. It adds its watches in order, so it is once it reports
  # what is done to the last one.
  milliseconds=10
  while runs "$child"; do
    pause "0.0$milliseconds"
    read -r up <../up
    # Another one may be up since.
    if [ "$up" -ge "$GENERATION" ]; then break; fi
    : >"../ping$slot"
    if [ "$milliseconds" -lt 90 ]; then milliseconds=$((milliseconds + 20)); fi
  done
  wait "$child" 2>/dev/null || :
  printf 'ended\t%s\n' "$GENERATION" >&3
}

# The process that calls this becomes inotifyd, which gives up if one path does not exist, and mixes up
# paths that it was given twice.
run_inotifyd() { # slot
  if [ "$SCOPE" = new ]; then list_new; else list_all; fi
  set -f
  # shellcheck disable=SC2086 # split on purpose, at line feeds only, without wildcards
  exec inotifyd - $WATCHES "../last$1:w" "../ping$1:w"
}

# No loop over the watches: this is what costs more the more there are.
list_all() {
  find_qos_directories
  # What ends in a name without wildcards is found only if it exists.
  WATCHES=$(
    # shellcheck disable=SC2086 # split on purpose, at line feeds
    list_directories $QOS_DIRECTORIES
    list_directories pod/*/.
    if needs_names; then list_directories logs; fi
    # shellcheck disable=SC2086 # a pattern on purpose
    if may_have_crun; then list_directories pod/*/$LONG_NAME/.; fi
    list_files 0/*/"$FILE"
    list_files 1/*/"$FILE"
  )
}

# A pattern that nothing matches stands for itself.
list_directories() { # directory...
  if [ -e "$1" ]; then printf '%s:n\n' "$@"; fi
}

list_files() { # file...
  if [ -e "$1" ]; then printf '%s:c\n' "$@"; fi
}

# No process is forked for so few.
list_new() {
  WATCHES=
  for number in $YOUNGEST_PODS$UNSCANNED; do
    add_watch "pod/$number/." n
    if may_have_crun; then
      for directory in "pod/$number"/$LONG_NAME/.; do add_watch "$directory" n; done
    fi
  done
  for key in $YOUNGEST_CONTAINERS$UNCHECKED; do
    add_watch "0/$key/$FILE" c
    add_watch "1/$key/$FILE" c
  done
}

add_watch() { # path, mask
  if ! [ -e "$1" ]; then return 0; fi
  case $NL$WATCHES in *"$NL$1:$2$NL"*) ;; *) WATCHES=$WATCHES$1:$2$NL ;; esac
}

# An inotifyd reports its ping, or that it has told everything.
watch_answered() { # path
  case $1 in
    "../ping${STARTING#*:}") watch_is_up ;;
    ../ping*) if take "*:${1#../ping}" "$SILENT"; then SILENT=$REST; fi ;;
    *)
      if take "*:${1#../last}" "$ASKED"; then
        ASKED=$REST
        ENDING=$ENDING$TAKEN$NL
        kill_watcher "$TAKEN"
      fi
      ;;
  esac
}

# Its process number is looked up when it is needed, since to be told is to be woken up.
kill_watcher() { # generation:slot
  { IFS=' ' read -r generation watcher_pid <"$RUN_DIR/pid${1#*:}"; } 2>/dev/null || return 0
  if [ "$generation" = "${1%:*}" ]; then kill -KILL "$watcher_pid" 2>/dev/null || :; fi
}

kill_watchers() {
  for watcher in $STARTING $WATCHERS $ASKED $ENDING; do kill_watcher "$watcher"; done
}

# The newest inotifyd is up: those in whose place it comes may go, once they have told what they alone
# know.
watch_is_up() {
  printf '%s\n' "$GENERATION" 1<>../up
  FAILURES=0
  replaced=$YOUNGEST
  if [ "$SCOPE" = all ]; then replaced=$WATCHERS; fi
  for one in $replaced; do
    take "$one" "$WATCHERS" || :
    WATCHERS=$REST
    ASKED=$ASKED$one$NL
    : 1<>"../last${one#*:}"
  done
  WATCHERS=$WATCHERS$STARTING$NL
  YOUNGEST=
  if [ "$SCOPE" = new ]; then YOUNGEST=$STARTING; fi
  if [ -n "$POLLER" ]; then
    kill "$POLLER" 2>/dev/null || :
    POLLER=
    log info 'inotify is back'
  fi
  if [ -n "$LOST" ] && [ "$SCOPE" = all ]; then
    LOST=
    resync
    handed_over checked
  else
    # All the rest was watched without a gap.
    handed_over
  fi
  STARTING=
  log debug 'inotifyd is up' scope "$SCOPE" number "$GENERATION"
  if [ "$SCOPE" = all ]; then rewatch_kills; fi
  if [ -n "$AGAIN" ]; then start_watcher "$AGAIN"; fi
  become_ready watching
}

watch_complained() { # text
  COMPLAINT=$1
}

# An inotifyd ended: an old one, as it should, or one that we need.
watch_ended() { # generation
  wait_for_keeper "$1"
  if take "$1:*" "$SILENT"; then SILENT=$REST; fi
  if take "$1:*" "$ENDING"; then
    ENDING=$REST
  elif take "$1:*" "$ASKED"; then
    # Nobody knows what it had still to tell.
    ASKED=$REST
    resync
  elif take "$1:*" "$WATCHERS"; then
    WATCHERS=$REST
    LOST=yes
    if [ "${YOUNGEST%:*}" = "$1" ]; then YOUNGEST=; fi
    AGAIN=all
  elif [ "${STARTING%:*}" = "$1" ]; then
    start_failed
    STARTING=
  fi
  if [ -n "$AGAIN" ]; then start_watcher "$AGAIN"; fi
}

start_failed() {
  FAILURES=$((FAILURES + 1))
  case $COMPLAINT in
    '' | *'No such file'*)
      # Killed, or a cgroup went away while it started: try again, unless that is all that happens.
      if [ "$FAILURES" -lt 50 ]; then
        hand_back
        if [ "$AGAIN" != all ]; then AGAIN=$SCOPE; fi
        return 0
      fi
      ;;
  esac
  LOST=yes
  if [ -z "$POLLER" ]; then
    log_text warn 'no inotify: polling every second until it is back' reason "$COMPLAINT" condition no_inotify
    start_poller
    become_ready watching
  fi
  resync
  handed_over checked
}

# A shell keeps the status of every job until it is asked for.
wait_for_keeper() { # generation
  take "$1:*" "$KEEPERS" || return 0
  KEEPERS=$REST
  wait "${TAKEN##*:}" 2>/dev/null || :
}

# A keeper that was killed cannot tell that its inotifyd is up, or ended; that one goes as well.
check_keepers() {
  for keeper in $KEEPERS; do
    if ! runs "${keeper##*:}"; then
      kill_watcher "${keeper%:*}"
      watch_ended "${keeper%%:*}"
    fi
  done
}

# What has been starting, ending or silent for a whole tick hangs, or its keeper does: check_keepers goes
# on without both.
check_hung() {
  for hung in $STARTING $ASKED $ENDING $SILENT; do
    case $LATE in *"$NL$hung$NL"*)
      log warn 'inotifyd hangs; another one is started'
      kill_keeper "${hung%:*}"
      ;;
    esac
  done
  SILENT=$WATCHERS
  for watcher in $WATCHERS; do : 1<>"../ping${watcher#*:}"; done
  LATE=$NL$STARTING$NL$ASKED$ENDING$SILENT
}

kill_keeper() { # generation
  take "$1:*" "$KEEPERS" || return 0
  kill -KILL "${TAKEN##*:}" 2>/dev/null || :
  wait "${TAKEN##*:}" 2>/dev/null || :
}

# Every tick is a chance that inotify is to be had again.
retry_inotify() {
  if [ -z "$POLLER" ]; then return 0; fi
  if ! runs "$POLLER"; then start_poller; fi
  FAILURES=0
  rewatch
}

start_poller() {
  every 1 poll &
  POLLER=$!
}

# On a slow node one look may take longer than the time between two.
poll() { # when it was due
  if [ "$1" -lt "$POLLED" ]; then return 0; fi
  resync
  read_uptime
  POLLED=$INSTANT
}

# A cgroup or a log file was created.
created() { # directory, name
  case $1 in
    pod/*/*/.)
      if [ "$2" = container ] && find_pod_of "${1#pod/}"; then
        directory=${1#pod/*/}
        adopt "${directory%.}container" created || expect_file
      fi
      ;;
    pod/*) if find_pod_of "${1#pod/}"; then adopt "$2" created || expect_file; fi ;;
    logs)
      for pod in $PODS; do
        case $pod in
          *' , '*) ;;
          *)
            read_fields "$pod"
            case $2 in "${NAME}_${NAMESPACE}_"*) rechoose ;; esac
            ;;
        esac
      done
      ;;
    *) attach_waiting ;;
  esac
}
