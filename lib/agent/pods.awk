# Turns what the API server says of the opted-in pods into one short line for each change of mind.
#
# Input: an HTTP answer with its head, whose body is a PartialObjectMetadataList (PHASE=list) or a stream
# of watch events (PHASE=watch), and "\nanswer <HTTP status> <curl exit code>\n", which curl adds.
# In the body the record separator is the closing brace: every event ends with one, so the event is
# complete the moment its last byte is here, and no record is longer than the text between two braces.
#
# Output, to the FIFO named by EVENTS, fields separated by tabs. Every field is one of a fixed set of
# words, or was checked against its alphabet; no other byte of the input ever leaves this program.
#   list                                    a complete list follows
#   container <uid> <name>=<0|1>            an override of the pod on the next "pod" line
#   pod <uid> <0|1|-> <ns> <name> <flag>    opted in (0 Single, 1 Group), or with an invalid mode (-);
#                                           flag is "ok", or "malformed" for a bad annotation
#   gone <uid>                              no longer opted in, or deleted
#   synced                                  the list was complete
#   connected                               the watch is open
#   alive                                   a bookmark
# and one line to standard output at the end, for the loop that makes the requests:
#   <resourceVersion or -> <HTTP status> <curl exit code> <code of a Status object or 0>

BEGIN {
  head = 1
  events = ENVIRON["EVENTS"]
  watching = ENVIRON["PHASE"] == "watch"
  mode_label = ENVIRON["LABEL_PREFIX"] "/mode"
  containers_annotation = ENVIRON["LABEL_PREFIX"] "/containers"
  metadata = watching ? "/object/metadata" : "/items//metadata"
  value["Single"] = 0
  value["Group"] = 1
  version = "-"
  answer = "0 0"
  code = 0
  if (!watching) say("list")
}

# The head: lines up to an empty one. Without an answer there is only what curl adds.
head && /^HTTP\// { good = $2 == "200" }
head && /^answer [0-9]+ [0-9]+$/ { answer = substr($0, 8) }
head {
  if ($0 != "\r") next
  head = 0
  RS = "}"
  if (watching && good) say("connected")
  next
}

{
  # A raw line feed cannot be part of a JSON string, so this is never the API server's text.
  last = index($0, "\nanswer ") && match($0, /\nanswer [0-9]+ [0-9]+\n$/)
  # Nothing but that follows a list.
  if (complete && (last ? substr($0, 1, RSTART) : $0) ~ /[^ \r\n]/) broken = 1
  if (last) {
    answer = substr($0, RSTART + 8, RLENGTH - 9)
    exit
  }
  # No name we look for has an escape in it: "!" is in none of their alphabets.
  if (index($0, "\\")) gsub(/\\[^\n]/, "!")
  count = split($0, part, "\"")
  for (p = 1; p <= count; p++) {
    if (p > 1) {
      if (in_string) end_of_string()
      else text = ""
      in_string = !in_string
    }
    if (in_string) add(part[p])
    else structure(part[p])
  }
  if (broken) exit
  if (in_string) add("}")
  else close_object()
}

END {
  # The end of the input ends a record as well, so a list is complete only if curl says so, too.
  if (broken) code = 599
  else if (complete && answer == "200 0") {
    version = list_version
    say("synced")
  }
  close(events)
  print version, answer, code
}

function say(line) {
  print line > events
  fflush(events)
}

# Longer than the longest annotation that counts, a text is nothing we look for: the rest is not kept,
# since to append to a long text costs as much as all of it, for each of its braces.
function add(s) {
  if (index(s, "\n")) broken = 1
  if (length(text) <= 8192) text = text s
}

# What stands between strings: braces, brackets, colons, commas, numbers, true, false, null.
function structure(s,    i, c, size) {
  # Nearly all of it.
  if (s == ":") { key[depth] = text; after_colon = 1; number = ""; return }
  if (s == ",") { after_colon = 0; return }
  size = length(s)
  for (i = 1; i <= size; i++) {
    c = substr(s, i, 1)
    if (c == ":") { key[depth] = text; after_colon = 1; number = "" }
    else if (c == "{" || c == "[") open_value()
    else if (c == ",") { end_of_number(); after_colon = 0 }
    else if (c == "]") { end_of_number(); if (depth > 0) depth-- }
    else if (after_colon && c ~ /[0-9]/) number = number c
    # One line is one event: a line feed inside of one means that the rest cannot be trusted.
    else if (c == "\n" && watching && depth > 0) broken = 1
  }
}

