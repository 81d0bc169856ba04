#!/bin/sh
# The agent of cdk8s-oom-kill-mode: makes memory.oom.group of the containers of opted-in pods on this
# node say what the pods' labels say, and touches nothing else.
#
# How it works. One process holds all state and does all writing: a loop that reads one queue, a FIFO,
# line by line. Two sources feed the queue: busybox inotifyd, which reports changes of the cgroup file
# system, and curl with pods.awk, which report the opted-in pods of this node. What is wanted is kept
# as symbolic links in RUN_DIR, the "farm": 0/<container> (Single) and 1/<container> (Group) lead to
# the container's memory.oom.group, so that an event's own path, "0/7-3f2a9c01", says where to look
# and what should be there: a wrong value costs one read and one write, no search and no fork. A link
# that is gone makes every event still queued for it harmless. inotifyd takes its watches as arguments
# only, so it is replaced when a cgroup appears: the new one is up before the old one ends.
#
# Usage: agent.sh           run the agent
#        agent.sh ready     exit 0 when it watches and has heard of every pod (readiness probe)
#        agent.sh live      exit 0 while its loop turns (liveness probe)
#
# Environment:
#   NODE_NAME                 the node this pod runs on
#   POD_UID                   this pod's own UID: its cgroup shows where all the others are
#   KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT   the API server, set by the kubelet
#   LABEL_PREFIX              prefix of the label and the annotation  [cdk8s-oom-kill-mode]
#   LOG_LEVEL                 error, warn, info or debug              [info]
#   RESYNC_SECONDS            time between two checks of everything   [60]
#   CGROUP_ROOT               the node's /sys/fs/cgroup               [/host/cgroup]
#   CONTAINER_LOGS            the node's /var/log/containers          [/host/containers]
#   RUN_DIR                   a writable directory                    [/run/oom-kill-mode]
#   SERVICE_ACCOUNT           directory with token and ca.crt         [where the kubelet puts them]
set -eu

: "${LABEL_PREFIX:=cdk8s-oom-kill-mode}"
: "${LOG_LEVEL:=info}"
: "${RESYNC_SECONDS:=60}"
: "${CGROUP_ROOT:=/host/cgroup}"
: "${CONTAINER_LOGS:=/host/containers}"
: "${RUN_DIR:=/run/oom-kill-mode}"
: "${SERVICE_ACCOUNT:=/var/run/secrets/kubernetes.io/serviceaccount}"

NL='
'
TAB='	'
FILE=memory.oom.group

# ---------------------------------------------------------------------------------------------- log

# One JSON object a line. Values are our own words, checked names, or went through json_safe.
log() { # level message [key value]...
  case $LOG_LEVEL:$1 in
    error:warn | error:info | error:debug | warn:info | warn:debug | info:debug) return 0 ;;
  esac
  line="{\"level\":\"$1\",\"msg\":\"$2\""
  shift 2
  while [ $# -gt 1 ]; do
    line="$line,\"$1\":\"$2\""
    shift 2
  done
  printf '%s}\n' "$line"
}

# Error texts of other programs are quoted only if no character in them could end a JSON string.
json_safe() {
  case $1 in
    *[!\ -~]* | *\"* | *\\*) safe='(not printable)' ;;
    *) safe=$1 ;;
  esac
}

# --------------------------------------------------------------------------------- where things are

# The kubepods root and the driver's way of naming differ per distribution; our own pod shows both.
find_kubepods() {
  underscored "$POD_UID"
  own=$(find "$CGROUP_ROOT" -type d \( -name "*pod$underscored.slice" -o -name "pod$POD_UID" \) 2>/dev/null | head -n 1)
  [ -n "$own" ] || return 1
  parent=${own%/*}
  case ${own##*/} in
    *.slice)
      driver=systemd
      slice=${parent##*/}
      slice=${slice%.slice}
      case $slice in
        *-burstable | *-besteffort)
          slice=${slice%-*}
          parent=${parent%/*}
          ;;
      esac
      ;;
    *)
      driver=cgroupfs
      slice=
      case $parent in */burstable | */besteffort) parent=${parent%/*} ;; esac
      ;;
  esac
  kubepods=$parent
  read_node_value "$own"
}

# What the kubelet gives containers that did not opt in, it gave to our own.
read_node_value() { # own pod's cgroup
  node_value=0
  for file in "$1"/*/"$FILE"; do
    read_value "$file" && [ "$value" = 1 ] && node_value=1
  done
  return 0
}

