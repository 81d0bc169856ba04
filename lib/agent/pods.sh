# shellcheck shell=sh
# Which pods are opted in. api.awk tells of pods, and this file keeps what it told.

# State: all pods that the API server told of, "<uid> <mode> <namespace> <name> <overrides> <flag> <uptime>". The mode is
# 0, 1, or "-" for a pod that is not opted in, because its label says neither or was not read. The overrides are "," or
# ",name=0,name=1,". The flag is "ok", "invalid" (the label), "malformed" (the annotation has an entry that means nothing),
# "large" (neither was read) or "deleted" (from the API; it may still run). The uptime is that of the last change.
PODS=$NL
# State: the overrides of the pod that api.awk tells of next, each with a comma behind it; and the highest resourceVersion
# that anything was told with.
PENDING='' SEEN=0

# Results: the current pod, see agent.sh.
POD='' MODE=- NAMESPACE=- NAME=- OVERRIDES=, FLAG=ok HEARD=0

# Makes a pod the current one. Fails if it is not opted in.
find_pod() { # uid
  # As find_line does it, which would copy this long list.
  case $PODS in *"$NL$1 "*) ;; *) return 1 ;; esac
  for RESULT in $PODS; do case $RESULT in "$1 "*) break ;; esac done
  IFS=' ' && set -- $RESULT && IFS=$NL
  POD=$1 MODE=$2 NAMESPACE=$3 NAME=$4 OVERRIDES=$5 FLAG=$6 HEARD=$7
  [ "$MODE" != - ]
}

# Takes note of a pod, or of what changed, and makes it the current one.
store_pod() { # uid, mode, namespace, name, overrides, flag, uptime
  case $PODS in *"$NL$1 "*) without_line "$1 " "$PODS" && PODS=$RESULT ;; esac
  PODS="$PODS$1 $2 $3 $4 $5 $6 $7$NL"
  POD=$1 MODE=$2 NAMESPACE=$3 NAME=$4 OVERRIDES=$5 FLAG=$6 HEARD=$7
}

# A pod that opts in, changes its label or its annotation, or has an invalid label.
pod_told() { # uid, mode, namespace, name, flag, resourceVersion
  local mode=$2 overrides=",$PENDING" former='' pair='' found=''
  PENDING='' SEEN=$6
  note_listed "$1"
  if find_pod "$1"; then
    former="$MODE $OVERRIDES"
    # What api.awk did not read does not count.
    if [ "$5" = large ]; then mode=$MODE overrides=$OVERRIDES; fi
    if [ "$mode" = - ]; then release "$1"; fi
    if [ "$former" != "$mode $overrides" ]; then end_conditions "$1" invalid; fi
  fi
  store_pod "$1" "$mode" "$3" "$4" "$overrides" "$5" "$UPTIME"
  if [ "$mode" != - ] && [ "$former" != "$mode $overrides" ]; then opt_in "$former"; fi
  # The conditions of the label and the annotation.
  for pair in large:pod_too_large invalid:invalid_mode malformed:invalid_override; do
    case $FLAG in "${pair%:*}") found=yes ;; *) found='' ;; esac
    condition "$found" "${pair#*:}/pod"
  done
}

# The current pod is opted in, or has another mode or other overrides than before. It may have run before it had a label.
opt_in() { # what it had before, or nothing
  local what='pod opted in'
  if [ -n "$1" ]; then what='pod changed'; elif find_pod_directory "$POD"; then watch "pod $POD"; fi
  log info "$what" pod "$NAMESPACE/$NAME" mode "$MODE" overrides "$OVERRIDES"
  scan_pod start
  check_ancestors
  check_overrides
}

# The pod lost its label, or ended.
pod_left() { # uid
  if find_pod "$1"; then release "$1"; fi
  without_line "$1 " "$PODS" && PODS=$RESULT
  end_conditions "$1"
}

# The pod was deleted from the API. That says nothing about its label: its containers keep their modes as long as they
# run, which is longer than the API knows when somebody deletes it by force. The API server deletes the mirror pod of a
# static pod and makes it again while the pod runs. The cgroup of any other pod is removed before.
pod_deleted() { # uid
  if find_pod "$1" && log info 'pod deleted' pod "$NAMESPACE/$NAME" && find_pod_directory "$1"; then
    store_pod "$1" "$MODE" "$NAMESPACE" "$NAME" "$OVERRIDES" deleted "$HEARD"
  else
    without_line "$1 " "$PODS" && PODS=$RESULT
  fi
  end_conditions "$1"
}

# At the end of a resync, forgets deleted pods that no longer have a cgroup.
forget_deleted_pods() {
  local line=''
  for line in $PODS; do
    case $line in *', deleted '*) find_pod_directory "${line%% *}" || { without_line "$line" "$PODS" && PODS=$RESULT; } ;; esac
  done
}

# Sets the containers of the current pod back to the value of the node: those that the agent wrote to, and those with a
# link, because an earlier agent may have written to them. A pause container has no link, and the kubelet leaves it at 0.
release() { # uid
  local line='' released=$NL
  log info 'pod no longer opted in' pod "$NAMESPACE/$NAME"
  # If the cgroup no longer exists, the next resync does the rest.
  find_pod_directory "$1" || return 0
  for line in $CONTAINERS; do
    case $line in *" $POD_DIRECTORY/"*) ;; *) continue ;; esac
    KEY=${line%% *} released=$released$KEY$NL
    name_container
    case $WRITTEN in *"$NL$KEY$NL"*) ;; *) is_named || continue ;; esac
    enforce "$NODE_VALUE" "${line#* }" restore
  done
  forget_containers "$released" all
}