function open_value() {
  path[depth + 1] = depth ? path[depth] "/" key[depth] : ""
  depth++
  key[depth] = ""
  after_colon = 0
  number = ""
  if (path[depth] == (watching ? "" : "/items/")) reset_pod()
}

function close_object() {
  if (depth == 0) return
  end_of_number()
  after_colon = 0
  if (watching && depth == 1) end_of_event()
  else if (!watching && path[depth] == "/items/") changed()
  else if (!watching && depth == 1) end_of_list()
  depth--
}

function end_of_number() {
  if (number != "" && key[depth] == "code" && (path[depth] == "" || path[depth] == "/object"))
    code = number + 0
  number = ""
}

function end_of_string() {
  if (!after_colon) return
  after_colon = 0
  if (path[depth] == metadata) {
    if (key[depth] in field) field[key[depth]] = text
  } else if (path[depth] == metadata "/labels") {
    if (key[depth] == mode_label) mode = (text in value) ? value[text] : "-"
  } else if (path[depth] == metadata "/annotations") {
    if (key[depth] == containers_annotation) overrides = text
    else if (key[depth] == "kubernetes.io/config.mirror") mirror = text
  } else if (path[depth] == "") {
    if (key[depth] == "type") type = text
    else if (key[depth] == "kind") kind = text
  } else if (path[depth] == "/metadata" && key[depth] == "resourceVersion") {
    list_version = text
  }
}

function reset_pod() {
  field["name"] = field["namespace"] = field["uid"] = field["resourceVersion"] = ""
  type = overrides = mirror = ""
  mode = "-"
}

function end_of_event() {
  if (type != "ERROR" && field["resourceVersion"] ~ /^[0-9]+$/) version = field["resourceVersion"]
  if (type == "ADDED" || type == "MODIFIED") changed()
  else if (type == "DELETED") gone()
  else if (type == "BOOKMARK") say("alive")
}

function end_of_list() {
  complete = kind == "PartialObjectMetadataList" && list_version ~ /^[0-9]+$/
}

# The UID that names the pod's cgroup. A static pod's is the hash that the kubelet put into its mirror
# pod. It has no dashes, so that no annotation can point at the cgroup of an ordinary pod.
function cgroup_uid() {
  if (length(mirror) == 32 && mirror !~ /[^0-9a-f]/) return mirror
  if (length(field["uid"]) == 36 && field["uid"] !~ /[^0-9a-f-]/) return field["uid"]
  return ""
}

function gone(    uid) {
  uid = cgroup_uid()
  if (uid == "") return
  delete said[uid]
  say("gone\t" uid)
}

# Most events are changes of a pod's status: only what changes our mind is passed on.
function changed(    uid, lines) {
  uid = cgroup_uid()
  if (uid == "" || !named(field["namespace"], 63) || !named(field["name"], 253)) return
  lines = container_lines(uid) "pod\t" uid "\t" mode " " field["namespace"] " " field["name"] " " flag
  if (said[uid] == lines) return
  said[uid] = lines
  count_lines = split(lines, piece, "\n")
  # One write for each line: writes to a FIFO are atomic only up to 4 KiB.
  for (l = 1; l <= count_lines; l++) say(piece[l])
}

function named(name, most) {
  return length(name) > 0 && length(name) <= most && name !~ /[^a-z0-9.-]/
}

# "worker=Single,proxy=Group": what is well-formed counts, the rest sets the flag.
function container_lines(uid,    n, i, entry, at, name, chosen, order, lines) {
  flag = "ok"
  if (overrides == "") return ""
  if (length(overrides) > 8192) { flag = "malformed"; return "" }
  n = split(overrides, entry, ",")
  for (i = 1; i <= n; i++) {
    gsub(/^ +| +$/, "", entry[i])
    at = index(entry[i], "=")
    name = substr(entry[i], 1, at - 1)
    if (at > 1 && named(name, 63) && name !~ /[.]/ && (substr(entry[i], at + 1) in value)) {
      if (!(name in chosen)) order = order " " name
      chosen[name] = value[substr(entry[i], at + 1)]
    } else flag = "malformed"
  }
  n = split(order, entry, " ")
  for (i = 1; i <= n; i++) lines = lines "container\t" uid "\t" entry[i] "=" chosen[entry[i]] "\n"
  return lines
}
