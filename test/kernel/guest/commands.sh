#!/bin/sh
# Reads one command a line (base64) and answers each with a line "STATUS OUTPUT" (base64).

while read -r command; do
  echo "$command" | base64 -d >/run/command
  sh -eu /run/command </dev/null >/run/output 2>&1
  echo "$? $(base64 -w 0 /run/output)"
done
