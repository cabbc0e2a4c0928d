#!/bin/bash
# lay-out.sh IMAGE TREE ADDED [ROOT]
#
# Lays out in the new directory ADDED what the image IMAGE (a directory here) has above its base: programs, from the built tree TREE, and
# the bill of materials. ROOT is the Debian root below it, where the image has one of ours. Both ways to an image come here.
set -euo pipefail
umask 022

fail() {
  echo "lay-out.sh: $*" >&2
  exit 1
}
[ $# = 3 ] || [ $# = 4 ] || fail "usage: lay-out.sh IMAGE TREE ADDED [ROOT]"
here=$(dirname "$(readlink -f "$0")")
image=$1 tree=$(readlink -f "$2") added=$(readlink -m "$3")
[ -x "$here/$image/install.sh" ] || fail "there is no image '$image' in $here"
root=()
if [ $# = 4 ]; then
  [ -d "$4" ] || fail "the Debian root $4 is not there: run 'make setup'"
  root=("$(readlink -f "$4")")
fi
mkdir "$added"
"$here/$image/install.sh" "$tree" "$added"
(cd "$tree" && node --import tsx "$here/bill/main.ts" "$image" "$tree" "$added" "${root[@]}")
if [ ${#root[@]} = 1 ]; then
  home=$added/opt/snapshot-$image
  "$here/list-versions.sh" "${root[0]}" "$home" >"$home/versions.txt"
fi
