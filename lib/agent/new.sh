# shellcheck shell=sh
# What is new: containers and pods that no inotifyd watches yet, and what the youngest one watches.

# Keys of containers and numbers of pods: those that no inotifyd was told of, those that only the starting
# one was told of, and those of the youngest that is up.
NEW_CONTAINERS=
NEW_PODS=
UNCHECKED=
UNSCANNED=
YOUNGEST_CONTAINERS=
YOUNGEST_PODS=
# Hundredths of a second since anything came that was new.
QUIET=0
# Set while containers start, to the uptime when the first of them did: what is beside the loop has a part
# of its CPU limit.
BURST=

# A container was just found. It may have been before its runtime wrote, so there is no time to lose.
watch_container() { # link, after enforce() left in VALUE what was there
  NEW_CONTAINERS=$NEW_CONTAINERS${1#*/}$NL
  expect_start "$1"
  watch_new
}

# An inotifyd is started: what comes from here on is for the next one.
hand_over() {
  UNCHECKED=$NEW_CONTAINERS
  UNSCANNED=$NEW_PODS
  NEW_CONTAINERS=
  NEW_PODS=
  QUIET=0
}

# Something is new. Without a timed read nobody would notice that nothing is any more.
begin_burst() {
  if [ -n "$BURST" ] || [ -z "$TIMED_READ" ]; then return 0; fi
  read_uptime
  BURST=$UPTIME
}

# Whether what can wait has to: not for longer than five minutes, though, nor where nothing is watched.
in_burst() {
  if [ -z "$BURST" ] || [ -n "$POLLER" ]; then return 1; fi
  read_uptime
  [ $((UPTIME - BURST)) -lt 300 ]
}

# A good time to be done with all but one inotifyd.
end_burst() {
  QUIET=0
  BURST=
  if [ -n "$STARTING" ] || several_watchers; then rewatch; fi
}

# Nothing came for a while.
be_quiet() { # hundredths of a second
  if [ -z "$BURST" ]; then return 0; fi
  QUIET=$((QUIET + $1))
  if [ "$QUIET" -lt 300 ]; then return 0; fi
  end_burst
  clean_up
}

# It did not get up.
hand_back() {
  NEW_CONTAINERS=$UNCHECKED$NEW_CONTAINERS
  NEW_PODS=$UNSCANNED$NEW_PODS
  UNCHECKED=
  UNSCANNED=
}

# It is up: one look at what happened before, and none if everything was just looked at.
handed_over() { # "checked" or nothing
  if [ -z "${1-}" ]; then
    check_containers
    scan_pods
  fi
  YOUNGEST_CONTAINERS=$YOUNGEST_CONTAINERS$UNCHECKED
  YOUNGEST_PODS=$YOUNGEST_PODS$UNSCANNED
  # From here on it costs more to replace it than to have another one.
  if [ $((${#YOUNGEST_CONTAINERS} + ${#YOUNGEST_PODS})) -gt 400 ]; then YOUNGEST=; fi
  if [ -z "$YOUNGEST" ]; then
    YOUNGEST_CONTAINERS=
    YOUNGEST_PODS=
  fi
  UNCHECKED=
  UNSCANNED=
}

check_containers() {
  for key in $UNCHECKED; do
    enforce_because start "0/$key/$FILE"
    enforce_because start "1/$key/$FILE"
  done
}

scan_pods() {
  because start
  for number in $UNSCANNED; do
    if find_pod_of "$number"; then
      adopt_now
      if [ "$OVERRIDES" != , ]; then rechoose; fi
    fi
  done
  because event
}
