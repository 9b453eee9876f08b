#!/usr/bin/env bash
# What the action runs: `action.sh IREU`, with one argument in each line of IREU_ARGUMENTS_OF_ACTION.
# Nothing in a line is looked at by a shell.
set -uo pipefail
given=()
while IFS= read -r line || [ -n "$line" ]; do
  line="${line%$'\r'}"
  [ -z "$line" ] || given+=("$line")
done <<< "$IREU_ARGUMENTS_OF_ACTION"
unset IREU_ARGUMENTS_OF_ACTION
if [ "${#given[@]}" = 0 ]; then
  echo "The action got no arguments. Name a command of ireu and its arguments, one in each line." >&2
  exit 2
fi
result="$("$1" "${given[@]}")"
code=$?
# A line of the result must not end the value early.
mark="end-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
{
  echo "exit-code=$code"
  echo "result<<$mark"
  printf '%s\n' "$result"
  echo "$mark"
} >> "$GITHUB_OUTPUT"
printf '%s\n' "$result"
exit "$code"
