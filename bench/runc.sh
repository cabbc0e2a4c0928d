#!/bin/bash
# runc.sh BUNDLE WORK ID: runs a container, checkpoints it, ends it, restores it, ends it. Prints the microseconds of the checkpoint and of
# the restore. To be run in the agent's environment: nothing of this machine's own configuration is touched.
set -euo pipefail
bundle=$1 work=$2 id=$3

mkdir -p /etc/criu "$work/images" "$work/dump" "$work/restore"
# Locking the network would need iptables.
echo 'network-lock skip' >/etc/criu/runc.conf
runc() { command runc --root "$work/state" "$@"; }
trap 'runc delete --force "$id" || true; runc delete --force "$id-2" || true' EXIT
fail() {
  echo "runc.sh: $*" >&2
  tail -n 20 "$work"/*/*.log >&2 || true
  exit 1
}

# Pipes, as a container runtime gives them: CRIU cannot look up files of the host that a container holds.
exec {out}> >(cat >"$work/out") {in}< <(exec sleep 1000)
await() { # PATTERN: until the output has such a line
  for _ in $(seq 1200); do
    ! grep -q "$1" "$work/out" 2>/dev/null || return 0
    sleep 0.05
  done
  fail "no line with $1 came"
}

runc run --detach --bundle "$bundle" "$id" <&$in >&$out 2>&1
await '"counter": 20'
begin=$EPOCHREALTIME
runc checkpoint --leave-running --image-path "$work/images" --work-path "$work/dump" "$id" >&2 || fail "the checkpoint failed"
end=$EPOCHREALTIME
echo "checkpoint $((${end/./} - ${begin/./}))"
runc delete --force "$id"

mv "$work/out" "$work/out-before"
exec {out}> >(cat >"$work/out")
begin=$EPOCHREALTIME
runc restore --detach --bundle "$bundle" --image-path "$work/images" --work-path "$work/restore" "$id-2" <&$in >&$out 2>&1 ||
  fail "the restore failed"
end=$EPOCHREALTIME
echo "restore $((${end/./} - ${begin/./}))"
await '"counter"'
