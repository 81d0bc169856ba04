# shellcheck shell=sh
# The API server: one watch of pods after the other.

# Limits, all in seconds:
#   SILENCE_SECONDS        A watch that is silent for so long has ended without notice. Bookmarks come about once a minute.
#                          Some servers send none: then a watch of a node on which nothing happens is silent, too, and
#                          the limit grows, up to MOST_SILENCE_SECONDS.
#   SHORT_WATCH_SECONDS    A watch that lasted so long after its answer was no failure, and the next one is opened at once.
#   LONGEST_PAUSE_SECONDS  After a failure, the pause doubles from one second up to this.
#   MOST_PATIENCE_SECONDS  A server that asks for a longer pause (Retry-After) is asked again all the same.
#   LASTING_SECONDS        A watch that lasted so long ends the warning that watches are cut.
#   SETTLE_SECONDS         Where there are no bookmarks, the API server has told of every pod when it was silent for so long.
SILENCE_SECONDS=150 MOST_SILENCE_SECONDS=2400 SHORT_WATCH_SECONDS=2 LONGEST_PAUSE_SECONDS=30
MOST_PATIENCE_SECONDS=300 LASTING_SECONDS=120 SETTLE_SECONDS=10

# State: the two processes of the watch, and a parser that was dead at the last tick; when the watch was answered, or
# nothing; when the next one is due, and the pause before it; how long it may be silent.
# And whether to ask for the bookmark that ends the first events. Kubernetes 1.28 answers 422 to that.
CURL='' PARSER='' DEAD_PARSER='' ANSWERED='' DUE=0 NEXT_PAUSE=1 SILENCE=$SILENCE_SECONDS INITIAL_EVENTS=yes
# State: the UIDs that the present watch told of, until all were told, and when it told something last; whether it had a
# bookmark.
# And what keeps watches from being answered, or "cut" if answered ones were cut; how many were answered; when the agent
# last knew all, in seconds since 1970.
LISTED='' TOLD_AT=0 BOOKMARKED='' PROBLEM='' CONNECTS=0 SYNCED=''

# Becomes curl for one request. The token is read anew each time, since it rotates, and goes through standard input,
# because everybody on the node can read arguments. The answer has its head before it, and a last line of ours behind it.
call_api() { # seconds of silence, seconds in all, what follows /api/v1/, more options
  local host=$KUBERNETES_SERVICE_HOST token='' silence=$1 seconds=$2 path=$3
  case $host in *:*) host="[$host]" ;; esac
  IFS= read -r token 2>&6 <"$SERVICE_ACCOUNT/token" || :
  case $token in *[!A-Za-z0-9._~+/=-]*) token= ;; esac
  shift 3
  exec curl -q --config - --silent --http1.1 --noproxy '*' \
    --cacert "$SERVICE_ACCOUNT/ca.crt" --user-agent cdk8s-oom-kill-mode \
    --connect-timeout 10 --speed-limit 1 --speed-time "$silence" --max-time "$seconds" \
    --dump-header - --no-buffer --write-out '\nended %{http_code} %{exitcode}\n' "$@" \
    "https://$host:${KUBERNETES_SERVICE_PORT:-443}/api/v1/$path" <<TOKEN 2>&6
header = "Authorization: Bearer $token"
TOKEN
}

# Asks for the metadata of this node's opted-in pods: first the present ones, then every change. Ended pods are left out,
# which may be thousands. Version 0 is answered from the API server's memory, and never "too old". A watch takes half an
# hour to an hour, as the kubelet's do, and not the same time on all nodes. First goes what the loop knows, for api.awk.
watch_pods() {
  local seconds=$((1800 + 0x${POD_UID%%-*} % 1800)) query='watch=1&resourceVersion=0&allowWatchBookmarks=true'
  printf 'known %s\n' $PODS
  printf 'seen %s\n' "$SEEN"
  # Not all agents at once, when an API server starts again.
  if [ "$CONNECTS" -gt 0 ]; then sleep "0.$((0x${POD_UID%%-*} % 10))"; fi
  query="$query${INITIAL_EVENTS:+&sendInitialEvents=true&resourceVersionMatch=NotOlderThan}&timeoutSeconds=$seconds"
  query="$query&fieldSelector=spec.nodeName%3D$NODE_NAME%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"
  call_api "$SILENCE" $((seconds + 30)) "pods?$query&labelSelector=$LABEL_PREFIX%2Fmode" \
    --header 'Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io'
}

start_api() {
  watch_pods >"$RUN_DIR/answers" &
  CURL=$!
  LABEL_PREFIX=$LABEL_PREFIX awk -f "$HERE/api.awk" <"$RUN_DIR/answers" >&3 2>&6 &
  PARSER=$!
}

# At each turn of the loop.
renew_api() {
  if [ -z "$CURL" ] && [ "$UPTIME" -ge "$DUE" ]; then start_api; fi
  if [ -n "$LISTED" ] && [ -z "$BOOKMARKED" ] && [ "$UPTIME" -ge $((TOLD_AT + SETTLE_SECONDS)) ]; then everybody_told; fi
}

