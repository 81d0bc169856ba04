# shellcheck shell=sh
# What the API server says: one request after the other, and what pods.awk makes of the answers.

# Process number of the loop that makes the requests.
API=
# The UIDs of the list that is being read, and the overrides of the pod that comes next.
LISTED=' '
PENDING_UID=
PENDING=
# Whether the API server's last word was trouble.
TROUBLE=

# Becomes curl for one request. The token is read anew each time, since it rotates, and goes through
# standard input: arguments are public.
call_api() { # seconds, what follows /api/v1/, more options
  case $KUBERNETES_SERVICE_HOST in
    *:*) host="[$KUBERNETES_SERVICE_HOST]" ;;
    *) host=$KUBERNETES_SERVICE_HOST ;;
  esac
  token=
  { IFS= read -r token <"$SERVICE_ACCOUNT/token"; } 2>/dev/null || :
  case $token in *[!A-Za-z0-9._~+/=-]*) token= ;; esac
  seconds=$1
  path=$2
  shift 2
  exec curl -q --config - --silent --http1.1 --noproxy '*' \
    --cacert "$SERVICE_ACCOUNT/ca.crt" --user-agent cdk8s-oom-kill-mode \
    --connect-timeout 10 --speed-limit 1 --speed-time 150 --max-time "$seconds" "$@" \
    "https://$host:${KUBERNETES_SERVICE_PORT:-443}/api/v1/$path" <<END
header = "Authorization: Bearer $token"
END
}

# Pods, as one of the two kinds that are metadata only. curl's own report follows the answer on a line
# that no JSON can contain.
request() { # kind of object, query, seconds
  call_api "$3" "pods?fieldSelector=spec.nodeName%3D$NODE_NAME&labelSelector=$LABEL_PREFIX%2Fmode&$2" \
    --dump-header - --no-buffer --header "Accept: application/json;as=$1;v=v1;g=meta.k8s.io" \
    --write-out '\nanswer %{http_code} %{exitcode}\n'
}

# One request and its answer, from beginning to end; its outcome is left in a file, which is written in
# place: that takes no room on a disk that is full.
exchange() { # "list" or "watch", kind of object, query, seconds
  printf '\n' 1<>../outcome
  {
    # The process that is going to be curl tells its number first.
    read -r own _ </proc/self/stat
    printf '%s\n' "$own"
    request "$2" "$3" "$4"
  } | {
    read -r curl
    printf '%s\n' "$curl" 1<>../curl
    parse "$1" || :
    # Nobody would read what it still has to say.
    kill "$curl" 2>/dev/null || :
  } || :
  read -r seen status curl_exit code <../outcome || :
}

# In a process of its own: what awk complains of is for the log, and that it was killed is not.
parse() ( # "list" or "watch"
  export EVENTS="$RUN_DIR/queue" PHASE="$1" LABEL_PREFIX
  exec awk -f "$HERE/pods.awk" 1<>../outcome 2>&4
)

# Lists the opted-in pods, then watches them from there on; the same again after an error, with
# growing pauses. A watch that just ends is resumed from the last version that was seen.
follow_pods() {
  IFS=' '
  version=-
  delay=1
  problem=
  # As long as the API server itself takes by default (--min-request-timeout), since TLS anew costs as much
  # as the start of several containers. Nodes do not reconnect all at once.
  seconds=$((1800 + 0x${POD_UID%%-*} % 1800))
  while :; do
    read_uptime
    began=$UPTIME
    phase=watch
    if [ "$version" = - ]; then
      phase=list
      exchange list PartialObjectMetadataList resourceVersion=0 60
    else
      exchange watch PartialObjectMetadata \
        "watch=1&allowWatchBookmarks=true&timeoutSeconds=$seconds&resourceVersion=$version" $((seconds + 30))
    fi
    : "${status:=0}" "${curl_exit:=0}" "${code:=0}"
    if [ "${seen:--}" != - ]; then version=$seen; fi
    if [ "$status:$code" = 200:0 ] && [ "$version" != - ]; then
      problem=
      read_uptime
      # A stream that ends at once, again and again, is a problem too.
      if [ "$phase" = list ] || [ $((UPTIME - began)) -ge 5 ]; then delay=1; fi
      if [ "$phase" = list ]; then continue; fi
    else
      if [ "$problem" != "$phase:$status:$curl_exit:$code" ]; then
        printf 'trouble\t%s\n' "$phase $status $curl_exit $code" >&3
      fi
      problem=$phase:$status:$curl_exit:$code
      # Gone, unknown version, or a stream that made no sense: start over with a list.
      case $status:$code in 410:* | *:410 | *:504 | *:599) version=- ;; esac
      # It is back, and what changed meanwhile is known to a list only.
      case $phase:$status:$code in watch:410:* | watch:*:410) delay=1 ;; esac
    fi
    pause "$delay"
    delay=$((delay * 2))
    if [ "$delay" -gt 30 ]; then delay=30; fi
  done
}

# A shell says "Terminated" of a curl that it ended itself; that is not for the log.
start_api() {
  # One that was killed leaves its request behind: two watches would tell the same events in turns.
  { read -r curl <../curl && kill "$curl"; } 2>/dev/null || :
  PENDING_UID=
  follow_pods 4>&2 2>/dev/null &
  API=$!
}

check_api() {
  if ! runs "$API"; then start_api; fi
}

api_trouble() { # "request status curl code"
  TROUBLE=yes
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: four words of ours
  set -- $1
  IFS=$NL
  log warn 'no answer from the API server; known pods stay as they are' \
    request "$1" status "$2" curl "$3" code "$4"
}

# A list is complete, or a watch is open, which is minutes before it ends.
api_answers() {
  if [ -n "$TROUBLE" ]; then log info 'API server answers again'; fi
  TROUBLE=
}

# A list begins.
api_list() {
  LISTED=' '
  PENDING_UID=
}

# One override of the pod that comes next.
api_container() { # uid, "name=value"
  if [ "$PENDING_UID" != "$1" ]; then PENDING=; fi
  PENDING_UID=$1
  PENDING=$PENDING$2,
}

api_pod() { # uid, "mode namespace name flag"
  if [ "$PENDING_UID" != "$1" ]; then PENDING=; fi
  overrides=,$PENDING
  PENDING_UID=
  PENDING=
  uid=$1
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: four words that pods.awk checked
  set -- $2
  IFS=$NL
  if [ -n "$LISTED" ]; then LISTED="$LISTED$uid "; fi
  if [ "$4" = malformed ]; then
    log warn "annotation $LABEL_PREFIX/containers has an entry that is not <container>=Single|Group" pod "$2/$3"
  fi
  if [ "$1" = - ]; then
    log warn "label $LABEL_PREFIX/mode is neither Single nor Group" pod "$2/$3"
    opt_out "$uid"
  else
    opt_in "$uid" "$1" "$2" "$3" "$overrides"
  fi
  check_children
}

# The list is complete: who is not in it left while nobody listened.
api_synced() {
  api_answers
  api_heard
  for pod in $PODS; do
    uid=${pod#* }
    uid=${uid%% *}
    case $LISTED in *" $uid "*) ;; *) opt_out "$uid" ;; esac
  done
  LISTED=
  forget_earlier_kills
  release_earlier
  become_ready synced
}
