# shellcheck shell=sh
# Events, which kubectl describe shows.

# After an Event, sent or not, the next one of the same record waits: first so long, then twice as long each time, up to
# the second number. The third number limits the time of a request.
FIRST_PAUSE_SECONDS=10 MOST_PAUSE_SECONDS=300 EVENT_SECONDS=30

# State: why the API server refused the last Event.
EVENT_PROBLEM=''

# In the child that reports: one request after the other, for what was not told yet and may be told now.
send_events() {
  local line='' now='' answer=''
  if [ "$EVENTS" != yes ]; then return 0; fi
  for line in $RECORDS; do
    read_record "$line"
    if [ "$COUNT" -le "$TOLD" ] || [ "$UPTIME" -lt "$EARLIEST" ]; then continue; fi
    now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    if [ "$SINCE" = - ]; then SINCE=$now; fi
    answer=$(send_event "$now" | awk -f "$HERE/api.awk")
    # The last line is "E <status> <curl's exit status> <seconds> <reason> <message>", or missing if somebody killed awk.
    answer=${answer##*E"$TAB"}
    IFS=$TAB && set -- ${answer:-000} - - - - && IFS=$NL
    printf 'S\t%s\t%s\t%s\t%s\t%s\t%s\n' "$WHAT/$WHOSE $POD" "$COUNT" "$SINCE" "$1" "$4" "$5" >&3
    # Nobody answered, so the others need not try.
    if [ "$1" = 000 ]; then return 0; fi
  done
}

# Sends the Event of the current record. Server-side apply creates it or changes it, whichever is needed.
send_event() { # time
  local reason=OomKillModeCannotApply kind=Pod field='' event=oom-kill-mode.$POD.${WHAT//_/-}.$WHOSE
  explain "$WHAT" "$WHOSE"
  case $WHAT in kills) reason=OomKilledProcess && explain_kills ;; *) MESSAGE="$MESSAGE Condition: $WHAT" ;; esac
  if [ "$CONTAINER" != - ]; then field=",\"fieldPath\":\"spec.containers{$CONTAINER}\""; fi
  if [ "$WHOSE" = node ]; then kind=Node; fi
  call_api "$EVENT_SECONDS" "$EVENT_SECONDS" \
    "namespaces/$NAMESPACE/events/$event?fieldManager=cdk8s-oom-kill-mode&force=true" \
    --request PATCH --header 'Content-Type: application/apply-patch+yaml' --header 'Expect:' \
    --data-binary @/proc/self/fd/7 7<<EVENT
{"apiVersion":"v1","kind":"Event","metadata":{"name":"$event","namespace":"$NAMESPACE"},
"involvedObject":{"apiVersion":"v1","kind":"$kind","name":"$NAME","namespace":"$NAMESPACE","uid":"$POD"$field},
"type":"Warning","reason":"$reason","message":"$MESSAGE","count":$COUNT,"firstTimestamp":"$SINCE","lastTimestamp":"$1",
"source":{"component":"cdk8s-oom-kill-mode","host":"$NODE_NAME"},"reportingComponent":"cdk8s-oom-kill-mode","reportingInstance":"$NODE_NAME"}
EVENT
}

# In the loop: the answer to an Event.
event_sent() { # "<what>/<whose> <uid>", count, since, HTTP status, reason, message
  find_line "$1 " "$RECORDS" || return 0
  read_record "$RESULT"
  LAST_PAUSE=$((UPTIME > EARLIEST + LAST_PAUSE + TICK_SECONDS ? 0 : LAST_PAUSE * 2))
  LAST_PAUSE=$((LAST_PAUSE == 0 ? FIRST_PAUSE_SECONDS : LAST_PAUSE < MOST_PAUSE_SECONDS ? LAST_PAUSE : MOST_PAUSE_SECONDS))
  case $4:$EVENT_PROBLEM in
    2??:*) TOLD=$2 EVENT_PROBLEM='' ;;
    *:"$4 $5") ;;
    *) EVENT_PROBLEM="$4 $5" && log warn 'Event not sent; it is tried again later' status "$4" reason "$5" message "$6" ;;
  esac
  without_line "$1 " "$RECORDS" &&
    RECORDS="$RESULT$WHAT/$WHOSE $POD $NAMESPACE $NAME $COUNT $TOLD $((UPTIME + LAST_PAUSE)) $LAST_PAUSE $3$NL"
}
