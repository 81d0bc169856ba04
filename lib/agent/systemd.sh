# shellcheck shell=sh
# The condition systemd_oom_policy. With OOMPolicy=kill or stop, systemd ends a whole scope after the kernel killed one
# process in it. A runc after 1.5 sets "kill". systemd 259 and later obey "kill" only after a kill of the whole group.

# An older systemd ends a scope with "kill" at the first or the second kill.
KILLS_TO_SURVIVE=2

# State: what the scopes of Single containers have, "<key>=kill" or "<key>=stop".
POLICIES=$NL
# State: set once a container survived kills with "kill": this systemd leaves the rest of a scope alone.
SYSTEMD_SPARES=''

# In the child that reports: finds the policies, and tells the loop of those that changed. One process reads all files.
check_policies() {
  local lines='' line='' key='' policies=$NL
  lines=$(grep -Hs '^OOMPolicy=' /dev/null "$SYSTEMD_TRANSIENT"/*.scope "$SYSTEMD_TRANSIENT"/*.scope.d/*.conf) || :
  if [ -z "$lines" ] && [ "$POLICIES" = "$NL" ]; then return 0; fi
  for line in $CONTAINERS; do
    key=${line%% *} line=${line%/"$FILE"}
    case $line:$MODES in *.scope:*"$NL$key=0$NL"*) read_policy "${line##*/}" "$lines" ;; *) RESULT='' ;; esac
    case $RESULT:$SYSTEMD_SPARES in kill: | stop:*) policies=$policies$key=$RESULT$NL ;; *) RESULT='' ;; esac
    case $RESULT:$POLICIES in
      *:*"$NL$key=$RESULT$NL"*) ;;
      [ks]*:* | *:*"$NL$key="*) printf 'Y\t%s\t%s\n' "$key" "$RESULT" >&3 ;;
    esac
  done
  POLICIES=$policies
}

# The policy of a scope: RESULT, or nothing. The last assignment counts: grep found those of scopes before those of their
# drop-ins. The agent does not see a drop-in for all scopes of a runtime, which is in /run/systemd/system: a mount would
# make that directory on a node without systemd, where programs take it for a sign of systemd.
read_policy() { # scope, lines of grep: "<path>:OOMPolicy=<policy>"
  local line=''
  RESULT=
  for line in $2; do case $line in "$SYSTEMD_TRANSIENT/$1:"* | "$SYSTEMD_TRANSIENT/$1.d/"*) RESULT=${line##*=} ;; esac done
}

# In the loop.
policy_found() { # key, policy or nothing
  without_line "$1=" "$POLICIES" && POLICIES=$RESULT
  find_container "$1" || return 0
  if [ -n "$2" ]; then POLICIES=$POLICIES$1=$2$NL; fi
  condition "$2" "systemd_oom_policy/$1"
}

# The container with this KEY still runs after kills.
survived_kills() { # how many
  local line=''
  case $POLICIES in *"$NL$KEY=kill$NL"*) [ "$1" -ge "$KILLS_TO_SURVIVE" ] || return 0 ;; *) return 0 ;; esac
  SYSTEMD_SPARES=yes
  for line in $POLICIES; do case $line in *=kill) policy_found "${line%=*}" '' ;; esac done
}
