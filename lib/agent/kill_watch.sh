# shellcheck shell=sh
# When to look for processes that the kernel killed: inotify on the counters, kept from becoming a burden.
#
# A container that is short of memory changes its memory.events up to a hundred times a second, nearly
# always without a kill. So nobody listens to that for long: a second inotifyd, the kill watch, tells of
# the first change and ends. The counters are read a second later, then again after pauses, and only
# when they stand still there is a kill watch again. It watches pods: their counters include those of
# their containers, also of those that ended. What reads all of them runs beside the loop, which looks
# closer at the pods of which that tells.

# The kill watch: its number, counted up, the process that reads what it says, and its start.
KILL_WATCH=0
KILL_READER=
KILL_WATCH_SINCE=0
# Whether there are pods that it was not told of.
KILLS_UNWATCHED=
# The process that waits for the next look, its number, counted up, and how long it waits.
KILL_TIMER=
LOOK=0
KILL_PAUSE=$KILL_SECONDS
# Whether anything was found since that was last told.
FOUND=

# The current pod has kills that nobody was told of.
kills_found() {
  FOUND=yes
}

# There is a pod that the kill watch was not told of.
kills_unwatched() {
  KILLS_UNWATCHED=yes
}

start_kill_watch() {
  KILLS_UNWATCHED=
  for directory in pod/*; do
    if [ -e "$directory/memory.events" ]; then break; fi
  done
  if ! [ -e "$directory/memory.events" ] || [ -n "$POLLER" ]; then return 0; fi
  KILL_WATCH=$((KILL_WATCH + 1))
  read_uptime
  KILL_WATCH_SINCE=$UPTIME
  run_kill_watch 2>/dev/null | await_kill &
  KILL_READER=$!
}

# Tells its process number and becomes inotifyd.
run_kill_watch() {
  IFS=' ' read -r own _ </proc/self/stat
  printf '%s\n' "$own"
  set --
  for path in pod/*/memory.events; do
    if [ -e "$path" ]; then set -- "$@" "$path:c"; fi
  done
  exec inotifyd - "$@"
}

# The first event ends the watch, before a storm of them costs anything. What belongs together comes
# within a second. An end without any event is a pod that went away meanwhile, or no inotify.
await_kill() {
  read -r watcher
  printf '%s %s\n' "$KILL_WATCH" "$watcher" 1<>../killwatch
  seconds=1
  read -r _ || seconds=$KILL_SECONDS
  kill -KILL "$watcher" 2>/dev/null || :
  pause "$seconds"
  list_kills
  printf 'oom\t%s\n' "$KILL_WATCH" >&3
}

# Tells of the pods with kills, new or known. One grep reads the counters of all pods.
list_kills() {
  grep -s '^oom_kill [1-9]' /dev/null pod/*/memory.events | while IFS=/ read -r _ pod_number counter; do
    printf 'killed\t%s\t%s\n' "$pod_number" "${counter##* }" >&3
  done
}

# Fails if it has not told its process number yet.
stop_kill_watch() {
  if [ -z "$KILL_READER" ]; then return 0; fi
  { IFS=' ' read -r watch watcher <../killwatch; } 2>/dev/null || return 1
  if [ "$watch" != "$KILL_WATCH" ]; then return 1; fi
  kill -KILL "$KILL_READER" "$watcher" 2>/dev/null || :
  wait "$KILL_READER" 2>/dev/null || :
  KILL_READER=
}

look_later() { # seconds
  if [ -n "$KILL_TIMER" ]; then return 0; fi
  LOOK=$((LOOK + 1))
  list_kills_later "$1" &
  KILL_TIMER=$!
}

list_kills_later() { # seconds
  pause "$1"
  list_kills
  printf 'look\t%s\n' "$LOOK" >&3
}

# New pods can wait: their start is over before anybody restarts the kill watch for them, and until then
# there are the ticks.
rewatch_kills() {
  if [ -n "$KILLS_UNWATCHED" ]; then look_later "$KILL_SECONDS"; fi
}

# The kill watch saw something a second ago, and what that was is told by now.
kills_changed() { # number of the kill watch
  if [ "$1" != "$KILL_WATCH" ] || [ -z "$KILL_READER" ]; then return 0; fi
  wait "$KILL_READER" 2>/dev/null || :
  KILL_READER=
  read_uptime
  # Changes without a kill, again and again, are worth fewer and fewer looks.
  if [ -n "$FOUND" ] || [ $((UPTIME - KILL_WATCH_SINCE)) -ge $((KILL_SECONDS * 6)) ]; then
    KILL_PAUSE=$KILL_SECONDS
  else
    KILL_PAUSE=$((KILL_PAUSE * 2))
    if [ "$KILL_PAUSE" -gt $((KILL_SECONDS * 6)) ]; then KILL_PAUSE=$((KILL_SECONDS * 6)); fi
  fi
  tell_kills
  look_later "$KILL_PAUSE"
}

# The pause is over, and the counters were looked at. One whose end was found out before is not waited for:
# that would be to wait for the next.
looked_for_kills() { # number of the look
  if [ "$1" != "$LOOK" ]; then return 0; fi
  wait "$KILL_TIMER" 2>/dev/null || :
  KILL_TIMER=
  if [ -n "$FOUND" ]; then
    tell_kills
    KILL_PAUSE=$KILL_SECONDS
    look_later "$KILL_SECONDS"
  elif [ -z "$KILL_READER" ]; then
    start_kill_watch
  elif [ -n "$KILLS_UNWATCHED" ] && { ! in_burst || is_old_kill_watch; }; then
    if stop_kill_watch; then start_kill_watch; else look_later "$KILL_SECONDS"; fi
  fi
}

# Containers may start all the time: once in five minutes their pods are watched all the same.
is_old_kill_watch() {
  read_uptime
  [ $((UPTIME - KILL_WATCH_SINCE)) -ge 300 ]
}

tell_kills() {
  if [ -z "$FOUND" ]; then return 0; fi
  FOUND=
  send_events
  write_metrics
}

# Every tick looks as well, since the kill watch may have been killed, or not up yet.
check_kill_watch() {
  if [ -n "$KILL_READER" ] && ! runs "$KILL_READER"; then
    stop_kill_watch || :
    KILL_READER=
  fi
  if [ -n "$KILL_TIMER" ] && ! runs "$KILL_TIMER"; then KILL_TIMER=; fi
  if [ -n "$PODS" ]; then look_later 0; fi
}
