#!/bin/bash
# by-hand.sh PROGRAM ARGUMENT...: runs a program that runs CRIU, and prints how many microseconds it took.
[ -z "${CRIU_LD_PRELOAD:-}" ] || export LD_PRELOAD=$CRIU_LD_PRELOAD
mkdir -p /run/by-hand/root
begin=$EPOCHREALTIME
"$@" >&2
status=$?
end=$EPOCHREALTIME
echo $((${end/./} - ${begin/./}))
exit $status