# At each tick. Somebody may have killed the parser, which tells of the end of curl. If it ended by itself, what it told is
# still in the queue and is read before the next tick. Without bookmarks, an open watch is all there is to know that nothing
# was missed.
check_api() {
  if [ -n "$CURL" ] && [ "$PARSER" = "$DEAD_PARSER" ]; then end_api 0; fi
  if [ -n "$PARSER" ] && ! is_running "$PARSER"; then DEAD_PARSER=$PARSER; fi
  if [ -z "$ANSWERED" ]; then return 0; fi
  if [ -z "$LISTED$BOOKMARKED" ]; then SYNCED=${EPOCHSECONDS-}; fi
  if [ "$UPTIME" -ge $((ANSWERED + LASTING_SECONDS)) ]; then watch_lasted; fi
}

# Ends the processes of a watch, and decides when the next one is due.
end_api() { # seconds that the server asks for
  local pause=$NEXT_PAUSE patience=$(($1 < MOST_PATIENCE_SECONDS ? $1 : MOST_PATIENCE_SECONDS))
  stop "$CURL" && stop "$PARSER"
  NEXT_PAUSE=$((NEXT_PAUSE * 2 < LONGEST_PAUSE_SECONDS ? NEXT_PAUSE * 2 : LONGEST_PAUSE_SECONDS))
  if [ $((UPTIME - ${ANSWERED:-$UPTIME})) -ge "$SHORT_WATCH_SECONDS" ]; then pause=0 NEXT_PAUSE=1; fi
  DUE=$((UPTIME + (patience > pause ? patience : pause)))
  CURL='' PARSER='' ANSWERED='' LISTED=''
}

api_connected() {
  CONNECTS=$((CONNECTS + 1)) ANSWERED=$UPTIME TOLD_AT=$UPTIME LISTED=' ' BOOKMARKED='' PENDING=''
  log debug 'watch of the API server opened'
  case $PROBLEM in '' | cut) ;; *) log info 'API server answers again' && PROBLEM='' ;; esac
}

watch_ended() { # HTTP status, curl's exit status, seconds that the server asks for, reason, message
  local cut=${ANSWERED:+cut}
  end_api "$3"
  case $1:$2:$INITIAL_EVENTS:$BOOKMARKED in
    # The API server ends a watch that went well.
    200:0:*) watch_lasted ;;
    400:*:yes:* | 422:*:yes:*) INITIAL_EVENTS='' DUE=$UPTIME NEXT_PAUSE=1 ;;
    # curl gave up in the silence of a server that may send no bookmarks.
    200:28:*:) SILENCE=$((SILENCE * 4 < MOST_SILENCE_SECONDS ? SILENCE * 4 : MOST_SILENCE_SECONDS)) ;;
    *) tell_problem "$cut" "$1" "$2" "$4" "$5" ;;
  esac
}

# A watch that was answered and then cut differs from one without an answer, because the API server is likely to answer
# the next one, too. The log has one line for each kind, as long as it lasts.
tell_problem() { # "cut" if the watch was answered, or nothing; HTTP status, curl's exit status, reason, message
  local text='the API server refused the watch; known pods keep their modes' problem="${1:-$*}"
  if [ "$PROBLEM" = "$problem" ]; then return 0; fi
  PROBLEM=$problem
  case $1:$2 in
    cut:000 | *:200) text='the watch of the API server was cut; it is opened again at once' ;;
    *:000) text='the API server does not answer; known pods keep their modes' ;;
  esac
  log warn "$text" status "$2" curl "$3" reason "$4" message "$5"
}

watch_lasted() {
  if [ "$PROBLEM" = cut ]; then log info 'the watch of the API server lasts again' && PROBLEM=''; fi
}

# The present watch told of this pod.
note_listed() { # uid
  if [ -n "$LISTED" ]; then TOLD_AT=$UPTIME LISTED="$LISTED$1 "; fi
}

# A bookmark says that everything up to a resourceVersion was told. An API server whose memory is behind may send one that
# is older than what another server told before. It may tell of more pods later.
bookmark_told() { # resourceVersion, new or old
  BOOKMARKED=yes SILENCE=$SILENCE_SECONDS
  if [ "$2" = old ]; then return 0; fi
  SEEN=$1 SYNCED=${EPOCHSECONDS-}
  if [ -n "$LISTED" ]; then everybody_told; fi
}

# A watch first tells of every pod that there is. A pod that it did not tell of left while no watch was open. It may have
# lost its label or been deleted: the agent cannot know, and the containers of a deleted pod end soon.
everybody_told() {
  local line='' listed=$LISTED
  LISTED='' SYNCED=${EPOCHSECONDS-}
  for line in $PODS; do
    case $listed:$line in *" ${line%% *} "*:* | *', deleted '*) ;; *) pod_left "${line%% *}" ;; esac
  done
}
