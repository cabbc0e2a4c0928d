#!/bin/bash
# install.sh TREE ROOT
#
# Lays the agent and snapshotctl out in the root directory ROOT, from the built tree TREE (`make build`): under /opt/snapshot-agent the
# files keep the paths that they have in the tree, because the bundles find the protocol files beside themselves.
set -euo pipefail
umask 022

fail() {
  echo "install.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: install.sh TREE ROOT"
tree=$1 root=$2
home=$root/opt/snapshot-agent

place() { # place MODE FILE...
  local mode=$1 file
  shift
  for file in "$@"; do
    [ -s "$tree/$file" ] || fail "$tree/$file is not there: run 'make build'"
    install -D -m "$mode" "$tree/$file" "$home/$file"
  done
}

mapfile -t protocols < <(cd "$tree" && find proto -name '*.proto' | LC_ALL=C sort)
place 0644 dist/agent/snapshot-agent.mjs dist/snapshotctl/snapshotctl.mjs "${protocols[@]}" LICENSE package.json
place 0755 native/build/snapshot-helper native/build/snapshot-cuda

# The commands. They become Node.js, which keeps their PID: signals reach the program itself. V8 takes memory by the size of the machine, and an
# agent has 25 MB of live objects at most times: it gets a quarter of the usual room for young objects, and a limit that makes it collect
# old garbage before there is three times as much of it as of what lives (docs/performance.md).
install -d -m 0755 "$root/usr/local/bin"
cat >"$root/usr/local/bin/snapshot-agent" <<'END'
#!/bin/sh
exec /usr/bin/node --max-semi-space-size=4 --max-old-space-size=1024 /opt/snapshot-agent/dist/agent/snapshot-agent.mjs "$@"
END
cat >"$root/usr/local/bin/snapshotctl" <<'END'
#!/bin/sh
exec /usr/bin/node /opt/snapshot-agent/dist/snapshotctl/snapshotctl.mjs "$@"
END
chmod 0755 "$root/usr/local/bin/snapshot-agent" "$root/usr/local/bin/snapshotctl"

# Where the manifest mounts something.
install -d -m 0755 "$root"/{checkpoints,etc/snapshot,host/proc,host/cgroup,var/lib/snapshot-agent}
