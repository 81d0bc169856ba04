# shellcheck shell=sh
# Where the cgroups of pods and containers are on this node, and how to read their files. Nothing here calls a function of
# another file.

# The file with the kill mode: 0 is Single, 1 is Group.
FILE=memory.oom.group
# Matches the directories of containers, and none of the sixty files beside them.
LONG_NAME='????????????????????????????????????????????????????????????????*'

# State: the kubepods directory; the kubelet's cgroup driver; the beginnings of the paths of pods below ROOT, one for
# each directory that pods may be in; what the kubelet gives a container that did not opt in (the node value); and
# whether the runtime is crun, which keeps the processes of a container in a child of its cgroup.
ROOT='' DRIVER='' PARENTS='' NODE_VALUE=0 CRUN=''

# Our own pod shows where all the others are and how they are named. This fails where our own container is not in the
# cgroup of our pod: the kubelet and the runtime have different drivers then, or the kubelet makes no cgroups for pods.
find_kubepods() {
  local own='' directory=''
  # shellcheck disable=SC2044 # these names have no line feed
  for own in $(find "$CGROUP_ROOT" -type d \( -name "*pod${POD_UID//-/_}.slice" -o -name "pod$POD_UID" \) 2>&6); do
    for directory in "$own"/$LONG_NAME; do
      # The kernel lists processes by their numbers in the reader's namespace, where this shell has the number $$.
      if grep -qsx "$$" "$directory/cgroup.procs" "$directory/container/cgroup.procs"; then
        describe_node "$own"
        if [ -d "$directory/container" ]; then CRUN=yes; fi
        # Nobody opts our own container in: it has what the kubelet gives.
        if grep -qsx 1 "$directory/$FILE" "$directory/container/$FILE"; then NODE_VALUE=1; fi
        return 0
      fi
    done
  done
  return 1
}

# Guaranteed pods are in the kubepods directory itself, the others below their QoS class. Kubernetes 1.38 plans a level
# "system" for some pods, with the same classes below it. Our own pod may be on any of these levels.
describe_node() { # the directory of our own pod
  local slice='' above=.
  ROOT=${1%/*}
  case ${ROOT##*/} in burstable | besteffort | *-burstable.slice | *-besteffort.slice) ROOT=${ROOT%/*} ;; esac
  case ${ROOT##*/} in system | *-system.slice) ROOT=${ROOT%/*} ;; esac
  PARENTS="./${NL}burstable/${NL}besteffort/${NL}system/${NL}system/burstable/${NL}system/besteffort/"
  case $1 in *.slice) DRIVER=systemd PARENTS='' ;; *) DRIVER=cgroupfs && return 0 ;; esac
  # A slice has the names of all those above it in its own name.
  slice=${ROOT##*/}
  for slice in "${slice%.slice}" "${slice%.slice}-system"; do
    PARENTS=$PARENTS$above/$slice-$NL
    PARENTS=$PARENTS$above/$slice-burstable.slice/$slice-burstable-$NL
    PARENTS=$PARENTS$above/$slice-besteffort.slice/$slice-besteffort-$NL
    above=./$slice-system.slice
  done
}

# The directory of a pod: POD_DIRECTORY. All paths are relative to ROOT, where this shell is.
find_pod_directory() { # uid
  local name="pod$1" parent=''
  # systemd's names have no dashes within a part.
  if [ "$DRIVER" = systemd ]; then name=pod${1//-/_}.slice; fi
  for parent in $PARENTS; do POD_DIRECTORY=$parent$name && if [ -d "$POD_DIRECTORY" ]; then return 0; fi; done
  return 1
}

# The UID of the pod that a path belongs to, which is the directory of the pod or something in it: POD.
find_pod_uid() { POD=${1##*pod} POD=${POD%%/*} POD=${POD%.slice} POD=${POD//_/-}; }

# The key of a container, which is the beginning of its id: KEY. Fails for cgroups that no runtime named so: that of
# conmon, and those that a container made inside its own. The child that crun makes in a container's cgroup has the key of
# the container with an "x" behind it.
find_key() { # a container's file or directory, or that of crun's child
  local id=${1%/"$FILE"} before='' child=''
  case $id in */container) id=${id%/container} child=x ;; esac
  id=${id%.scope}
  if [ ${#id} -lt 64 ]; then return 1; fi
  before=${id:0:${#id}-64} id=${id:${#id}-64}
  case $before:$id in *conmon-:* | *[!/-]:* | *:*[!0-9a-f]*) return 1 ;; esac
  KEY=${id:0:12}$child
}

# Reads the value of a file: RESULT. Fails if the file no longer exists. The file is empty only for a moment, when
# somebody truncates it before a write.
read_value() { # file
  RESULT=
  read -r RESULT 2>&6 <"$1"
}
