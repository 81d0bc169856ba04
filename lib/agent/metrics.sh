# shellcheck shell=sh
# The agent's numbers, as a file for Prometheus. The loop only counts; a process beside it writes the
# file, at ticks and when there were kills.

WRITES=0
# Values written over a wrong one, by what told: the start of a container, an event, the resync.
REPAIRS_START=0
REPAIRS_EVENT=0
REPAIRS_RESYNC=0
# Starts by how long the runtime's value stood at most, in hundredths of a second, and the sum of those.
APPLIED=0
APPLIED_2=0
APPLIED_5=0
APPLIED_10=0
APPLIED_20=0
APPLIED_50=0
APPLIED_100=0
APPLIED_SUM=0
# Files of starting containers that the runtime had not written at the uptime that follows, in hundredths
# of a second; for how many pauses they are awaited; and the uptime when there was no event last.
AWAITED=
PATIENCE=0
EMPTIED=0
# What a write would be for: one of the three, or "choice" for a label or an annotation that changed.
CAUSE=event
# How often a watch was opened, and the uptime at which the API server last gave a sign of life.
CONNECTS=0
HEARD=
# The process that writes.
METRICS_WRITER=

because() { # cause
  CAUSE=$1
}

enforce_because() { # cause, <link>/memory.oom.group
  former=$CAUSE
  CAUSE=$1
  enforce "$2"
  CAUSE=$former
}

count_write() {
  WRITES=$((WRITES + 1))
  case $CAUSE in
    start) REPAIRS_START=$((REPAIRS_START + 1)) ;;
    event) REPAIRS_EVENT=$((REPAIRS_EVENT + 1)) ;;
    resync) REPAIRS_RESYNC=$((REPAIRS_RESYNC + 1)) ;;
  esac
}

# The clock is read for the metric only.
read_hundredths() {
  IFS=' ' read -r HUNDREDTHS_NOW _ </proc/uptime
  HUNDREDTHS_NOW=${HUNDREDTHS_NOW%%.*}${HUNDREDTHS_NOW##*.}
}

# The runtime is going to write the node's value, if it has not: what is 1 was written by it, since
# systemd writes 0 only. Without a timed read nobody could say since when it stood.
expect_start() { # link, after enforce() left in VALUE what was there
  if [ "$METRICS" != yes ] || [ -z "$TIMED_READ" ]; then return 0; fi
  case ${1%%/*}:$NODE_VALUE:$VALUE in
    0:1:0)
      read_hundredths
      AWAITED=$AWAITED$1/$FILE:$HUNDREDTHS_NOW$NL
      PATIENCE=100
      ;;
  esac
}

# All events are read, so none of the awaited was written until now, if an inotifyd would have told. After
# two seconds none is going to be.
nothing_came() {
  read_hundredths
  if [ -z "$NEW_CONTAINERS$UNCHECKED" ]; then EMPTIED=$HUNDREDTHS_NOW; fi
  PATIENCE=$((PATIENCE - 1))
  if [ "$PATIENCE" -le 0 ]; then AWAITED=; fi
}

# A value was written over the runtime's, if this was awaited.
count_start() { # <link>/memory.oom.group
  take "$1:*" "$AWAITED" || return 0
  AWAITED=$REST
  since=${TAKEN##*:}
  if [ "$EMPTIED" -gt "$since" ]; then since=$EMPTIED; fi
  read_hundredths
  stood=$((HUNDREDTHS_NOW - since))
  APPLIED=$((APPLIED + 1))
  APPLIED_SUM=$((APPLIED_SUM + stood))
  APPLIED_2=$((APPLIED_2 + (stood <= 2)))
  APPLIED_5=$((APPLIED_5 + (stood <= 5)))
  APPLIED_10=$((APPLIED_10 + (stood <= 10)))
  APPLIED_20=$((APPLIED_20 + (stood <= 20)))
  APPLIED_50=$((APPLIED_50 + (stood <= 50)))
  APPLIED_100=$((APPLIED_100 + (stood <= 100)))
}

# A list is complete, a watch is open, or a bookmark came: until here the truth is known.
api_heard() {
  read_uptime
  HEARD=$UPTIME
}

watch_connected() {
  CONNECTS=$((CONNECTS + 1))
  api_heard
}

# The sidecar's mount is this very directory: it is never made anew.
prepare_metrics() {
  if [ "$METRICS" = yes ]; then
    mkdir -p "$RUN_DIR/metrics"
    chmod 755 "$RUN_DIR/metrics"
  fi
}

write_metrics() {
  if [ "$METRICS" != yes ]; then return 0; fi
  if [ -n "$METRICS_WRITER" ]; then
    if runs "$METRICS_WRITER"; then return 0; fi
    wait "$METRICS_WRITER" 2>/dev/null || :
  fi
  describe_state | make_metrics &
  METRICS_WRITER=$!
}

# The file appears complete or not at all.
make_metrics() {
  umask 022
  # On a full disk, say, the last file stays, and the next tick tries again.
  {
    awk -v prefix=oom_kill_mode -f "$HERE/metrics.awk" >../metrics/.new &&
      mv -f ../metrics/.new ../metrics/oom_kill_mode.prom
  } 2>/dev/null || :
}

# What metrics.awk reads: one fact a line.
describe_state() {
  heard=
  if [ -n "$HEARD" ]; then
    read_uptime
    heard=$(($(date +%s) - UPTIME + HEARD))
  fi
  reconnects=$((CONNECTS > 0 ? CONNECTS - 1 : 0))
  printf 'script %s\n' "$SCRIPT_SHA256"
  printf 'number %s\n' "writes_total $WRITES" "watch_reconnects_total $reconnects"
  printf 'repairs %s\n' "start $REPAIRS_START" "event $REPAIRS_EVENT" "resync $REPAIRS_RESYNC"
  printf 'apply %s\n' "0.02 $APPLIED_2" "0.05 $APPLIED_5" "0.1 $APPLIED_10" "0.2 $APPLIED_20" \
    "0.5 $APPLIED_50" "1 $APPLIED_100" "+Inf $APPLIED"
  printf 'number %s\n' "apply_hundredths $APPLIED_SUM"
  if [ -n "$heard" ]; then printf 'number %s\n' "last_sync_timestamp_seconds $heard"; fi
  for log_file in logs/*; do printf 'log %s\n' "${log_file#logs/}"; done
  for line in $PODS; do printf 'pod %s\n' "$line"; done
  for line in $KILLS; do printf 'kills %s\n' "$line"; done
  for link in 0/* 1/*; do
    if [ -e "$link" ] && ! is_inner "$link"; then printf 'container %s\n' "$link"; fi
  done
  for line in $CONDITIONS; do printf 'condition %s\n' "$line"; done
}
