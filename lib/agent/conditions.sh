# shellcheck shell=sh
# Conditions: reasons why a mode does not work. Each has a heading in docs/troubleshooting.md. The log and one Event report
# a condition once, until it ends.

# State: what Events report, conditions and kills alike, one line each:
#   <what>/<whose> <uid> <namespace> <name> <count> <told> <earliest> <pause> <since>
# what is a condition or "kills"; whose is the key of a container, the name of one, "pod" or "node"; told is how much of
# the count an Event has told; earliest is the uptime at which the next Event may be sent, pause the seconds until then
# after the last one; since is the time of the first.
RECORDS=$NL

read_record() { # line of RECORDS
  IFS=' ' && set -- $1 && IFS=$NL
  WHAT=${1%%/*} WHOSE=${1#*/} POD=$2 NAMESPACE=$3 NAME=$4 COUNT=$5 TOLD=$6 EARLIEST=$7 LAST_PAUSE=$8 SINCE=$9
}

# For the current pod: what/whose, the count, and how much of it was told.
add_record() { RECORDS="$RECORDS$1 $POD $NAMESPACE $NAME $2 $3 0 0 -$NL"; }

# Whether the current pod has a condition.
condition() { # nothing if not, condition/whose
  local level=warn kind=pod whose=$NAMESPACE/$NAME
  case $2 in */node) level=error kind=node whose=$NAME ;; esac
  if find_line "$2 $POD " "$RECORDS"; then
    if [ -n "$1" ]; then return 0; fi
    without_line "$2 $POD " "$RECORDS" && RECORDS=$RESULT
    log info 'works again' condition "${2%%/*}" "$kind" "$whose"
  elif [ -n "$1" ]; then
    add_record "$2" 1 0
    explain "${2%%/*}" "${2#*/}"
    log "$level" "$MESSAGE" condition "${2%%/*}" "$kind" "$whose" container "$CONTAINER"
  fi
}

# Whether the node has a condition. For Events, a node is in the namespace default, and its name is its UID.
node_condition() { POD=$NODE_NAME NAMESPACE=default NAME=$NODE_NAME && condition "$1" "$2/node"; }

# Ends the conditions of a pod without a line in the log. Its kills stay, because they end with their containers.
end_conditions() { # uid, the beginning of those that stay
  local line=''
  for line in $RECORDS; do
    case $line in kills/* | "${2:-kills}"*) ;; *" $1 "*) without_line "$line" "$RECORDS" && RECORDS=$RESULT ;; esac
  done
}

# Explains a condition in sentences: MESSAGE. CONTAINER is "-" if the condition is about no container.
explain() { # condition or "kills", whose
  local label=$LABEL_PREFIX/mode annotation=$LABEL_PREFIX/containers
  CONTAINER=- MESSAGE=
  case $1 in unknown_container | name_too_long) CONTAINER=$2 ;; esac
  case $1 in kills | write_refused | contested | systemd_oom_policy) KEY=$2 && name_container ;; esac
  case $1 in
    cgroup_v1) MESSAGE='The node has cgroup v1. The kernel kills single processes there, whatever the label says.' ;;
    cgroup_not_found) MESSAGE="The agent's own container is not in the cgroup of its pod, so the agent cannot find any container. Do the kubelet and the runtime have the same cgroup driver?" ;;
    no_inotify) MESSAGE="The agent gets no inotify (${COMPLAINT:-unknown}). It looks at everything every second." ;;
    write_refused) MESSAGE="The node does not let the agent write memory.oom.group of container $CONTAINER. Possible causes are SELinux, a read-only mount and a user namespace." ;;
    contested) MESSAGE="The agent had to repair memory.oom.group of container $CONTAINER more than $MOST_REPAIRS times within a second. It now sets the file every $TICK_SECONDS seconds, and watches it again after the next resync." ;;
    ancestor_group) MESSAGE='A cgroup above the containers has memory.oom.group=1. If its limit is hit, the kernel kills everything in it, although the mode is Single.' ;;
    systemd_oom_policy) MESSAGE="The scope of container $CONTAINER has OOMPolicy=kill or stop. With kill, systemd 253 to 258 ends the whole scope after any kill, although the mode is Single, and with stop every version does; see docs/systemd.md of cdk8s-oom-kill-mode." ;;
    invalid_mode) MESSAGE="The label $label is neither Single nor Group, so the pod is not opted in." ;;
    invalid_override) MESSAGE="The annotation $annotation has an entry that is not <container>=Single or <container>=Group. The agent ignores such entries." ;;
    unknown_container) MESSAGE="The annotation $annotation names the container $CONTAINER, and no container of that name has started. Either the name is misspelt, or the container waits for an init container." ;;
    name_too_long) MESSAGE="The names of the pod, its namespace and its container $CONTAINER have $((${#NAME} + ${#NAMESPACE} + ${#CONTAINER})) characters together. Beyond $MOST_NAME_CHARACTERS the agent cannot tell containers apart, so the entry of $CONTAINER in the annotation $annotation does nothing." ;;
    pod_too_large) MESSAGE="The metadata of the pod is larger than 1 MiB, so the agent does not read its label and annotation." ;;
  esac
}

# Of the cgroups from the container's up to the one whose limit was hit, the highest with 1 decides.
check_ancestors() { # of the current pod, whose directory is POD_DIRECTORY
  local found='' above=$POD_DIRECTORY
  if ! [ -d "$above" ]; then return 0; fi
  while read_value "$above/$FILE"; do
    case $RESULT:$MODE$OVERRIDES in 1:0* | 1:*=0,*) found=yes ;; esac
    above=$above/..
  done
  condition "$found" ancestor_group/pod
}
