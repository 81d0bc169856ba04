# Turns an answer of the API server into one short line for each change that concerns the agent.
#
# Input, one line after the other:
#   known <uid> <mode> <namespace> <name> <overrides> <flag> ...   what the loop knows of a pod: a line of PODS in pods.sh
#   seen <resourceVersion>        the highest one that the loop was told anything with
#   an HTTP answer with its head, whose body is one watch event or one object a line (a JSON string has no raw line feed)
#   ended <HTTP status> <curl's exit status>   added by curl
# Output: fields separated by tabs, each one of our own words or checked against its alphabet. All versions are the
# highest resourceVersion so far.
#   C                               an answer of 200, which first tells of every present pod
#   O <uid> <name>=<0|1>            an override of the pod on the next line with P
#   P <uid> <0|1|-> <namespace> <name> <flag> <version>   a pod that is new, or not what the loop knows: 0 Single, 1 Group,
#                                   - neither; the flag is ok, invalid, malformed or large, see pods.sh
#   L <uid>                         a present pod, as the loop knows it; only before the first bookmark
#   G <uid> <version>               a pod lost its label, or ended
#   D <uid> <version>               a pod was deleted
#   B <version> <new|old>           a bookmark: everything up to its version was told; old if that is lower than the
#                                   version of something that was told before
#   E <HTTP status> <curl's exit status> <seconds> <reason> <message>   the end; 000 and - if curl was killed; the seconds
#                                   are those of Retry-After, or 0

BEGIN {
  # Of labels and annotations, only these are kept.
  label = "labels" SUBSEP ENVIRON["LABEL_PREFIX"] "/mode"
  annotation = "annotations" SUBSEP ENVIRON["LABEL_PREFIX"] "/containers"
  mirror = "annotations" SUBSEP "kubernetes.io/config.mirror"
  ours[label] = ours[annotation] = ours[mirror] = 1
  value["Single"] = 0; value["Group"] = 1
  # So many characters of an event are read at a time, which bounds the memory that a pod with many labels takes. An
  # event of more than the second number is not read beyond its first piece, which has the pod's name and UID in it.
  PIECE = 16384; LARGE = 1048576
  head = 1; seen = "0"; status = "000"; curl = reason = message = "-"; seconds = 0
}

/^ended [0-9]+ [0-9]+$/ { if (status !~ /^[45]/) status = $2; curl = $3; exit }
head && !code && $1 == "known" { if ($7 != "deleted") said[$2] = $3 " " $4 " " $5 " " $6 " " $7; next }
head && !code && $1 == "seen" { seen = $2; next }
head && /^HTTP\/[0-9.]+ [0-9][0-9][0-9]/ { code = $2 }
head && tolower($1) == "retry-after:" && $2 + 0 > 0 && $2 + 0 < 1000000 { seconds = int($2) }
head && $0 == "\r" && code >= 200 { head = 0; if (code == 200) say("C") }
head || $0 == "\r" || $0 == "" { next }

{
  type = number = text = why = ""; split("", field); large = length($0) > LARGE
  if (!parse(large ? substr($0, 1, PIECE) : $0) && !large) next
  if (type == "ERROR" || code >= 300) failed()
  else if (type == "ADDED" || type == "MODIFIED") changed(cgroup_uid())
  else if (type == "DELETED") departed(cgroup_uid())
  else if (type == "BOOKMARK") bookmark()
}

END { printf "E\t%s\t%s\t%s\t%s\t%s\n", status, curl, seconds, reason, message }

function say(line) { gsub(/ /, "\t", line); print line; fflush() }

# Strings are what stands between quotes; the brackets outside of them tell how deep they are. A string is a name if a
# colon follows it, and a value otherwise. No name that we look for has an escape in it: an apostrophe, which takes the
# place of each escape, is in none of their alphabets. Fails if the line is cut off.
function parse(line,    at, end, count, i, part, rest) {
  if (index(line, "\\")) gsub(/\\./, "'", line)
  depth = inside = 0; pending = rest = ""; end = length(line)
  for (at = 1; at <= end; at += PIECE) {
    count = split(rest substr(line, at, PIECE), part, "\"")
    for (i = 1; i < count; i++) token(part[i])
    rest = part[count]
  }
  token(rest)
  return depth == 0 && inside
}

