# shellcheck shell=sh
# The API server: one watch after the other, and what api.awk makes of it.

# The two processes of the watch, when it began, when the next is due, and the pause before it.
CURL=
PARSER=
BEGAN=0
DUE=0
PAUSE_SECONDS=1
# The UIDs that the present watch told of, until its first bookmark; the overrides of the pod that comes next.
LISTED=
PENDING=
# How the last watch ended, if not well.
PROBLEM=
# How often a watch was opened, and the time of the last bookmark.
CONNECTS=0
SYNCED=

# Becomes curl for one request. The token is read anew each time, since it rotates, and goes through
# standard input: arguments are public. The answer has its head before it, and our own last line after it.
call_api() { # seconds, what follows /api/v1/, more options
  case $KUBERNETES_SERVICE_HOST in
    *:*) host="[$KUBERNETES_SERVICE_HOST]" ;;
    *) host=$KUBERNETES_SERVICE_HOST ;;
  esac
  token=
  { IFS= read -r token <"$SERVICE_ACCOUNT/token"; } 2>&6 || :
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

# The metadata of this node's opted-in pods: those there are, then every change. Version 0 is answered from
# the API server's memory, whatever its version, and never "too old". Half an hour to an hour, as kubelets
# do, and not all nodes at once.
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

# The next one after 1, 2, 4, up to 30 seconds; or at once, if this one has lasted.
end_api() {
  stop "$CURL"
  stop "$PARSER"
  CURL=
  PARSER=
  LISTED=
  if [ $((UPTIME - BEGAN)) -ge 60 ]; then PAUSE_SECONDS=1; fi
  DUE=$((UPTIME + PAUSE_SECONDS))
  PAUSE_SECONDS=$((PAUSE_SECONDS < 15 ? PAUSE_SECONDS * 2 : 30))
}

# At each turn of the loop.
renew_api() {
  if [ -z "$CURL" ] && [ "$UPTIME" -ge "$DUE" ]; then start_api; fi
}

# At each tick: somebody may have killed one of them.
check_api() {
  if [ -n "$CURL" ] && ! { runs "$CURL" && runs "$PARSER"; }; then end_api; fi
}

api_event() { # kind, uid or HTTP status, the rest
  case $1 in
    connected)
      CONNECTS=$((CONNECTS + 1))
      LISTED=' '
      PENDING=
      if [ -n "$PROBLEM" ]; then log info 'API server answers again'; fi
      PROBLEM=
      ;;
    container) PENDING=$PENDING$3, ;;
    pod) pod_told "$2" "$3" ;;
    gone) opt_out "$2" ;;
    bookmark)
      # shellcheck disable=SC2034,SC3028 # for metrics.sh; busybox ash
      SYNCED=${EPOCHSECONDS-}
      forget_unlisted
      ;;
    ended) watch_ended "$2" "$3" ;;
  esac
}

# It is the API server that ends a watch that went well.
watch_ended() { # HTTP status, "<curl's exit status> <reason> <message>", separated by tabs
  end_api
  if [ "$1 ${2%%"$TAB"*}" = '200 0' ] || [ "$1 $2" = "$PROBLEM" ]; then return 0; fi
  PROBLEM="$1 $2"
  log_answer 'no answer from the API server; known pods stay as they are' "$1" "$2"
}

log_answer() { # message, HTTP status, "<curl's exit status> <reason> <message>", separated by tabs
  IFS=$TAB
  # shellcheck disable=SC2086 # split on purpose: api.awk made them harmless
  set -- "$1" "$2" $3
  IFS=$NL
  log warn "$1" status "$2" curl "$3" reason "$4" message "$5"
}

pod_told() { # uid, "<mode> <namespace> <name> <flag>", separated by tabs
  if [ -n "$LISTED" ]; then LISTED="$LISTED$1 "; fi
  IFS=$TAB
  # shellcheck disable=SC2086 # split on purpose: four words that api.awk checked
  set -- "$1" $2
  IFS=$NL
  overrides=,$PENDING
  PENDING=
  if [ "$2" = - ]; then
    opt_out "$1"
  else
    opt_in "$1" "$2" "$3" "$4" "$overrides"
  fi
  case $2 in -) condition_of "$1" "$3" "$4" yes invalid_mode/pod ;; *) condition_of "$1" "$3" "$4" '' invalid_mode/pod ;; esac
  case $5 in ok) condition '' invalid_override/pod ;; *) condition yes invalid_override/pod ;; esac
}

# A watch first tells of every pod there is: whoever was not told of by its first bookmark left meanwhile.
forget_unlisted() {
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
