# shellcheck shell=sh
# One inotifyd for everything, and another one in its place when there is more to watch.

# The process that watches, and the one that starts to. They take turns with two files: the starting one's is written
# until it tells of that, then it watches.
WATCHER='' NEXT_WATCHER='' PING=$RUN_DIR/ping.0
# What no inotifyd was told of yet, and what the starting one was told of: "pod <uid>" or a container's file.
UNWATCHED='' STARTING=''
# Turns of the loop since the last start, and starts in a row that failed: after so many there is no inotify to be had,
# and everything is looked at every second. What inotifyd said last.
TURNS=0 FAILURES=0 MOST_FAILURES=10 COMPLAINT=unknown
# Set once any container has a child of crun's: then others may get one, and are watched for it.
CRUN=''

watch() { # "pod <uid>", or a file
  case $1 in */container/"$FILE") CRUN=yes ;; esac
  if has_inotify || [ -n "$NEXT_WATCHER" ]; then UNWATCHED=$UNWATCHED$1$NL; fi
}

# shellcheck disable=SC2034,SC3060 # for report.sh; busybox ash
complain() { COMPLAINT=${1//[!A-Za-z ]/}; }

has_inotify() { [ "$FAILURES" -lt "$MOST_FAILURES" ]; }
is_watching() { [ -n "$WATCHER" ] && has_inotify; }

# What nobody watches: a pod may have new containers, and a container a new value.
look_at() { # list of what watch was told of
  for item in $1; do
    case $item in
      'pod '*) if find_pod "${item#* }"; then scan_pod look; fi ;;
      *)
        file_written "$item" start
        # crun makes its child a little later.
        child=${item%"$FILE"}container/$FILE
        if [ -e "$child" ] && describe "$child"; then adopt "$child"; fi
        ;;
    esac
  done
}

# What there is to watch: inotifyd gives up if something is not there.
list_watches() {
  for directory in "$CONTAINER_LOGS" . burstable besteffort "$SLICE-burstable.slice" "$SLICE-besteffort.slice"; do
    if [ -d "$directory" ]; then printf '%s:n\n' "$directory"; fi
  done
  for record in $PODS; do
    if find_pod_directory "${record%% *}"; then printf '%s:n\n' "$POD_DIRECTORY"; fi
  done
  for container in $CONTAINERS; do
    container=${container#* }
    if [ -e "$container" ]; then
      printf '%s:c\n' "$container"
      if [ -n "$CRUN" ]; then printf '%s:n\n' "${container%/*}"; fi
    fi
  done
}

start_watcher() {
  STARTING=$STARTING$UNWATCHED UNWATCHED=''
  TURNS=0 COMPLAINT=unknown
  # shellcheck disable=SC2046 # split on purpose, by the child: there is no wildcard in these paths
  inotifyd - $(list_watches) "$PING:c" >&3 2>&1 &
  NEXT_WATCHER=$!
}

# At each turn of the loop. In a burst of starts it takes some turns to the next inotifyd: each costs CPU.
renew_watcher() {
  TURNS=$((TURNS + 1))
  if [ -z "$NEXT_WATCHER" ]; then
    if [ "$TURNS" -le 25 ] && [ ${#UNWATCHED} -le 2000 ]; then return 0; fi
    if has_inotify && { [ -n "$UNWATCHED" ] || ! is_watching; }; then start_watcher; fi
  elif runs "$NEXT_WATCHER"; then
    echo 2>&6 1<>"$PING" || :
  else
    watcher_failed
  fi
}

# What it watches and the former one did not is looked at once more.
watcher_is_up() {
  if [ -z "$NEXT_WATCHER" ]; then return 0; fi
  if ! is_watching || ! runs "$WATCHER"; then scan_soon; fi
  stop "$WATCHER"
  WATCHER=$NEXT_WATCHER NEXT_WATCHER='' FAILURES=0
  case $PING in *.0) PING=$RUN_DIR/ping.1 ;; *) PING=$RUN_DIR/ping.0 ;; esac
  log debug 'inotifyd watches all there is'
  node_condition '' no_inotify
  set -- "$STARTING"
  STARTING=
  look_at "$1"
}

# Something that it was to watch may have gone meanwhile. The former one goes on.
watcher_failed() {
  stop "$NEXT_WATCHER"
  NEXT_WATCHER=
  UNWATCHED=$STARTING$UNWATCHED STARTING=''
  if [ "$COMPLAINT" != 'No such file or directory' ]; then FAILURES=$((FAILURES + 1)); fi
  if has_inotify; then return 0; fi
  UNWATCHED=
  node_condition yes no_inotify
}

# At each tick: somebody may have killed it, and there may be inotify again.
check_watcher() {
  if [ -n "$WATCHER" ] && ! runs "$WATCHER"; then
    stop "$WATCHER"
    WATCHER=
  fi
  if ! has_inotify && [ -z "$NEXT_WATCHER" ]; then start_watcher; fi
}
