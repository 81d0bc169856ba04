# shellcheck shell=sh
# The API server: one watch after the other, and what api.awk makes of it.

# The two processes of the watch, when it began, when the next is due, and the pause before it.
CURL='' PARSER='' BEGAN=0 DUE=0 PAUSE_SECONDS=1
# The UIDs that the present watch told of, until its first bookmark; the overrides of the pod that comes next.
LISTED='' PENDING=''
# How the last watch ended, if not well; how often one was opened; the time of the last bookmark.
PROBLEM='' CONNECTS=0 SYNCED=''

# Becomes curl for one request. The token is read anew each time, since it rotates, and goes through standard input:
# arguments are public. The answer has its head before it, and a last line of ours behind it.
call_api() { # seconds, what follows /api/v1/, more options
  case $KUBERNETES_SERVICE_HOST in
    *:*) host="[$KUBERNETES_SERVICE_HOST]" ;;
    *) host=$KUBERNETES_SERVICE_HOST ;;
  esac
  token=
  IFS= read -r token 2>&6 <"$SERVICE_ACCOUNT/token" || :
  case $token in *[!A-Za-z0-9._~+/=-]*) token= ;; esac
  seconds=$1
  path=$2
  shift 2
  exec curl -q --config - --silent --http1.1 --noproxy '*' \
    --cacert "$SERVICE_ACCOUNT/ca.crt" --user-agent cdk8s-oom-kill-mode \
    --connect-timeout 10 --speed-limit 1 --speed-time 150 --max-time "$seconds" \
    --dump-header - --no-buffer --write-out '\nended %{http_code} %{exitcode}\n' "$@" \
    "https://$host:${KUBERNETES_SERVICE_PORT:-443}/api/v1/$path" <<TOKEN 2>&6
header = "Authorization: Bearer $token"
TOKEN
}

# The metadata of this node's opted-in pods: those there are, then every change. Version 0 is answered from the API
# server's memory, and never "too old". Half an hour to an hour, as kubelets do, and not all nodes at once.
watch_pods() {
  seconds=$((1800 + 0x${POD_UID%%-*} % 1800))
  call_api $((seconds + 30)) \
    "pods?watch=1&resourceVersion=0&allowWatchBookmarks=true&timeoutSeconds=$seconds&fieldSelector=spec.nodeName%3D$NODE_NAME&labelSelector=$LABEL_PREFIX%2Fmode" \
    --header 'Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io'
}

start_api() {
  BEGAN=$UPTIME
  watch_pods >"$RUN_DIR/answers" &
  CURL=$!
  LABEL_PREFIX=$LABEL_PREFIX awk -f "$HERE/api.awk" <"$RUN_DIR/answers" >&3 2>&6 &
  PARSER=$!
}

# At each turn of the loop, and at each tick: somebody may have killed the parser. It tells of the end of curl.
renew_api() { if [ -z "$CURL" ] && [ "$UPTIME" -ge "$DUE" ]; then start_api; fi; }
check_api() { if [ -n "$CURL" ] && ! runs "$PARSER"; then end_api; fi; }

# The next one after 1, 2, 4, up to 30 seconds; or at once, if this one has lasted.
end_api() {
  stop "$CURL"
  stop "$PARSER"
  CURL='' PARSER='' LISTED=''
  if [ $((UPTIME - BEGAN)) -ge 60 ]; then PAUSE_SECONDS=1; fi
  DUE=$((UPTIME + PAUSE_SECONDS))
  PAUSE_SECONDS=$((PAUSE_SECONDS < 15 ? PAUSE_SECONDS * 2 : 30))
}

api_connected() {
  CONNECTS=$((CONNECTS + 1))
  log debug 'watch of the API server opened'
  LISTED=' ' PENDING=''
  if [ -n "$PROBLEM" ]; then log info 'API server answers again'; fi
  PROBLEM=
}

# It is the API server that ends a watch that went well.
watch_ended() { # HTTP status, "<curl's exit status> <reason> <message>", separated by tabs
  end_api
  # shellcheck disable=SC2086 # split on purpose: api.awk made them harmless
  IFS=$TAB && set -- "$1" $2 && IFS=$NL
  if [ "$1 $2" = '200 0' ] || [ "$*" = "$PROBLEM" ]; then return 0; fi
  PROBLEM="$*"
  log warn 'no answer from the API server; known pods stay as they are' status "$1" curl "$2" reason "$3" message "$4"
}

pod_told() { # uid, "<mode> <namespace> <name> <flag>", separated by tabs
  if [ -n "$LISTED" ]; then LISTED="$LISTED$1 "; fi
  # shellcheck disable=SC2086 # split on purpose: four words that api.awk checked
  IFS=$TAB && set -- "$1" $2 && IFS=$NL
  overrides=,$PENDING
  PENDING=
  if [ "$2" = - ]; then invalid=yes; else invalid=; fi
  if [ "$5" = ok ]; then malformed=; else malformed=yes; fi
  if [ -n "$invalid" ]; then opt_out "$1" invalid; else opt_in "$1" "$2" "$3" "$4" "$overrides"; fi
  # shellcheck disable=SC2034 # the current pod
  POD=$1 NAMESPACE=$3 NAME=$4
  condition "$invalid" invalid_mode/pod
  condition "$malformed" invalid_override/pod
}

# A watch first tells of every pod there is: whoever was not told of by its first bookmark left meanwhile.
bookmark_told() {
  # shellcheck disable=SC2034,SC3028 # for metrics.sh; busybox ash
  SYNCED=${EPOCHSECONDS-}
  if [ -z "$LISTED" ]; then return 0; fi
  # Of those with an invalid mode there is a record only.
  for record in $PODS $RECORDS; do
    case $record in */*) record=${record#* } ;; esac
    case "$LISTED$NODE_NAME " in
      *" ${record%% *} "*) ;;
      *) opt_out "${record%% *}" ;;
    esac
  done
  LISTED=
}
