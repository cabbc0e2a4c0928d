#!/bin/bash
# harden-root.sh ROOT
#
# Takes from the Debian root ROOT what nobody needs in a container of ours: set-user-id and set-group-id bits (su, passwd, mount and the
# like: who is root there needs none of them, and nobody else is to become root), and the source option with which a lagging archive was
# read. Says what it took. Fails where something can be written by everybody, other than a directory with the sticky bit. Both ways to an
# image come here: make-root.sh, and install-packages.sh with the running root.
set -euo pipefail

fail() {
  echo "harden-root.sh: $*" >&2
  exit 1
}
[ $# = 1 ] && [ -d "$1" ] || fail "usage: harden-root.sh ROOT"
root=$(readlink -f "$1")
root=${root%/}

# Not below mount points, and not what the runtime puts in place of these anyway.
found() { # found TEST...
  find "$root/" -xdev \( -path "$root/dev" -o -path "$root/proc" -o -path "$root/sys" \) -prune -o "$@"
}
found ! -type l -perm /6000 -printf '%M /%P\n' -exec chmod u-s,g-s {} +
sources=()
for file in "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*.list; do
  [ ! -f "$file" ] || sources+=("$file")
done
[ ${#sources[@]} = 0 ] || sed -i -E 's/ check-valid-until=no|\[check-valid-until=no\] //' "${sources[@]}"

open=$(found ! -type l -perm -0002 ! \( -type d -perm -1000 \) -printf '%M /%P\n')
[ -z "$open" ] || fail "everybody may write to these: $open"
