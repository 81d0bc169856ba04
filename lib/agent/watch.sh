# shellcheck shell=sh
# inotifyd, which tells what changes in the cgroup file system.
#
# One inotifyd watches everything, because each one takes one of the 128 inotify instances that all processes of root on
# a node have together. It takes its watches as arguments only. So when there is more to watch, another inotifyd must
# start with the whole list, and there are two of them for a moment: the present one watches on while the next one sets up
# its watches, and there is no moment in which nobody watches.
#
# How do we know that the next one has all its watches? It sets them up in the order of its arguments, and its last
# argument is a ping file. At each turn, the loop writes to that file. The next one reports the write only once it
# watches the file, and so everything before it. The present one watches a ping file, too. So there are two files, and
# the two processes take turns with them: otherwise the present one would answer for the next.
#
# What is new is not watched until the next one is up. Until then the loop itself examines it every EXAMINE_SECONDS,
# because a new process would come too late. It examines it once more when the next one is up, because the last change may
# have come between the last look and the watch. Then it ends the former one.

# In a burst of starts, the next inotifyd waits for more to come, because each costs CPU: so many turns of the loop, but
# only while the list of new watches is shorter than so many characters. After so many failed starts in a row there is no
# inotify, and the loop looks at everything every second.
TURNS_TO_WAIT=25 UNWATCHED_LENGTH=2000 MOST_FAILURES=10

# State: the process that watches, the next one, and the ping file of the next one.
WATCHER='' NEXT_WATCHER='' PING=$RUN_DIR/ping.0
# State: what no inotifyd was told of yet, and what the next one was told of: "pod <uid>" or a container's file.
# Set when a new list is needed, though the loop knows of nothing that is missing in the present one.
UNWATCHED='' STARTING='' WATCH_ANEW=''
# State: turns of the loop since the last start, failed starts in a row, and what inotifyd complained of last.
TURNS=0 FAILURES=0 COMPLAINT=''

watch() { # "pod <uid>", or a file
  case $1 in */container/"$FILE") CRUN=yes ;; esac
  case $NL$UNWATCHED in *"$NL$1$NL"*) return 0 ;; esac
  if has_inotify || [ -n "$NEXT_WATCHER" ]; then UNWATCHED=$UNWATCHED$1$NL; fi
}

has_inotify() { [ "$FAILURES" -lt "$MOST_FAILURES" ]; }
is_watching() { [ -n "$WATCHER" ] && has_inotify; }

# Looks at what nobody watches: a pod may have new containers, and a container a new value.
examine() { # list of what watch was told of
  local item='' child=''
  for item in $1; do
    case $item in
      'pod '*) if find_pod "${item#* }"; then scan_pod new; fi ;;
      *)
        file_written "$item" start
        # crun makes its child a little later, and enables the files of the child after that, before the container has a
        # name. inotify does not tell of these files, so the next turn examines the container again.
        child=${item%/"$FILE"}/container
        if ! [ -d "$child" ] || ! describe "$item"; then continue; fi
        if [ -e "$child/$FILE" ]; then adopt "$child/$FILE"; elif ! is_named; then watch "$item"; fi
        ;;
    esac
  done
}

# The arguments of the next inotifyd. It gives up if one of the paths is not there, and confuses them if one is twice in
# the list.
list_watches() {
  local item=''
  for item in "$CONTAINER_LOGS/" $PARENTS; do if [ -d "${item%/*}" ]; then printf '%s:n\n' "${item%/*}"; fi; done
  list_pod_directories
  for item in $RESULT; do printf '%s:n\n' "$item"; done
  for item in $CONTAINERS; do
    case $CONTESTED in *"$NL$item$NL"*) continue ;; esac
    item=${item#* }
    [ -e "$item" ] || continue
    printf '%s:c\n' "$item"
    [ -z "$CRUN" ] || printf '%s:n\n' "${item%/*}"
  done
}

start_watcher() {
  STARTING=$STARTING$UNWATCHED UNWATCHED='' WATCH_ANEW='' TURNS=0
  inotifyd - $(list_watches) "$PING:c" >&3 2>"$RUN_DIR/complaint" &
  NEXT_WATCHER=$!
}

# At each turn of the loop.
renew_watcher() {
  TURNS=$((TURNS + 1))
  if [ -n "$NEXT_WATCHER" ]; then
    if is_running "$NEXT_WATCHER"; then echo 2>&6 1<>"$PING" || :; else watcher_failed; fi
  elif [ "$TURNS" -gt "$TURNS_TO_WAIT" ] || [ ${#UNWATCHED} -gt "$UNWATCHED_LENGTH" ]; then
    if has_inotify && { [ -n "$UNWATCHED$WATCH_ANEW" ] || ! is_watching; }; then start_watcher; fi
  fi
}

# The next one told of its ping file.
watcher_is_up() {
  local started=$STARTING
  if [ -z "$NEXT_WATCHER" ]; then return 0; fi
  # Nobody watched before it.
  if ! is_watching || ! is_running "$WATCHER"; then resync_soon; fi
  stop "$WATCHER"
  WATCHER=$NEXT_WATCHER NEXT_WATCHER='' FAILURES=0 STARTING=''
  case $PING in *.0) PING=$RUN_DIR/ping.1 ;; *) PING=$RUN_DIR/ping.0 ;; esac
  log debug 'inotifyd watches everything'
  node_condition '' no_inotify
  examine "$started"
}

# The next one ended before it was up. One of its files may no longer exist. The present one goes on. The complaint of the
# next one, as "inotifyd: add watch (…) failed: …", is in a file: in the queue it would be behind
# all that others wrote before, and be read too late.
watcher_failed() {
  stop "$NEXT_WATCHER" && NEXT_WATCHER='' COMPLAINT=
  read -r COMPLAINT 2>&6 <"$RUN_DIR/complaint" || :
  COMPLAINT=${COMPLAINT##*: } COMPLAINT=${COMPLAINT//[!A-Za-z ]/}
  UNWATCHED=$STARTING$UNWATCHED STARTING='' WATCH_ANEW=yes
  if [ "$COMPLAINT" != 'No such file or directory' ]; then FAILURES=$((FAILURES + 1)); fi
  has_inotify || { UNWATCHED='' WATCH_ANEW='' && node_condition yes no_inotify; }
}

# At each tick: somebody may have killed it, and there may be inotify again.
check_watcher() {
  if [ -n "$WATCHER" ] && ! is_running "$WATCHER"; then stop "$WATCHER" && WATCHER=''; fi
  if ! has_inotify && [ -z "$NEXT_WATCHER" ]; then start_watcher; fi
}
