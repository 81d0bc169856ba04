# shellcheck shell=sh
# The agent's numbers, as a file for node-exporter's textfile collector.

# State: values written, "<cause>=<count>".
WRITES=$NL
# State, of the child that reports: samples of the containers, and how many have which mode.
DESIRED='' EFFECTIVE='' SURVIVED='' IN_SINGLE=0 IN_GROUP=0

# One sample for each container that has a cgroup and a link. A pause container has no link. The link of a container that
# ended stays for a while, but its cgroup does not.
sample_containers() {
  local line='' link='' key='' name='' names='' labels='' wanted='' value='' values=$NL
  for line in $CONTAINERS; do if read_value "${line#* }"; then values=$values${line%% *}=$RESULT$NL; fi; done
  for link in "$CONTAINER_LOGS"/*.log; do
    name=${link#"$CONTAINER_LOGS/"} name=${name%-*} key=${link##*-} key=${key:0:12} wanted=0 value=0
    case $name in *[!a-z0-9._-]*) continue ;; esac
    case $MODES in *"$NL$key=0$NL"*) ;; *"$NL$key=1$NL"*) wanted=1 ;; *) continue ;; esac
    case $values in *"$NL$key=0$NL"*) ;; *"$NL$key=1$NL"*) value=1 ;; *) continue ;; esac
    names=${name#*_}
    labels="{namespace=\"${names%%_*}\",pod=\"${name%%_*}\",container=\"${names#*_}\"}"
    case $DESIRED in *"$labels "*) continue ;; esac
    if [ "$wanted" = 0 ]; then IN_SINGLE=$((IN_SINGLE + 1)); else IN_GROUP=$((IN_GROUP + 1)); fi
    if find_line "kills/$key " "$RECORDS"; then read_record "$RESULT"; else COUNT=0; fi
    DESIRED="${DESIRED}oom_kill_mode_container_group_desired$labels $wanted$NL"
    EFFECTIVE="${EFFECTIVE}oom_kill_mode_container_group_effective$labels $value$NL"
    SURVIVED="${SURVIVED}oom_kill_mode_survived_process_kills_total$labels $COUNT$NL"
  done
}

metric() { # name, type, help, samples
  printf '# HELP oom_kill_mode_%s %s\n# TYPE oom_kill_mode_%s %s\n%s' "$1" "$3" "$1" "$2" "$4"
}

print_metrics() {
  local name='' value=''
  metric build_info gauge 'Always 1. The label identifies the running script.' "oom_kill_mode_build_info{script_sha256=\"$SCRIPT_SHA256\"} 1$NL"
  metric containers gauge 'Containers of opted-in pods on this node, by desired mode.' \
    "oom_kill_mode_containers{mode=\"Single\"} $IN_SINGLE${NL}oom_kill_mode_containers{mode=\"Group\"} $IN_GROUP$NL"
  metric container_group_desired gauge 'Desired mode of the container: 0 for Single, 1 for Group.' "$DESIRED"
  metric container_group_effective gauge 'Value of memory.oom.group of the container: 0 or 1.' "$EFFECTIVE"
  metric survived_process_kills_total counter \
    'Processes that the kernel killed for memory in a container that kept running.' "$SURVIVED"
  metric writes_total counter \
    'Writes to memory.oom.group: when a container started, when the kernel reported drift, when the periodic check found drift, or when a pod opted out.' ''
  for name in start event resync restore; do
    find_line "$name=" "$WRITES" || RESULT='=0'
    printf 'oom_kill_mode_writes_total{cause="%s"} %s\n' "$name" "${RESULT#*=}"
  done
  metric watch_reconnects_total counter 'Number of times that the agent reopened its watch on the API server.' \
    "oom_kill_mode_watch_reconnects_total $((CONNECTS > 0 ? CONNECTS - 1 : 0))$NL"
  [ -z "$SYNCED" ] || metric last_sync_timestamp_seconds gauge \
    'Last time at which the agent knew all opted-in pods of the node, in seconds since 1970.' \
    "oom_kill_mode_last_sync_timestamp_seconds $SYNCED$NL"
  metric condition gauge '1 while this condition prevents a mode from working on the node, otherwise 0.' ''
  for name in cgroup_v1 cgroup_not_found no_inotify write_refused contested ancestor_group systemd_oom_policy \
    invalid_mode invalid_override unknown_container name_too_long pod_too_large; do
    case $RECORDS in *"$NL$name/"*) value=1 ;; *) value=0 ;; esac
    printf 'oom_kill_mode_condition{condition="%s"} %s\n' "$name" "$value"
  done
}

# In the child that reports. Whoever reads the file sees the former one or the new one.
write_metrics() {
  if [ "$METRICS" != yes ]; then return 0; fi
  sample_containers
  print_metrics 2>&6 >"$RUN_DIR/metrics/.new" && mv -f "$RUN_DIR/metrics/.new" "$RUN_DIR/metrics/oom_kill_mode.prom"
}
