# Turns what metrics.sh says of the agent's state into Prometheus' text format.
#
# Input: one fact a line, as describe_state() writes them, and the files that the farm's links lead to.
# Output: the metrics of lib/private/metrics.ts. A test holds their names and texts against that list.

BEGIN {
  split("cgroup_v1 no_inotify write_refused ancestor_group systemd_oom_policy main_process_killed", CONDITIONS, " ")
}

$1 == "script" { script = $2 }
$1 == "number" { number[$2] = $3 }
$1 == "repairs" { repairs[$2] = $3 }
$1 == "apply" { bounds[++buckets] = $2; within[buckets] = $3 }
$1 == "condition" { condition[$3] = 1 }

# <pod>_<namespace>_<container>-<id>.log
$1 == "log" && split($2, part, "_") == 3 && match(part[3], /-[0-9a-f]+\.log$/) {
  name = substr(part[3], 1, RSTART - 1)
  if (name !~ /[^a-z0-9-]/) names[part[2] "/" part[1] "/" substr(part[3], RSTART + 1, 8)] = name
}

# <number> <uid> <underscored uid> <mode> <namespace> <name> ...
$1 == "pod" { namespace[$2] = $6; pod[$2] = $7 }

# <number> <kills> <group kills> ,<start of id>:<kills>:<told>:<posted>,...
$1 == "kills" {
  count = split($5, entry, ",")
  for (i = 1; i <= count; i++) if (split(entry[i], part, ":") == 4) kills[$2 "-" part[1]] = part[2]
}

# <0 or 1>/<number>-<start of id>; crun's inner level is looked at with the outer one.
$1 == "container" {
  wanted = substr($2, 1, 1)
  key = substr($2, 3)
  split(key, part, "-")
  if (!(part[1] in pod)) next
  value = effective($2)
  # It ended, and nobody has noticed yet.
  if (value == "") next
  inner = effective($2 "c")
  if (inner != "" && inner != wanted) value = inner
  id = substr(part[2], 1, 8)
  name = namespace[part[1]] "/" pod[part[1]] "/" id
  name = name in names ? names[name] : id
  labels = "namespace=\"" namespace[part[1]] "\",pod=\"" pod[part[1]] "\",container=\""
  # The one before it has not ended yet: then the id tells them apart.
  if ((labels name) in seen) name = part[2]
  seen[labels name] = 1
  order[++containers] = labels name "\""
  desired[containers] = wanted
  found[containers] = value
  killed[containers] = kills[key] + 0
  modes[wanted]++
}

END {
  head("build_info", "gauge", "Always 1; the label tells which script runs.")
  say("build_info", "script_sha256=\"" script "\"", 1)
  head("containers", "gauge", "Containers of opted-in pods on this node, by the mode they are to have.")
  say("containers", "mode=\"Single\"", modes[0] + 0)
  say("containers", "mode=\"Group\"", modes[1] + 0)
  head("container_group_desired", "gauge", "Mode the container is to have: 0 for Single, 1 for Group.")
  for (i = 1; i <= containers; i++) say("container_group_desired", order[i], desired[i])
  head("container_group_effective", "gauge", "What memory.oom.group of the container said when it was last read: 0 or 1.")
  for (i = 1; i <= containers; i++) if (found[i] ~ /^[01]$/) say("container_group_effective", order[i], found[i])
  head("writes_total", "counter", "Values written to memory.oom.group.")
  say("writes_total", "", number["writes_total"])
  head("drift_repairs_total", "counter", "Values written over a wrong one, by what told the agent: the start of a container, an event of the kernel, or the periodic look.")
  for (i = split("start event resync", cause, " "); i > 0; i--) say("drift_repairs_total", "cause=\"" cause[i] "\"", repairs[cause[i]])
  head("apply_seconds", "histogram", "How long the runtime's value stood in a starting container at most: from the last moment when nothing told of it to the write.")
  for (i = 1; i <= buckets; i++) say("apply_seconds_bucket", "le=\"" bounds[i] "\"", within[i])
  say("apply_seconds_sum", "", number["apply_hundredths"] / 100)
  say("apply_seconds_count", "", within[buckets + 0])
  head("survived_process_kills_total", "counter", "Processes that the kernel killed for memory in a container that kept running.")
  for (i = 1; i <= containers; i++) say("survived_process_kills_total", order[i], killed[i])
  head("watch_reconnects_total", "counter", "Times the watch on the API server was opened again.")
  say("watch_reconnects_total", "", number["watch_reconnects_total"])
  head("last_sync_timestamp_seconds", "gauge", "When the agent last had the complete truth from the API server, in seconds since 1970.")
  if ("last_sync_timestamp_seconds" in number) say("last_sync_timestamp_seconds", "", number["last_sync_timestamp_seconds"])
  head("condition", "gauge", "1 while there is, on this node, what keeps a mode from working; 0 otherwise.")
  for (i = 1; i in CONDITIONS; i++) say("condition", "condition=\"" CONDITIONS[i] "\"", condition[CONDITIONS[i]] + 0)
}

# What the file of a link's container says; nothing if there is none.
function effective(link,    file, text) {
  file = link "/memory.oom.group"
  text = ""
  if ((getline text < file) < 0) text = ""
  close(file)
  return text
}

function head(metric, type, help) {
  print "# HELP " prefix "_" metric " " help
  print "# TYPE " prefix "_" metric " " type
}

function say(metric, set, figure) {
  print prefix "_" metric (set == "" ? "" : "{" set "}") " " figure
}
