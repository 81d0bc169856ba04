# Turns an answer of the API server into one short line for each change of mind.
#
# Input: an HTTP answer with its head, whose body is one watch event or one object a line (a JSON string has
# no raw line feed), and at last "ended <HTTP status> <curl's exit status>", which curl adds.
# Output: fields separated by tabs, each one of our own words or checked against its alphabet.
#   C                                       connected: an answer of 200, which tells of every pod there is first
#   O <uid> <name>=<0|1>                    an override of the pod on the next line with P
#   P <uid> <0|1|-> <ns> <name> <flag>      a pod with the label: 0 Single, 1 Group, - neither; "ok" or "malformed"
#   G <uid>                                 gone: not opted in any more, or deleted
#   B                                       bookmark: everything up to here was told
#   E <HTTP status> <curl's exit status> <reason> <message>   ended; 000 and - if curl was killed

BEGIN {
  mode_label = ENVIRON["LABEL_PREFIX"] "/mode"
  containers_annotation = ENVIRON["LABEL_PREFIX"] "/containers"
  value["Single"] = 0; value["Group"] = 1
  head = 1
  status = "000"; curl = reason = message = "-"
}

/^ended [0-9]+ [0-9]+$/ { if (status !~ /^[45]/) status = $2; curl = $3; exit }
head && /^HTTP\/[0-9.]+ [0-9][0-9][0-9]/ { code = $2 }
head && $0 == "\r" && code >= 200 { head = 0; if (code == 200) say("C") }
head || $0 == "\r" || $0 == "" { next }

{
  type = name = namespace = uid = mirror = overrides = number = text = why = ""
  mode = "-"
  if (!parse($0)) next
  if (type == "ERROR" || code >= 300) failed()
  else if (type == "ADDED" || type == "MODIFIED") changed(cgroup_uid())
  else if (type == "DELETED" && (gone = cgroup_uid()) != "") { delete said[gone]; say("G " gone) }
  else if (type == "BOOKMARK") say("B")
}

END { printf "E\t%s\t%s\t%s\t%s\n", status, curl, reason, message }

function say(line) {
  gsub(/ /, "\t", line)
  print line
  fflush()
}

# Strings are what stands between quotes; the brackets outside of them tell how deep they are. No name that we look for
# has an escape in it: an apostrophe is in none of their alphabets. Fails if the line is cut off.
function parse(line,    count, i, structure, depth, key) {
  if (index(line, "\\")) gsub(/\\./, "'", line)
  count = split(line, part, "\"")
  for (i = 1; i <= count; i += 2) {
    structure = part[i]
    depth += gsub(/[[{]/, "", structure) - gsub(/[]}]/, "", structure)
    if (i == count) break
    if (part[i + 2] ~ /^ *:/) {
      key[depth] = part[i + 1]
      if (part[i + 1] == "code" && depth < 3) number = part[i + 2]
    } else if (depth == 1 && key[1] == "type") type = part[i + 1]
    else if (depth == 1 || (depth == 2 && key[1] == "object")) {
      if (key[depth] == "reason") why = part[i + 1]
      else if (key[depth] == "message") text = part[i + 1]
    }
    else if (key[1] == "object" && key[2] == "metadata") metadata(depth, key[3], key[4], part[i + 1])
  }
  return depth == 0 && count % 2 == 1
}

function metadata(depth, key, name_of, string) {
  if (depth == 3) {
    if (key == "name") name = string
    else if (key == "namespace") namespace = string
    else if (key == "uid") uid = string
  } else if (depth == 4) {
    if (key == "labels" && name_of == mode_label) mode = (string in value) ? value[string] : "-"
    else if (key == "annotations" && name_of == containers_annotation) overrides = string
    else if (key == "annotations" && name_of == "kubernetes.io/config.mirror") mirror = string
  }
}

# Of a Status object, which the API server answers instead, or puts into a watch that it ends.
function failed() {
  gsub(/[^0-9]/, "", number)
  if (length(number) == 3) status = number
  gsub(/[^A-Za-z]/, "", why)
  gsub(/[^A-Za-z0-9 .,:;'\/_()@=+-]/, "?", text)
  if (why != "") reason = substr(why, 1, 60)
  if (text != "") message = substr(text, 1, 300)
  if (type == "ERROR") exit
}

# The UID that names the pod's cgroup. A static pod's is the hash that the kubelet put into its mirror pod:
# it has no dashes, so that no annotation can point at the cgroup of an ordinary pod.
function cgroup_uid() {
  if (mirror ~ /^[0-9a-f]+$/ && length(mirror) == 32) return mirror
  if (uid ~ /^[0-9a-f-]+$/ && length(uid) == 36) return uid
  return ""
}

# Most events are changes of a pod's status: only what changes our mind is passed on.
function changed(cgroup,    lines, count, i, piece) {
  if (cgroup == "" || !named(namespace, 63) || !named(name, 253)) return
  lines = container_lines(cgroup) "P " cgroup " " mode " " namespace " " name " " flag
  if (said[cgroup] == lines) return
  said[cgroup] = lines
  # One write each: writes to a FIFO are in one piece up to 4 KiB.
  count = split(lines, piece, "\n")
  for (i = 1; i <= count; i++) say(piece[i])
}

function named(word, most) {
  return length(word) > 0 && length(word) <= most && word !~ /[^a-z0-9.-]/
}

# "worker=Single,proxy=Group": what is well-formed counts, the last entry of a name; the rest sets the flag.
function container_lines(cgroup,    i, entry, at, container, given, lines) {
  flag = length(overrides) > 8192 ? "malformed" : "ok"
  if (flag != "ok" || overrides == "") return ""
  for (i = split(overrides, entry, ","); i > 0; i--) {
    gsub(/^ +| +$/, "", entry[i])
    at = index(entry[i], "=")
    container = substr(entry[i], 1, at - 1)
    if (!named(container, 63) || container ~ /[.]/ || !(substr(entry[i], at + 1) in value)) flag = "malformed"
    else if (!(container in given)) {
      given[container] = 1
      lines = lines "O " cgroup " " container "=" value[substr(entry[i], at + 1)] "\n"
    }
  }
  return lines
}
