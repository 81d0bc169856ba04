#!/bin/sh
# Pods for several tools at once: each tool has a kubepods root of its own, /sys/fs/cgroup/TOOL, and
# gets the same pods and containers at the same time.
#
#   churn.sh roots TOOL...
#   churn.sh still UID ID ID ID -- TOOL...             a pod with three containers without processes
#   churn.sh start PAUSE STEPS NAME UID ID ID ID ID -- TOOL...
#            the whole life of a pod: a sandbox and, PAUSE seconds after each other, three containers
#            that print their mode from their first instruction on to /run/starts/TOOL; STEPS are the
#            times of runc-standin -t
set -eu

pod_directory() { # tool, uid
  slices=kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod
  rest=$2
  while [ "${rest#*-}" != "$rest" ]; do
    rest=${rest%%-*}_${rest#*-}
  done
  directory=/sys/fs/cgroup/$1/$slices$rest.slice
}

roots() {
  for tool; do
    for path in "$tool" "$tool/kubepods.slice" "$tool/kubepods.slice/kubepods-burstable.slice" \
      "$tool/kubepods.slice/kubepods-besteffort.slice"; do
      mkdir "/sys/fs/cgroup/$path"
      echo '+cpu +memory' >"/sys/fs/cgroup/$path/cgroup.subtree_control"
    done
  done
}

make_pod() { # uid, tools
  uid=$1
  shift
  for tool; do
    pod_directory "$tool" "$uid"
    mkdir "$directory"
    echo '+cpu +memory' >"$directory/cgroup.subtree_control"
  done
}

still() {
  uid=$1 ids="$2 $3 $4"
  shift 5
  make_pod "$uid" "$@"
  for tool; do
    pod_directory "$tool" "$uid"
    for id in $ids; do
      mkdir "$directory/cri-containerd-$id.scope"
      echo 1 >"$directory/cri-containerd-$id.scope/memory.oom.group"
    done
  done
}

start() {
  pause=$1 times=$2 name=$3 uid=$4 sandbox=$5 ids="$6 $7 $8"
  shift 9
  make_pod "$uid" "$@"
  for tool; do
    pod_directory "$tool" "$uid"
    runc-standin -s -t "$times" "$directory/cri-containerd-$sandbox.scope" sleep 1000 >/dev/null &
  done
  for id in $ids; do
    sleep "$pause"
    for tool; do
      pod_directory "$tool" "$uid"
      scope=$directory/cri-containerd-$id.scope
      runc-standin -w 0 -t "$times" "$scope" print-mode "$scope/memory.oom.group" >"/run/starts/$tool/$id" 2>&1 &
    done
    (sleep 0.75 && ln -s "/var/log/pods/$id" "/var/log/containers/${name}_default_main-$id.log") &
  done
  sleep 6
  for tool; do
    pod_directory "$tool" "$uid"
    echo 1 >"$directory/cgroup.kill"
  done
  wait
  for tool; do
    pod_directory "$tool" "$uid"
    rmdir "$directory"
  done
  for id in $ids; do
    rm "/var/log/containers/${name}_default_main-$id.log"
  done
}

command=$1
shift
case $command in
  roots) roots "$@" ;;
  still) still "$@" ;;
  start) start "$@" ;;
  *) exit 2 ;;
esac
