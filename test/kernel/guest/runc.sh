#!/bin/sh
# Starts one container with the real runc, in a scope of the real systemd, as a node's runtime does, and waits for its
# end. Its command line and its output are those of runc-standin:
#
#   runc.sh [-p] [-s] [-o POLICY] [-m BYTES] [-t TIMES] CGROUP PROGRAM [ARGUMENT...]
#
# The cgroup's name says which scope it is, and in which slice; systemd makes both. The scope has the OOMPolicy of -o,
# which later releases of runc set themselves. With -p the container has the process numbers of the node. A pod's
# sandbox (-s) gets no memory.oom.group. The times are runc's own.
#
# Every container has the root file system of the tests, and may mount: what a program shall not have it gives up.
set -eu

# A property of the scope, as runc takes it.
property() { # name, value
  printf '"org.systemd.property.%s": "%s"' "$1" "$2"
}

memory=-1
group='"memory.oom.group": "1"'
properties=''
pids='{"type": "pid"}, '
while getopts psm:o:t: option; do
  case $option in
    p) pids='' ;;
    s) group='' ;;
    m) case $OPTARG in max) ;; *) memory=$((${OPTARG%M} << 20)) ;; esac ;;
    o) properties=$(property OOMPolicy "'$OPTARG'"), ;;
    t) ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
cgroup=$1
shift

scope=${cgroup##*/}
slice=${cgroup%/*}
id=${scope#cri-containerd-}
id=${id%.scope}
bundle=/run/bundles/$id
capabilities='["CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]'
words=''
for word; do
  words="$words${words:+, }\"$(printf '%s' "$word" | sed 's/[\\"]/\\&/g')\""
done

mkdir -p "$bundle"
cat >"$bundle/config.json" <<END
{
  "ociVersion": "1.0.2",
  "root": {"path": "/image"},
  "process": {
    "args": [$words],
    "cwd": "/",
    "env": ["PATH=/bin:/usr/bin"],
    "user": {"uid": 0, "gid": 0},
    "capabilities": {"bounding": $capabilities, "effective": $capabilities, "permitted": $capabilities}
  },
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/sys/fs/cgroup", "type": "bind", "source": "/sys/fs/cgroup", "options": ["bind"]},
    {"destination": "/run/systemd", "type": "bind", "source": "/run/systemd", "options": ["bind"]},
    {"destination": "/var/log/containers", "type": "bind", "source": "/var/log/containers", "options": ["bind"]}
  ],
  "annotations": {$properties $(property TimeoutStopUSec "uint64 2000000")},
  "linux": {
    "cgroupsPath": "${slice##*/}:cri-containerd:$id",
    "resources": {"memory": {"limit": $memory}, "unified": {$group}},
    "namespaces": [$pids{"type": "mount"}, {"type": "ipc"}, {"type": "cgroup"}]
  }
}
END

{
  status=0
  runc --systemd-cgroup run --bundle "$bundle" --pid-file "$bundle/pid" "$id" || status=$?
  echo "$status" >"$bundle/status"
} &
until [ -s "$bundle/pid" ] || [ -s "$bundle/status" ]; do
  sleep 0.1
done
echo "started $(cat "$bundle/pid")"
wait
status=$(cat "$bundle/status")
if [ "$status" -gt 128 ]; then
  echo "killed $((status - 128))"
else
  echo "exited $status"
fi