# systemd's names have no dashes within a part.
underscored() {
  underscored=$1
  while :; do
    case $underscored in
      *-*) underscored=${underscored%%-*}_${underscored#*-} ;;
      *) return 0 ;;
    esac
  done
}

# Guaranteed pods are in the root, the others under their QoS class.
qos_directories() {
  if [ "$driver" = systemd ]; then
    set -- "root/$slice-burstable.slice" "root/$slice-besteffort.slice"
  else
    set -- root/burstable root/besteffort
  fi
  qos=root
  for directory; do
    if [ -d "$directory" ]; then qos="$qos$NL$directory"; fi
  done
}

pod_directory() { # uid, underscored uid
  if [ "$driver" = systemd ]; then
    set -- "root/$slice-pod$2.slice" \
      "root/$slice-burstable.slice/$slice-burstable-pod$2.slice" \
      "root/$slice-besteffort.slice/$slice-besteffort-pod$2.slice"
  else
    set -- "root/pod$1" "root/burstable/pod$1" "root/besteffort/pod$1"
  fi
  for pod_directory; do
    [ -d "$pod_directory" ] && return 0
  done
  return 1
}

# Only directories that a container runtime names: not conmon, not what a container made inside.
container_id() { # directory name
  id=$1
  case $id in
    cri-containerd-*.scope | crio-*.scope | docker-*.scope)
      id=${id%.scope}
      id=${id##*-}
      ;;
    crio-*) id=${id#crio-} ;;
  esac
  case $1 in crio-conmon-*) return 1 ;; esac
  case $id in *[!0-9a-f]*) return 1 ;; esac
  [ ${#id} = 64 ]
}

# ------------------------------------------------------------------------------------------- values

# The file may be gone by now: then there is nothing to read, and nothing to do.
read_value() {
  value=
  { read -r value <"$1"; } 2>/dev/null || return 1
}

# Not truncated first (<>): a truncation would be one more event for everybody who watches the file.
write_value() { # value, file
  { printf '%s\n' "$1" 1<>"$2"; } 2>/dev/null
}

# The hot path: somebody wrote the file behind a link of the farm, or may have.
enforce() { # link
  read_value "$1" || return 0
  want=${1%%/*}
  [ "$value" = "$want" ] && return 0
  if write_value "$want" "$1"; then
    describe "${1#*/}"
    log info 'kill mode written' pod "$pod_name" container "$short_id" from "$value" to "$want"
  else
    refused "$1"
  fi
}

# A refusal is not going to change by itself: it is said once for each container.
refused() { # link
  [ -e "$1" ] || return 0
  case $refusals in *" ${1#*/} "*) return 0 ;; esac
  refusals="$refusals ${1#*/} "
  describe "${1#*/}"
  log error 'kill mode not written: the node refuses (SELinux? read-only mount? user namespace?)' \
    pod "$pod_name" container "$short_id"
}

# Names for the log, looked up after the deed.
describe() { # container
  short_id=${1#*-}
  pod_name=
  for record in $pods; do
    case $record in "${1%%-*} "*)
      fields "$record"
      pod_name=$namespace/$name
      return 0
      ;;
    esac
  done
}

