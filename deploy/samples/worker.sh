#!/bin/sh
# A worker that follows the snapshot contract, in plain shell: sh, sed, od and sleep are all that it needs.
#
# It counts, which stands for all that a worker computes and keeps. Started cold it begins at 1; restored it goes on.
# A file /tmp/serving is there while it serves, for probes.

control=${DYN_SNAPSHOT_CONTROL_DIR:-}
trap 'exit 0' TERM

place() { # NAME TEXT: whole or not at all
  printf '%s\n' "$2" >"$control/.$1.new" && mv "$control/.$1.new" "$control/$1"
}

clear_files() {
  rm -f "$control/ready-for-snapshot" "$control/snapshot-complete" "$control/restore-complete"
}

new_name() { # what restore-context.json says that this variable is now
  sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$control/restore-context.json"
}

# Loading.
count=0
while [ "$count" -lt 1000 ]; do count=$((count + 1)); done
seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')

if [ -n "$control" ]; then
  place ready-for-snapshot ready
  echo '{"event":"quiet"}'
  while [ ! -e "$control/restore-complete" ]; do
    if [ -e "$control/snapshot-complete" ]; then
      clear_files
      echo '{"event":"released"}'
      exit 0
    fi
    sleep 0.1
  done
  # From here on it is another pod: its name, its randomness, its connections.
  if [ -e "$control/restore-context.json" ]; then POD_NAME=$(new_name POD_NAME); fi
  seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
  clear_files
fi

touch /tmp/serving
while true; do
  count=$((count + 1))
  echo "{\"event\":\"serving\",\"pod\":\"$POD_NAME\",\"count\":$count,\"seed\":$seed}"
  sleep 1
done
