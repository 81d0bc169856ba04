# shellcheck shell=sh
# Where the cgroups of pods and containers are on this node, and what their files say.

FILE=memory.oom.group
# Matches the directories of containers, and none of the sixty files beside them.
LONG_NAME='????????????????????????????????????????????????????????????????*'
# The kubepods directory; with the systemd driver, the beginning of the names below it; and what the kubelet gives a
# container that did not opt in.
ROOT='' DRIVER='' SLICE='' NODE_VALUE=''

# Our own pod shows where all the others are and how they are named. Fails where our own container is not in our pod's
# cgroup: the kubelet and the runtime have different drivers then, or the kubelet makes no cgroups for pods.
find_kubepods() {
  # shellcheck disable=SC3060,SC2044 # busybox ash; names without line feeds
  for own in $(find "$CGROUP_ROOT" -type d \( -name "*pod${POD_UID//-/_}.slice" -o -name "pod$POD_UID" \) 2>&6); do
    for directory in "$own"/$LONG_NAME; do
      # Processes are listed by their numbers in our own namespace, where this one is.
      if grep -qsx "$$" "$directory/cgroup.procs" "$directory/container/cgroup.procs"; then
        describe_node "$own" "$directory"
        return 0
      fi
    done
  done
  return 1
}

describe_node() { # own pod's cgroup, own container's
  ROOT=${1%/*}
  case ${ROOT##*/} in burstable | besteffort | *-burstable.slice | *-besteffort.slice) ROOT=${ROOT%/*} ;; esac
  DRIVER=cgroupfs
  case $1 in
    *.slice)
      DRIVER=systemd
      SLICE=${ROOT##*/}
      SLICE=${SLICE%.slice}
      ;;
  esac
  NODE_VALUE=0
  for file in "$2/$FILE" "$2/container/$FILE"; do
    if read_value "$file" && [ "$VALUE" = 1 ]; then NODE_VALUE=1; fi
  done
  log info 'cgroups found' driver "$DRIVER" nodeValue "$NODE_VALUE"
}

# Guaranteed pods are in the root, the others below their QoS class. All paths begin there: we are there.
find_pod_directory() { # uid
  if [ "$DRIVER" = systemd ]; then
    # shellcheck disable=SC3060 # busybox ash; systemd's names have no dashes within a part
    set -- "pod${1//-/_}.slice"
    set -- "$SLICE-$1" "$SLICE-burstable.slice/$SLICE-burstable-$1" "$SLICE-besteffort.slice/$SLICE-besteffort-$1"
  else
    set -- "pod$1" "burstable/pod$1" "besteffort/pod$1"
  fi
  for POD_DIRECTORY; do
    if [ -d "$POD_DIRECTORY" ]; then return 0; fi
  done
  return 1
}

find_pod_uid() { # directory of a pod, or what is in it
  POD=${1##*pod}
  POD=${POD%%/*}
  POD=${POD%.slice}
  # shellcheck disable=SC3060 # busybox ash
  POD=${POD//_/-}
}

# Only what a runtime names: not conmon's cgroup, nor what a container made inside its own. crun keeps the processes of
# a container in a child "container", which has the same ID, and an "x" behind it in KEY.
find_id() { # a container's file or directory, or that of crun's child
  ID=${1%/"$FILE"}
  KEY=
  case $ID in */container) KEY=x ID=${ID%/container} ;; esac
  ID=${ID%.scope}
  if [ ${#ID} -lt 64 ]; then return 1; fi
  # shellcheck disable=SC3057 # busybox ash
  before=${ID:0:${#ID}-64} ID=${ID:${#ID}-64}
  case $before:$ID in *conmon-:* | *[!/-]:* | *:*[!0-9a-f]*) return 1 ;; esac
  # shellcheck disable=SC3057 # busybox ash
  KEY=${ID:0:12}$KEY
}

# The file may be gone by now. It is never empty, but for a moment in the trees of tests.
read_value() { # file
  VALUE=
  read -r VALUE 2>&6 <"$1"
}

# The hot path: one read and, if need be, one write, which does not truncate the file first: that would be one more
# event. The log comes after it.
enforce() { # mode, file, why: start, event, resync or restore
  read_value "$2" || return 0
  if [ "$VALUE" = "$1" ]; then
    if [ "$3" = resync ]; then condition '' "write_refused/$KEY"; fi
    return 0
  fi
  if printf '%s\n' "$1" 2>&6 1<>"$2"; then
    describe "$2" || :
    count_write "$3"
    log info 'kill mode written' pod "$NAMESPACE/$NAME" container "$CONTAINER" from "$VALUE" to "$1"
    condition '' "write_refused/$KEY"
  elif [ -e "$2" ]; then
    describe "$2" || :
    condition yes "write_refused/$KEY"
  fi
}