enforce_all() {
  for link in 0/* 1/*; do
    enforce "$link"
  done
}

# --------------------------------------------------------------------------------------------- pods
#
# $pods holds one line for each opted-in pod: number, uid, underscored uid, mode, namespace, name,
# overrides ("," or ",name=0,name=1,"). $containers holds one line for each container cgroup: its key
# (<pod's number>-<start of the id>, also the name of its link), and its directory within the pod's.

fields() {
  IFS=' '
  # shellcheck disable=SC2086 # split on purpose: seven checked words without blanks or wildcards
  set -- $1
  IFS=$NL
  number=$1 uid=$2 under=$3 mode=$4 namespace=$5 name=$6 overrides=$7
}

find_pod() { # uid
  case $pods in *" $1 "*) ;; *) return 1 ;; esac
  for record in $pods; do
    case $record in *" $1 "*)
      fields "$record"
      return 0
      ;;
    esac
  done
}

# A pod is opted in, or its label or annotation changed.
opt_in() { # uid, mode, namespace, name, overrides
  if find_pod "$1"; then
    if [ "$mode" = "$2" ] && [ "$overrides" = "$5" ]; then return 0; fi
    replace_pod "$record" "$number $1 $under $2 $3 $4 $5"
    find_pod "$1"
    log info 'pod changed' pod "$namespace/$name" mode "$mode" overrides "$overrides"
    choose_all
    return 0
  fi
  last_number=$((last_number + 1))
  underscored "$1"
  pods="$pods$last_number $1 $underscored $2 $3 $4 $5$NL"
  find_pod "$1"
  log info 'pod opted in' pod "$namespace/$name" mode "$mode" overrides "$overrides"
  attach || :
}

# Containers go back to the node value, and are none of our business from then on.
opt_out() { # uid
  find_pod "$1" || return 0
  replace_pod "$record" ''
  # The links first: from here on no event that is still queued can write.
  rm -f "0/$number-"* "1/$number-"*
  kept=
  for entry in $containers; do
    case $entry in
      "$number-"*) restore "pod/$number/${entry#* }" ;;
      *) kept="$kept$entry$NL" ;;
    esac
  done
  containers=$kept
  rm -f "pod/$number"
  log info 'pod no longer opted in' pod "$namespace/$name"
}

replace_pod() { # old record, new record
  kept=
  for record in $pods; do
    if [ "$record" != "$1" ]; then kept="$kept$record$NL"; fi
  done
  pods=$kept${2:+$2$NL}
}

restore() { # directory
  read_value "$1/$FILE" || return 0
  back=$node_value
  if sandbox "$1"; then back=0; fi
  if [ "$value" != "$back" ]; then write_value "$back" "$1/$FILE" || :; fi
}

# The kubelet gives the pause container no value; it is the one without a log file.
sandbox() { # directory
  container_id "${1##*/}" || return 1
  for log_file in "logs/${name}_${namespace}_"*"-$id.log"; do
    if [ -L "$log_file" ]; then return 1; fi
  done
  for log_file in "logs/${name}_${namespace}_"*.log; do
    if [ -L "$log_file" ]; then return 0; fi
  done
  return 1
}

# The pod's cgroup and its API object appear in either order.
attach() { # the current pod's fields
  [ -L "pod/$number" ] && return 0
  pod_directory "$uid" "$under" || return 1
  ln -s "../$pod_directory" "pod/$number" || return 1
  new_pods=$new_pods$number$NL
  adopt_all
  rewatch
}

attach_waiting() {
  for pod in $pods; do
    if ! [ -L "pod/${pod%% *}" ]; then
      fields "$pod"
      attach || :
    fi
  done
}

adopt_all() { # the current pod's fields
  for directory in "pod/$number"/*/; do
    directory=${directory%/}
    adopt "${directory##*/}" || :
  done
}

# A container cgroup of the current pod, perhaps a new one. Fails if it has no file (yet).
adopt() { # directory within the pod's
  container_id "${1%/container}" || return 0
  [ -e "pod/$number/$1/$FILE" ] || return 1
  leaf=
  case $1 in */container) leaf=c ;; esac
  # The start of the id is enough for a name, and short events are read faster; all of it if not.
  for key in "$number-${id%"${id#????????}"}$leaf" "$number-$id$leaf"; do
    link=0/$key
    if ! [ -L "$link" ]; then link=1/$key; fi
    [ -L "$link" ] || break
    if [ "$link" -ef "pod/$number/$1/$FILE" ]; then return 0; fi
  done
  choose "$1"
  ln -s "../pod/$number/$1/$FILE" "$want/$key" 2>/dev/null || return 0
  containers="$containers$key $1$NL"
  fresh="$fresh$key$NL"
  enforce "$want/$key"
  rewatch
  # crun puts the processes one level deeper.
  if [ -z "$leaf" ] && [ -d "pod/$number/$1/container" ]; then adopt "$1/container" || :; fi
}

