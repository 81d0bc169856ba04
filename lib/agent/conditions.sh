# shellcheck shell=sh
# Where a kill mode cannot work: said once in the log, once in an Event of each pod, and in the metrics as
# long as it is so. The names of the conditions are headings of docs/troubleshooting.md.

# One line for each: what has it, the condition, and the uptime at which it lapses, or "-" if it lasts
# until it is cleared. What has it is the number of a pod, a container's key, "<number>/<name>" of a
# container that ended, or "-" for the node.
CONDITIONS=
# The last search for scopes' OOM policies.
POLICY_SEARCH=
# Set if a cgroup above all pods has 1.
NODE_GROUP=
# How long an event of the past counts as a condition.
LAPSE_SECONDS=900

# Fails if that is no news.
add_condition() { # what has it, condition, uptime of its lapse or "-"
  news=yes
  if take "$1 $2 *" "$CONDITIONS"; then news=; fi
  CONDITIONS="$REST$1 $2 $3$NL"
  [ -n "$news" ]
}

clear_condition() { # what has it, condition
  if take "$1 $2 *" "$CONDITIONS"; then CONDITIONS=$REST; fi
}

# Whether any container of the current pod is to be Single: Group works wherever this cannot.
wants_single() {
  case $MODE,$OVERRIDES in 0,* | *=0,*) return 0 ;; esac
  return 1
}

# What is above the pods is above all of them. The root of all cgroups has no such file.
check_conditions() {
  NODE_GROUP=
  directory=root
  while read_value "$directory/$FILE"; do
    if [ "$VALUE" = 1 ]; then NODE_GROUP=yes; fi
    directory=$directory/..
  done
  if [ -n "$POLLER" ]; then add_condition - no_inotify - || :; else clear_condition - no_inotify; fi
  lapse_conditions
  search_oom_policies
  forget_pods
}

# The highest cgroup with 1, from the container's up to the one that is full, decides who is killed.
check_ancestors() { # of the current pod
  found=
  if wants_single; then
    found=$NODE_GROUP
    for directory in "pod/$NUMBER" "pod/$NUMBER/.."; do
      if read_value "$directory/$FILE" && [ "$VALUE" = 1 ]; then found=yes; fi
    done
  fi
  if [ -z "$found" ]; then
    clear_condition "$NUMBER" ancestor_group
  elif add_condition "$NUMBER" ancestor_group -; then
    log warn 'Single cannot work for every limit: a cgroup above the container has memory.oom.group=1' \
      condition ancestor_group pod "$NAMESPACE/$NAME"
    note "$NUMBER" ancestor_group -
  fi
}

# Set in scopes by recent versions of runc, or by an administrator. One grep reads the units of our
# containers, and of no others.
search_oom_policies() {
  if [ -z "$SYSTEMD_TRANSIENT" ]; then return 0; fi
  if [ -n "$POLICY_SEARCH" ]; then
    if runs "$POLICY_SEARCH"; then return 0; fi
    wait "$POLICY_SEARCH" 2>/dev/null || :
  fi
  find_oom_policies 2>/dev/null &
  POLICY_SEARCH=$!
}

# Tells the keys of the containers in whose scope systemd ends what the kernel killed one process of: those
# that are news, and with "-" before them those of which that is no longer so.
find_oom_policies() {
  scopes=
  set --
  for link in 0/*; do
    key=${link#0/}
    for scope in "pod/${key%%-*}/"*"-${key#*-}"*.scope; do
      if [ "$scope" -ef "$link" ]; then
        scope=${scope##*/}
        scopes="$scopes$scope $key$NL"
        set -- "$@" "$SYSTEMD_TRANSIENT/$scope" "$SYSTEMD_TRANSIENT/$scope.d/"*.conf
      fi
    done
  done
  grep -sE '^[[:space:]]*OOMPolicy[[:space:]]*=[[:space:]]*(continue|stop|kill)[[:space:]]*$' /dev/null "$@" |
    tell_oom_policies
}

# The last assignment counts: grep keeps to the order of the files, which is systemd's, the unit and then
# its drop-ins.
tell_oom_policies() {
  found=' '
  while IFS= read -r line; do
    scope=${line#"$SYSTEMD_TRANSIENT/"}
    scope=${scope%%.scope*}.scope
    case $found in *" $scope "*) found="${found%%" $scope "*} ${found#*" $scope "}" ;; esac
    case ${line##*=} in *continue*) ;; *) found="$found$scope " ;; esac
  done
  keys=$NL
  for scope in $scopes; do
    case $found in *" ${scope% *} "*) keys=$keys${scope#* }$NL ;; esac
  done
  for key in $keys; do
    case $NL$CONDITIONS in *"$NL$key systemd_oom_policy "*) ;; *) printf 'policy\t%s\n' "$key" >&3 ;; esac
  done
  for line in $CONDITIONS; do
    case $line in
      *' systemd_oom_policy '*)
        case $keys in *"$NL${line%% *}$NL"*) ;; *) printf 'policy\t-%s\n' "${line%% *}" >&3 ;; esac
        ;;
    esac
  done
}

# The unit of this container's scope was found to have such a policy, or not any more. A sandbox has
# nothing that could be killed one by one.
oom_policy_found() { # key, or "-" and the key
  case $1 in
    -*)
      clear_condition "${1#-}" systemd_oom_policy
      return 0
      ;;
  esac
  find_pod_of "$1" || return 0
  if add_condition "$1" systemd_oom_policy - && ! is_old_sandbox "$1"; then
    name_by_id "${1#*-}"
    log warn "Single cannot work: systemd stops the container's scope after any kill (OOMPolicy=)" \
      condition systemd_oom_policy pod "$NAMESPACE/$NAME" container "$CONTAINER_NAME"
    note "$NUMBER" systemd_oom_policy "$CONTAINER_NAME"
  fi
}

# Whether this container of the current pod, which was there before us, seems to be its sandbox.
is_old_sandbox() { # key
  if [ "$SANDBOX" != - ]; then return 1; fi
  find_adopted
  for directory in $ADOPTED; do
    if find_link "$directory" && [ "$KEY" = "$1" ]; then
      looks_like_sandbox "$directory"
      return
    fi
  done
  return 1
}

# A container of the current pod ended with kills for which Single was no reason.
main_process_killed() { # number of kills; the name of the container is in CONTAINER_NAME, if it is known
  read_uptime
  if add_condition "$NUMBER/${CONTAINER_NAME:--}" main_process_killed $((UPTIME + LAPSE_SECONDS)); then
    log warn 'processes killed for memory; the container ended although it was Single' \
      condition main_process_killed pod "$NAMESPACE/$NAME" container "${CONTAINER_NAME:--}" kills "$1"
  fi
  note "$NUMBER" main_process_killed "${CONTAINER_NAME:--}"
}

# Of the hot path: the current pod stays what it is.
write_refused() { # link
  pod_number=${1#*/}
  pod_number=${pod_number%%-*}
  if add_condition "$pod_number" write_refused -; then note "$pod_number" write_refused -; fi
}

# Refusals end with a write that succeeds, or with the container; the lapsed with time.
lapse_conditions() {
  read_uptime
  conditions=
  for line in $CONDITIONS; do
    lapse=${line##* }
    case $line in
      *' write_refused '*)
        case $REFUSALS in *" ${line%% *}-"*) ;; *) continue ;; esac
        ;;
      *)
        if [ "$lapse" != - ] && [ "$lapse" -le "$UPTIME" ]; then continue; fi
        ;;
    esac
    conditions=$conditions$line$NL
  done
  CONDITIONS=$conditions
}
