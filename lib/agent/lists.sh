# shellcheck shell=sh
# A shell has no lists but strings: here, lines, each with its line feed. Adding one needs no function.

# The line of a list that matches is left in TAKEN, the others in REST. Fails if there is none.
take() { # pattern, list
  TAKEN=
  REST=
  for entry in $2; do
    # shellcheck disable=SC2254 # a pattern on purpose: what callers put into it has no wildcards
    case $entry in
      $1) TAKEN=$entry ;;
      *) REST=$REST$entry$NL ;;
    esac
  done
  [ -n "$TAKEN" ]
}
