#!/bin/bash
# install.sh TREE ROOT
#
# Lays out what a placeholder image has besides its base, from the built tree TREE (`make build`), in the root directory ROOT.
set -euo pipefail
umask 022

fail() {
  echo "install.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: install.sh TREE ROOT"
tree=$1 root=$2
standby=native/build/snapshot-standby
[ -s "$tree/$standby" ] || fail "$tree/$standby is not there: run 'make build'"
install -D -m 0755 "$tree/$standby" "$root/usr/local/bin/snapshot-standby"