# The value that the current pod wants for one of its containers.
choose() { # directory within the pod's
  want=$mode
  [ "$overrides" != , ] || return 0
  container_id "${1%/container}" || return 0
  IFS=,
  for override in $overrides; do
    if [ -n "$override" ]; then
      log_name=${name}_${namespace}_${override%=*}-$id
      # The kubelet cuts names that would be too long for the file system.
      if [ ${#log_name} -gt 251 ]; then log_name=$(printf '%.251s' "$log_name"); fi
      if [ -L "logs/$log_name.log" ]; then want=${override#*=}; fi
    fi
  done
  IFS=$NL
}

# Moves the links of the current pod's containers to where they belong now.
choose_all() {
  for entry in $containers; do
    case $entry in "$number-"*)
      key=${entry%% *}
      choose "${entry#* }"
      if ! [ -L "$want/$key" ]; then
        mv -f "$((1 - want))/$key" "$want/$key"
        fresh="$fresh$key$NL"
        rewatch
      fi
      enforce "$want/$key"
      ;;
    esac
  done
}

# Forgets the cgroups that are gone.
prune() {
  kept=
  set --
  for entry in $containers; do
    key=${entry%% *}
    if [ -e "0/$key" ] || [ -e "1/$key" ]; then
      kept=$kept$entry$NL
    else
      set -- "$@" "0/$key" "1/$key"
    fi
  done
  containers=$kept
  for link in pod/*; do
    if [ -L "$link" ] && ! [ -e "$link" ]; then set -- "$@" "$link"; fi
  done
  if [ $# -gt 0 ]; then rm -f "$@"; fi
  gone=0
}

# Looks at everything: what every event would have told, had none been lost.
resync() {
  prune
  attach_waiting
  for pod in $pods; do
    fields "$pod"
    adopt_all
    if [ "$overrides" != , ]; then choose_all; fi
  done
  enforce_all
}

# ------------------------------------------------------------------------------------------ watching

# Starts an inotifyd with today's watches. While one is starting, the next one waits: a burst of new
# cgroups costs a few starts, not one each.
rewatch() {
  if [ -n "$starting" ]; then
    again=yes
    return 0
  fi
  again=
  failure=
  generation=$((generation + 1))
  starting=$generation
  # What this one will watch for the first time; what comes later is for the next one.
  unchecked=$unchecked$fresh
  fresh=
  unscanned=$unscanned$new_pods
  new_pods=
  watch_cgroups &
  wrapper=$!
  wrappers="$wrappers $generation:$!"
}

# Runs beside the loop, as the parent of one inotifyd, to tell its beginning and its end.
watch_cgroups() {
  qos_directories
  watches=
  for path in $qos logs pod/*; do
    if [ -e "$path" ]; then watches="$watches$path:n$NL"; fi
  done
  for entry in $containers; do
    key=${entry%% *}
    for link in "0/$key" "1/$key"; do
      if [ -e "$link" ]; then watches="$watches$link:c$NL"; fi
    done
    # For crun's container/ below it.
    path=pod/${key%%-*}/${entry#* }
    case $path in *.scope) if [ -d "$path" ]; then watches="$watches$path:n$NL"; fi ;; esac
  done
  ping=../ping$((generation % 2))
  set -f
  # shellcheck disable=SC2086 # split on purpose, at line feeds only, without wildcards
  inotifyd - $watches "$ping:w" >&3 2>&1 &
  child=$!
  printf 'started\t%s\t%s\n' "$generation" "$child" >&3
  # inotifyd does not say when it is ready. It adds its watches in order, so it is once it reports
  # what is done to the last one.
  while kill -0 "$child" 2>/dev/null; do
    read -r up <../up
    if [ "$up" = "$generation" ]; then break; fi
    : >"$ping"
    sleep 0.01
  done
  wait "$child" || :
  printf 'ended\t%s\n' "$generation" >&3
}

# The new inotifyd reports: the old one may go.
watch_is_up() { # path of the ping
  if [ "$starting" != "$generation" ] || [ "$1" != "../ping$((generation % 2))" ]; then return 0; fi
  printf '%s\n' "$generation" 1<>../up
  starting=
  continuous=$inotifyd
  stop_inotifyd
  inotifyd=$new_inotifyd
  attempts=0
  if [ -n "$poller" ]; then
    kill "$poller" 2>/dev/null || :
    poller=
    log info 'inotify is back'
  fi
  if [ -n "$continuous" ]; then
    # All the rest was watched without a gap.
    for key in $unchecked; do
      enforce "0/$key"
      enforce "1/$key"
    done
    for new_pod in $unscanned; do
      if pod_of "$new_pod"; then adopt_all; fi
    done
  else
    resync
  fi
  unchecked=
  unscanned=
  if [ -n "$again" ]; then rewatch; fi
  become_ready
}

stop_inotifyd() {
  if [ -n "$inotifyd" ]; then kill "$inotifyd" 2>/dev/null || :; fi
  inotifyd=
}

# An inotifyd ended: the old one, as it should, or one that we need.
watch_ended() { # generation
  reap "$1"
  if [ "$1" != "$generation" ]; then return 0; fi
  if [ -z "$starting" ]; then inotifyd=; fi
  starting=
  attempts=$((attempts + 1))
  case $failure in
    '' | *'No such file'*)
      # Killed, or a cgroup went away while it started: try again, unless that is all that happens.
      if [ "$attempts" -lt 50 ]; then
        rewatch
        return 0
      fi
      ;;
  esac
  if [ -z "$poller" ]; then
    json_safe "$failure"
    log warn 'no inotify: polling every second until it is back' reason "$safe"
    every 1 poll &
    poller=$!
  fi
  enforce_all
}

# A shell keeps the status of every job until it is asked for.
reap() { # generation
  IFS=' '
  kept=
  for pair in $wrappers; do
    case $pair in
      "$1":*) wait "${pair#*:}" || : ;;
      *) kept="$kept $pair" ;;
    esac
  done
  wrappers=$kept
  IFS=$NL
}

# A cgroup or a log file was created.
created() { # directory, name
  case $1 in
    pod/*/*)
      if [ "$2" = container ] && pod_of "${1#pod/}"; then
        adopt "${1#pod/*/}/container" || look_again
      fi
      ;;
    pod/*) if pod_of "${1#pod/}"; then adopt "$2" || look_again; fi ;;
    logs)
      for pod in $pods; do
        fields "$pod"
        case $overrides:$2 in ,:*) ;; *:"${name}_${namespace}_"*) choose_all ;; esac
      done
      ;;
    *) attach_waiting ;;
  esac
}

# The directory was here before its files: the current pod is looked at once more, a little later.
look_again() {
  new_pods=$new_pods$number$NL
  rewatch
}

pod_of() { # <number> or <number>/<directory>
  for pod in $pods; do
    case $pod in "${1%%/*} "*)
      fields "$pod"
      return 0
      ;;
    esac
  done
  return 1
}

# A watch ended because its cgroup did. If there is one of the same name, it needs a new watch.
removed() { # path
  gone=$((gone + 1))
  if [ -e "$1" ]; then
    rewatch
  elif [ "$gone" -ge 64 ]; then
    prune
  fi
}

# -------------------------------------------------------------------------------------------- the API

# One request, made by the process that calls this. curl's own report follows the answer on a line that
# no JSON can contain. The token is read anew each time, since it rotates, and goes through standard
# input: arguments are public.
request() { # kind of object, query, seconds
  case $KUBERNETES_SERVICE_HOST in
    *:*) host="[$KUBERNETES_SERVICE_HOST]" ;;
    *) host=$KUBERNETES_SERVICE_HOST ;;
  esac
  token=
  { IFS= read -r token <"$SERVICE_ACCOUNT/token"; } 2>/dev/null || :
  case $token in *[!A-Za-z0-9._~+/=-]*) token= ;; esac
  exec curl -q --config - --silent --no-buffer --http1.1 --noproxy '*' \
    --cacert "$SERVICE_ACCOUNT/ca.crt" --user-agent cdk8s-oom-kill-mode \
    --header "Accept: application/json;as=$1;v=v1;g=meta.k8s.io" \
    --connect-timeout 10 --speed-limit 1 --speed-time 150 --max-time "$3" \
    --write-out '\nanswer %{http_code} %{exitcode}\n' \
    "https://$host:${KUBERNETES_SERVICE_PORT:-443}/api/v1/pods?fieldSelector=spec.nodeName%3D$NODE_NAME&labelSelector=$LABEL_PREFIX%2Fmode&$2" <<END
header = "Authorization: Bearer $token"
END
}

# One request and its answer, from beginning to end; leaves the outcome in a file.
exchange() { # phase, kind of object, query, seconds
  : >../outcome
  {
    # The process that is going to be curl tells its number first.
    read -r own _ </proc/self/stat
    printf '%s\n' "$own"
    request "$2" "$3" "$4"
  } | {
    read -r curl
    EVENTS=$RUN_DIR/queue PHASE=$1 LABEL_PREFIX=$LABEL_PREFIX awk -f "$HERE/pods.awk" >../outcome 2>&4 || :
    # Nobody would read what it still has to say.
    kill "$curl" 2>/dev/null || :
  }
  read -r seen status failure code <../outcome || :
}

# Lists the opted-in pods, then watches them from there on; the same again after an error, with
# growing pauses. A watch that just ends is resumed from the last version that was seen.
follow_pods() {
  IFS=' '
  version=-
  delay=1
  problem=
  # Nodes do not reconnect all at once.
  seconds=$((240 + 0x${POD_UID%%-*} % 120))
  while :; do
    read_uptime
    began=$uptime
    phase=watch
    if [ "$version" = - ]; then
      phase=list
      exchange list PartialObjectMetadataList resourceVersion=0 60
    else
      exchange watch PartialObjectMetadata \
        "watch=1&allowWatchBookmarks=true&timeoutSeconds=$seconds&resourceVersion=$version" $((seconds + 30))
    fi
    : "${status:=0}" "${failure:=0}" "${code:=0}"
    if [ "${seen:--}" != - ]; then version=$seen; fi
    if [ "$status:$code" = 200:0 ] && [ "$version" != - ]; then
      if [ -n "$problem" ]; then log info 'API server answers again'; fi
      problem=
      read_uptime
      # A stream that ends at once, again and again, is a problem too.
      if [ "$phase" = list ] || [ $((uptime - began)) -ge 5 ]; then delay=1; fi
      if [ "$phase" = list ]; then continue; fi
    else
      if [ "$problem" != "$phase:$status:$failure:$code" ]; then
        log warn 'no answer from the API server; known pods stay as they are' request "$phase" status "$status" curl "$failure" code "$code"
      fi
      problem=$phase:$status:$failure:$code
      # Gone, unknown version, or a stream that made no sense: start over with a list.
      case $status:$code in 410:* | *:410 | *:504 | *:599) version=- ;; esac
    fi
    sleep "$delay" || :
    delay=$((delay * 2))
    if [ "$delay" -gt 30 ]; then delay=30; fi
  done
}

# A shell says "Terminated" of a curl that it ended itself; that is not for the log.
start_api() {
  follow_pods 4>&2 2>/dev/null &
  api=$!
}

# What pods.awk says.
api_pod() { # uid, "mode namespace name flag"
  IFS=' ' read -r new_mode new_namespace new_name flag <<END
$2
END
  found="$found$1 "
  if [ "$flag" = malformed ]; then
    log warn "annotation $LABEL_PREFIX/containers has an entry that is not <container>=Single|Group" pod "$new_namespace/$new_name"
  fi
  if [ "$new_mode" = - ]; then
    log warn "label $LABEL_PREFIX/mode is neither Single nor Group" pod "$new_namespace/$new_name"
    opt_out "$1"
  else
    opt_in "$1" "$new_mode" "$new_namespace" "$new_name" ",$pending"
  fi
  pending=
}

# The list is complete: who is not in it left while nobody listened.
api_synced() {
  for pod in $pods; do
    uid=${pod#* }
    uid=${uid%% *}
    case $found in *" $uid "*) ;; *) opt_out "$uid" ;; esac
  done
  release_earlier
  synced=yes
  become_ready
}

# -------------------------------------------------------------------------------------------- life

# The time that no change of the clock can touch.
read_uptime() {
  read -r uptime _ </proc/uptime
  uptime=${uptime%%.*}
}

every() { # seconds, word
  while :; do
    sleep "$1" || :
    printf '%s\n' "$2" >&3
  done
}

become_ready() {
  if [ -n "$synced" ] && [ -n "$inotifyd$poller" ] && ! [ -e ../ready ]; then
    : >../ready
    log info 'ready' node "$NODE_NAME" driver "$driver" nodeValue "$node_value"
  fi
}

heartbeat() {
  read_uptime
  printf '%s\n' "$uptime" 1<>../alive
}

# Whatever died is started again.
check_children() {
  if ! kill -0 "$wrapper" 2>/dev/null && [ -z "$poller" ]; then
    # Its inotifyd, if that still runs, would report to nobody who knows it.
    stop_inotifyd
    if [ -n "$starting" ] && [ -n "$new_inotifyd" ]; then kill "$new_inotifyd" 2>/dev/null || :; fi
    starting=
    rewatch
  fi
  if ! kill -0 "$api" 2>/dev/null; then
    start_api
  fi
  if ! kill -0 "$ticker" 2>/dev/null; then
    every "$RESYNC_SECONDS" tick &
    ticker=$!
  fi
}

tick() {
  heartbeat
  resync
  if [ -n "$poller" ]; then
    attempts=0
    rewatch
  fi
}

# An agent before us in the same pod may have known pods that left while it was down.
release_earlier() {
  for earlier in ../farm.*; do
    if [ "$earlier" != "../${FARM##*/}" ]; then
      for link in "$earlier"/[01]/*; do
        ours=
        for known in 0/* 1/*; do
          if [ "$link" -ef "$known" ]; then ours=yes; fi
        done
        if [ -z "$ours" ] && read_value "$link" && [ "$value" != "$node_value" ]; then
          write_value "$node_value" "$link" || :
        fi
      done
      rm -rf "$earlier"
    fi
  done
}

# A directory for our links, beside those of an agent before us, and the queue.
prepare() {
  last=0
  for farm in "$RUN_DIR"/farm.*; do
    if [ -d "$farm" ] && [ "${farm##*.}" -gt "$last" ]; then last=${farm##*.}; fi
  done
  FARM=$RUN_DIR/farm.$((last + 1))
  rm -f "$RUN_DIR/ready" "$RUN_DIR/queue"
  mkdir -p "$FARM/0" "$FARM/1" "$FARM/pod"
  mkfifo "$RUN_DIR/queue"
  printf '0\n' >"$RUN_DIR/up"
  : >"$RUN_DIR/ping0"
  : >"$RUN_DIR/ping1"
  cd "$FARM"
  ln -s "$CONTAINER_LOGS" logs
  exec 3<>"$RUN_DIR/queue"
  heartbeat
}

# On a node where there is nothing to do, or no way to do it, the agent says so and stays out of the way.
idle() { # message
  log warn "$1" node "$NODE_NAME"
  : >../ready
  while :; do
    heartbeat
    sleep "$RESYNC_SECONDS" &
    wait $! || :
  done
}

run() {
  IFS=$NL
  pods='' containers='' last_number=0 refusals='' gone=0
  generation=0 starting='' again='' inotifyd='' new_inotifyd='' wrapper='' wrappers='' attempts=0
  failure='' poller='' fresh='' unchecked='' new_pods='' unscanned='' synced='' pending='' found=' ' ticker='' api=''
  trap 'exit 0' TERM INT
  trap 'kill $inotifyd $new_inotifyd $ticker $api $poller 2>/dev/null || :' EXIT
  prepare
  if ! [ -e "$CGROUP_ROOT/cgroup.controllers" ]; then
    idle 'cgroup v1: the kernel kills single processes on this node whatever anyone wants; nothing to do'
  fi
  until find_kubepods; do
    log error "own pod's cgroup not found below CGROUP_ROOT" node "$NODE_NAME"
    heartbeat
    sleep 10
  done
  ln -s "$kubepods" root
  rewatch
  start_api
  every "$RESYNC_SECONDS" tick &
  ticker=$!
  while :; do
    IFS=$TAB read -r kind path rest <&3 || continue
    if [ "$kind" = c ]; then
      enforce "$path"
      continue
    fi
    case $kind in
      n) created "$path" "$rest" ;;
      w) watch_is_up "$path" ;;
      x) removed "$path" ;;
      o) resync ;;
      container) pending="$pending$rest," ;;
      pod) api_pod "$path" "$rest" ;;
      gone) opt_out "$path" ;;
      list) found=' ' ;;
      synced) api_synced ;;
      alive) : ;;
      started) if [ "$path" = "$generation" ]; then new_inotifyd=$rest; fi ;;
      ended) watch_ended "$path" ;;
      tick) tick ;;
      poll) resync ;;
      inotifyd:*) failure=$kind ;;
      *) log debug 'unknown event' ;;
    esac
    check_children
  done
}

live() {
  cd "$RUN_DIR"
  read_uptime
  read -r beat <alive
  [ $((uptime - beat)) -le $((RESYNC_SECONDS * 2 + 60)) ]
}

HERE=$(cd "$(dirname "$0")" && pwd)
case ${1-} in
  '') run ;;
  ready) [ -e "$RUN_DIR/ready" ] ;;
  live) live ;;
  functions) : ;; # for tests: ". agent.sh functions" only defines
  *)
    printf 'agent.sh: unknown argument; see the head of the file\n' >&2
    exit 2
    ;;
esac
