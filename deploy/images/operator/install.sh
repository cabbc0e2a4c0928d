#!/bin/bash
# install.sh TREE ROOT
#
# Lays the operator and its cleanup program out in the root directory ROOT, from the built tree TREE (`make build`): under
# /opt/snapshot-operator the files keep the paths that they have in the tree, because the bundle finds the protocol files beside itself.
set -euo pipefail
umask 022

fail() {
  echo "install.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: install.sh TREE ROOT"
tree=$1 root=$2
home=$root/opt/snapshot-operator

mapfile -t protocols < <(cd "$tree" && find proto -name '*.proto' | LC_ALL=C sort)
for file in dist/operator/snapshot-operator.mjs dist/operator/snapshot-cleanup.mjs "${protocols[@]}" LICENSE package.json; do
  [ -s "$tree/$file" ] || fail "$tree/$file is not there: run 'make build'"
  install -D -m 0644 "$tree/$file" "$home/$file"
done

# The commands. They become Node.js, which keeps their PID: signals reach the program itself. V8 takes memory by the size of the machine:
# an operator with ten thousand objects in its caches needs far less than it would take.
install -d -m 0755 "$root/usr/local/bin"
cat >"$root/usr/local/bin/snapshot-operator" <<'END'
#!/bin/sh
exec /usr/bin/node --max-semi-space-size=4 --max-old-space-size=512 /opt/snapshot-operator/dist/operator/snapshot-operator.mjs "$@"
END
cat >"$root/usr/local/bin/snapshot-cleanup" <<'END'
#!/bin/sh
exec /usr/bin/node --max-old-space-size=128 /opt/snapshot-operator/dist/operator/snapshot-cleanup.mjs "$@"
END
chmod 0755 "$root/usr/local/bin/snapshot-operator" "$root/usr/local/bin/snapshot-cleanup"

# Where the chart mounts something.
install -d -m 0755 "$root"/etc/{snapshot-operator,snapshot-tls}