# A string and what is outside of strings come in turns.
function token(text_of) {
  inside = !inside
  if (!inside) { pending = text_of; return }
  if (text_of !~ /^ *:/) string(pending)
  else if ((key[depth] = pending) == "code" && depth < 3) number = text_of
  depth += gsub(/[[{]/, "", text_of) - gsub(/[]}]/, "", text_of)
}

# A value, and the names above it.
function string(content) {
  if (depth == 1 && key[1] == "type") type = content
  else if (depth == 1 || (depth == 2 && key[1] == "object")) {
    if (key[depth] == "reason") why = content
    else if (key[depth] == "message") text = content
  } else if (key[1] == "object" && key[2] == "metadata") {
    if (depth == 3) field[key[3]] = content
    else if (depth == 4 && (key[3], key[4]) in ours) field[key[3], key[4]] = content
  }
}

# Of a Status object, which the API server answers instead, or puts into a watch that it ends.
function failed() {
  gsub(/[^0-9]/, "", number); if (length(number) == 3) status = number
  gsub(/[^A-Za-z]/, "", why); if (why != "") reason = substr(why, 1, 60)
  gsub(/[^A-Za-z0-9 .,:;'\/_()@=+-]/, "?", text); if (text != "") message = substr(text, 1, 300)
  if (type == "ERROR") exit
}

# The UID that names the pod's cgroup. A static pod's is the hash that the kubelet put into its mirror pod: it has no
# dashes, so that no annotation can point at the cgroup of an ordinary pod.
function cgroup_uid() {
  if (field[mirror] ~ /^[0-9a-f]+$/ && length(field[mirror]) == 32) return field[mirror]
  return field["uid"] ~ /^[0-9a-f-]+$/ && length(field["uid"]) == 36 ? field["uid"] : ""
}

# A resourceVersion is a decimal number that may have more digits than awk counts with.
function is_newer(one, other) {
  return length(one) != length(other) ? length(one) > length(other) : one "" > other ""
}

function note_version(version) {
  if (version ~ /^[0-9]+$/ && length(version) < 40 && is_newer(version, seen)) seen = version
}

function departed(cgroup) {
  if (cgroup == "") return
  delete said[cgroup]; note_version(field["resourceVersion"])
  say((field["deletionTimestamp"] == "" ? "G " : "D ") cgroup " " seen)
}

function bookmark(    old) {
  old = is_newer(seen, field["resourceVersion"]); note_version(field["resourceVersion"])
  if (!old) complete = 1
  say("B " seen " " (old ? "old" : "new"))
}

# Most events are changes of a pod's status. Only those that change what the loop knows are passed on.
function changed(cgroup,    mode, pod, news, count, i, override) {
  if (cgroup == "" || !named(field["namespace"], 63) || !named(field["name"], 253)) return
  mode = field[label] in value && !large ? value[field[label]] : "-"
  list = ","; flag = large ? "large" : mode == "-" ? "invalid" : "ok"
  if (flag == "ok") list_overrides(field[annotation])
  pod = mode " " field["namespace"] " " field["name"]
  news = pod " " list " " flag
  if (said[cgroup] == news) { if (!complete) say("L " cgroup); return }
  said[cgroup] = news; note_version(field["resourceVersion"])
  # One write each: writes to a FIFO are in one piece up to 4 KiB.
  count = split(list, override, ",")
  for (i = 2; i < count; i++) say("O " cgroup " " override[i])
  say("P " cgroup " " pod " " flag " " seen)
}

function named(word, most) {
  return length(word) > 0 && length(word) <= most && word !~ /[^a-z0-9.-]/
}

# Adds "worker=Single,proxy=Group" to the list, as "proxy=1,worker=0,". Of several entries for a name, the last one
# counts. Entries that are not well-formed set the flag.
function list_overrides(overrides,    i, entry, at, container, mode) {
  if (length(overrides) > 8192) { flag = "malformed"; return }
  for (i = split(overrides, entry, ","); i > 0; i--) {
    gsub(/^ +| +$/, "", entry[i])
    at = index(entry[i], "="); container = substr(entry[i], 1, at - 1); mode = substr(entry[i], at + 1)
    if (!named(container, 63) || container ~ /[.]/ || !(mode in value)) flag = "malformed"
    else if (!index(list, "," container "=")) list = list container "=" value[mode] ","
  }
}
