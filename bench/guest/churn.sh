#!/bin/sh
# Pods for tools, each of which has a kubepods root of its own, /sys/fs/cgroup/TOOL.
#
#   churn.sh roots TOOL...
#   churn.sh still UID ID ID ID -- TOOL...    a pod with three containers without processes, for each
#   churn.sh start TOOL PAUSE STEPS NAME UID ID ID ID ID
#            the whole life of a pod: a sandbox and, PAUSE seconds after each other, three containers
#            that print their mode from their first instruction on to /run/starts/TOOL; STEPS are the
#            times of runc-standin -t
set -eu

pod_directory() { # tool, uid
  directory=/sys/fs/cgroup/$1/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$(echo "$2" | tr - _).slice
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

make_pod() { # tool, uid
  pod_directory "$1" "$2"
  mkdir "$directory"
  echo '+cpu +memory' >"$directory/cgroup.subtree_control"
}

still() {
  uid=$1 ids="$2 $3 $4"
  shift 5
  for tool; do
    make_pod "$tool" "$uid"
    for id in $ids; do
      mkdir "$directory/cri-containerd-$id.scope"
      echo 1 >"$directory/cri-containerd-$id.scope/memory.oom.group"
    done
  done
}

start() {
  tool=$1 pause=$2 times=$3 name=$4 uid=$5 sandbox=$6
  shift 6
  make_pod "$tool" "$uid"
  runc-standin -s -t "$times" "$directory/cri-containerd-$sandbox.scope" sleep 1000 >/dev/null &
  for id; do
    sleep "$pause"
    scope=$directory/cri-containerd-$id.scope
    runc-standin -t "$times" "$scope" print-mode "$scope/memory.oom.group" >"/run/starts/$tool/$id" 2>&1 &
    (sleep 0.75 && ln -s "/var/log/pods/default_${name}_$uid/main/0.log" "/var/log/containers/${name}_default_main-$id.log") &
  done
  sleep 2
  echo 1 >"$directory/cgroup.kill"
  wait
  rmdir "$directory"
  for id; do
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
