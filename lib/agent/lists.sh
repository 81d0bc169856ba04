# shellcheck shell=sh
# Lists, which are strings of lines that begin and end with a line feed. busybox ash has no arrays.

# The line of a list that begins with a text: RESULT. Fails if there is none. A pattern after "#" or "%" would be
# shorter, but it takes far too long in a long string.
find_line() { # beginning, list
  # Most searches are in vain, and this is a quick way to know.
  case $2 in *"$NL$1"*) ;; *) return 1 ;; esac
  for RESULT in $2; do case $RESULT in "$1"*) return 0 ;; esac done
}

# The list without the lines that begin with a text: RESULT.
without_line() { # beginning, list
  local line=''
  RESULT=$2
  case $2 in *"$NL$1"*) RESULT=$NL ;; *) return 0 ;; esac
  for line in $2; do case $line in "$1"*) ;; *) RESULT=$RESULT$line$NL ;; esac done
}

# The list with one more in the line "<name>=<count>", which is the last one then: RESULT.
add_one() { # name, list
  local count=0
  if find_line "$1=" "$2"; then count=${RESULT#*=}; fi
  without_line "$1=" "$2" && RESULT=$RESULT$1=$((count + 1))$NL
}

# The list without the lines that are about one of these containers: RESULT. A line is about the container whose key is
# its first word, after a slash if there is one. The list is copied in pieces, because a long string takes long to copy.
without_keys() { # list of keys, list
  local line='' key='' piece=''
  RESULT=$NL
  for line in $2; do
    key=${line%%[ =]*}
    case $1 in *"$NL${key#*/}$NL"*) ;; *) piece=$piece$line$NL ;; esac
    if [ ${#piece} -gt "$PIECE_LENGTH" ]; then RESULT=$RESULT$piece piece=''; fi
  done
  RESULT=$RESULT$piece
}
