#!/bin/bash
# timed-criu.sh ARGUMENT...: CRIU, with its wall time appended to the file CRIU_TIMES: "dump 0.123456".
begin=$EPOCHREALTIME
/usr/sbin/criu "$@"
status=$?
end=$EPOCHREALTIME
[ -z "${CRIU_TIMES:-}" ] || printf '%s %d %d\n' "$1" "${begin/./}" "${end/./}" >>"$CRIU_TIMES"
exit $status
