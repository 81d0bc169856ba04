# shellcheck shell=sh
# The agent's numbers, as a file for node-exporter's textfile collector.

# Values written, by what told of it.
STARTS=0 DRIFTS=0 RESYNCS=0 RESTORES=0

count_write() { # start, event, resync or restore
  case $1 in
    start) STARTS=$((STARTS + 1)) ;;
    event) DRIFTS=$((DRIFTS + 1)) ;;
    resync) RESYNCS=$((RESYNCS + 1)) ;;
    restore) RESTORES=$((RESTORES + 1)) ;;
  esac
}

# Of containers with a link, which a sandbox has not. Of two with one name, one is about to end.
sample_containers() {
  DESIRED=$NL EFFECTIVE='' SURVIVED='' IN_SINGLE=0 IN_GROUP=0 values=$NL
  for item in $CONTAINERS; do
    if read_value "${item#* }"; then values=$values${item%% *}=$VALUE$NL; fi
  done
  for link in "$CONTAINER_LOGS"/*.log; do
    name=${link#"$CONTAINER_LOGS/"}
    # shellcheck disable=SC3057 # busybox ash
    key=${link##*-} name=${name%-*} key=${key:0:12}
    case $name:$MODES in
      *[!a-z0-9._-]*:*) continue ;;
      *"$NL$key=1$NL"*) wanted=1 IN_GROUP=$((IN_GROUP + 1)) ;;
      *"$NL$key=0$NL"*) wanted=0 IN_SINGLE=$((IN_SINGLE + 1)) ;;
      *) continue ;;
    esac
    container=${name#*_}
    labels="{namespace=\"${container%%_*}\",pod=\"${name%%_*}\",container=\"${container#*_}\"}"
    case $DESIRED in *"$labels "*) continue ;; esac
    DESIRED="${DESIRED}oom_kill_mode_container_group_desired$labels $wanted$NL"
    case $values in
      *"$NL$key=0$NL"*) EFFECTIVE="${EFFECTIVE}oom_kill_mode_container_group_effective$labels 0$NL" ;;
      *"$NL$key=1$NL"*) EFFECTIVE="${EFFECTIVE}oom_kill_mode_container_group_effective$labels 1$NL" ;;
    esac
    if look_up "kills/$key " "$RECORDS"; then read_record "$LINE"; else COUNT=0; fi
    SURVIVED="${SURVIVED}oom_kill_mode_survived_process_kills_total$labels $COUNT$NL"
  done
}

metric() { # name, type, help, samples
  printf '# HELP oom_kill_mode_%s %s\n# TYPE oom_kill_mode_%s %s\n%s' "$1" "$3" "$1" "$2" "$4"
}

print_metrics() {
  metric build_info gauge 'Always 1; the label tells which script runs.' "oom_kill_mode_build_info{script_sha256=\"$SCRIPT_SHA256\"} 1$NL"
  metric containers gauge 'Containers of opted-in pods on this node, by the mode they are to have.' \
    "oom_kill_mode_containers{mode=\"Single\"} $IN_SINGLE${NL}oom_kill_mode_containers{mode=\"Group\"} $IN_GROUP$NL"
  metric container_group_desired gauge 'Mode the container is to have: 0 for Single, 1 for Group.' "${DESIRED#"$NL"}"
  metric container_group_effective gauge 'What memory.oom.group of the container says: 0 or 1.' "$EFFECTIVE"
  metric survived_process_kills_total counter \
    'Processes that the kernel killed for memory in a container that kept running.' "$SURVIVED"
  metric writes_total counter 'Values written to memory.oom.group.' \
    "oom_kill_mode_writes_total $((STARTS + DRIFTS + RESYNCS + RESTORES))$NL"
  metric drift_repairs_total counter 'Values written over a wrong one, by what told the agent: the start of a container, an event of the kernel, or the periodic look.' ''
  printf 'oom_kill_mode_drift_repairs_total{cause="%s"} %s\n' start "$STARTS" event "$DRIFTS" resync "$RESYNCS"
  metric watch_reconnects_total counter 'Times the watch on the API server was opened again.' \
    "oom_kill_mode_watch_reconnects_total $((CONNECTS > 0 ? CONNECTS - 1 : 0))$NL"
  if [ -n "$SYNCED" ]; then
    metric last_sync_timestamp_seconds gauge 'When the agent last had the complete truth from the API server, in seconds since 1970.' \
      "oom_kill_mode_last_sync_timestamp_seconds $SYNCED$NL"
  fi
  metric condition gauge '1 while there is, on this node, what keeps a mode from working; 0 otherwise.' ''
  for condition in cgroup_v1 cgroup_not_found no_inotify write_refused ancestor_group systemd_oom_policy \
    invalid_mode invalid_override unknown_container; do
    case $RECORDS in *"$NL$condition/"*) VALUE=1 ;; *) VALUE=0 ;; esac
    printf 'oom_kill_mode_condition{condition="%s"} %s\n' "$condition" "$VALUE"
  done
}

# At ticks. Whoever reads it sees the former file or the new one.
write_metrics() {
  if [ "$METRICS" != yes ]; then return 0; fi
  sample_containers
  print_metrics 2>&6 >"$RUN_DIR/metrics/.new" || return 0
  mv -f "$RUN_DIR/metrics/.new" "$RUN_DIR/metrics/oom_kill_mode.prom" || :
}
