# shellcheck shell=sh
# What is on the node: where the kubelet keeps its cgroups, and what their files say.

FILE=memory.oom.group
DRIVER=
SLICE=
NODE_VALUE=
# Matches a container's directory, and none of the sixty files beside it, which need no look each.
LONG_NAME='????????????????????????????????*'
# Set once any container has a cgroup of crun's below its own: then the others may get one as well.
CRUN=

# The kubepods root and the driver's way of naming differ per distribution; our own pod shows both.
find_kubepods() {
  underscore "$POD_UID"
  own=$(find "$CGROUP_ROOT" -type d \( -name "*pod$UNDERSCORED.slice" -o -name "pod$POD_UID" \) 2>/dev/null | head -n 1)
  [ -n "$own" ] || return 1
  parent=${own%/*}
  case ${own##*/} in
    *.slice)
      DRIVER=systemd
      SLICE=${parent##*/}
      SLICE=${SLICE%.slice}
      case $SLICE in
        *-burstable | *-besteffort)
          SLICE=${SLICE%-*}
          parent=${parent%/*}
          ;;
      esac
      ;;
    *)
      DRIVER=cgroupfs
      case $parent in */burstable | */besteffort) parent=${parent%/*} ;; esac
      ;;
  esac
  ln -s "$parent" root
  read_node_value "$own"
}

# What the kubelet gives containers that did not opt in, it gave to our own.
read_node_value() { # own pod's cgroup
  NODE_VALUE=0
  for file in "$1"/$LONG_NAME/"$FILE"; do
    if read_value "$file" && [ "$VALUE" = 1 ]; then NODE_VALUE=1; fi
    if [ -d "${file%/*}/container" ]; then found_crun; fi
  done
}

# crun keeps a container's processes in container/, which it makes a little later than its parent.
found_crun() {
  CRUN=yes
}

may_have_crun() {
  [ -n "$CRUN" ]
}

# systemd's names have no dashes within a part.
underscore() { # uid
  UNDERSCORED=$1
  while :; do
    case $UNDERSCORED in
      *-*) UNDERSCORED=${UNDERSCORED%%-*}_${UNDERSCORED#*-} ;;
      *) return 0 ;;
    esac
  done
}

# Guaranteed pods are in the root, the others under their QoS class.
find_qos_directories() {
  if [ "$DRIVER" = systemd ]; then
    set -- "root/$SLICE-burstable.slice" "root/$SLICE-besteffort.slice"
  else
    set -- root/burstable root/besteffort
  fi
  QOS_DIRECTORIES=root
  for directory; do
    if [ -d "$directory" ]; then QOS_DIRECTORIES=$QOS_DIRECTORIES$NL$directory; fi
  done
}

find_pod_directory() { # uid, underscored uid
  if [ "$DRIVER" = systemd ]; then
    set -- "root/$SLICE-pod$2.slice" \
      "root/$SLICE-burstable.slice/$SLICE-burstable-pod$2.slice" \
      "root/$SLICE-besteffort.slice/$SLICE-besteffort-pod$2.slice"
  else
    set -- "root/pod$1" "root/burstable/pod$1" "root/besteffort/pod$1"
  fi
  for POD_DIRECTORY; do
    if [ -d "$POD_DIRECTORY" ]; then return 0; fi
  done
  return 1
}

# Only what a container runtime names: not conmon's cgroup, not what a container made inside its own.
find_id() { # directory name
  ID=$1
  case $ID in
    crio-conmon-*) return 1 ;;
    cri-containerd-*.scope | crio-*.scope | docker-*.scope)
      ID=${ID%.scope}
      ID=${ID##*-}
      ;;
    crio-*) ID=${ID#crio-} ;;
  esac
  case $ID in *[!0-9a-f]*) return 1 ;; esac
  [ ${#ID} = 64 ]
}

# The file may be gone by now: then there is nothing to read, and nothing to do.
read_value() { # file
  VALUE=
  { read -r VALUE <"$1"; } 2>&6 || return 1
}

# Not truncated first (<>): a truncation would be one more event for everybody who watches the file.
write_value() { # value, file
  { printf '%s\n' "$1" 1<>"$2"; } 2>&6
}

# Without a word: for files that no event leads to. It is a write, but repairs no drift.
correct() { # value, file
  if read_value "$2" && [ "$VALUE" != "$1" ] && write_value "$1" "$2"; then WRITES=$((WRITES + 1)); fi
}

# What it would be without us. The kubelet asks for nothing for the sandbox (pause) container.
restore() { # directory, "sandbox" or "container"
  value=$NODE_VALUE
  if [ "$2" = sandbox ]; then value=0; fi
  correct "$value" "$1/$FILE"
}

# The time that no change of the clock can touch, in seconds, and in hundredths of a second.
read_uptime() {
  IFS=' ' read -r INSTANT _ </proc/uptime
  UPTIME=${INSTANT%.*}
  INSTANT=$UPTIME${INSTANT#*.}
}
