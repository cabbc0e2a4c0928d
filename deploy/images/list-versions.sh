#!/bin/bash
# list-versions.sh ROOT HOME
#
# Prints what an image is made of, one `NAME VERSION` each line: the program installed in HOME, CRIU (where it has one) and Node.js by the names
# one looks for, then every package of the Debian root ROOT. An image carries this list as versions.txt in /opt/snapshot-agent, or
# /opt/snapshot-operator.
set -euo pipefail
umask 022

fail() {
  echo "list-versions.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: list-versions.sh ROOT HOME"
root=$1 home=$2
packages=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package} ${Version}\n' | LC_ALL=C sort)

version_of() {
  local version
  version=$(awk -v name="$1" '$1 == name { print $2 }' <<<"$packages")
  [ -n "$version" ] || fail "the root $root has no package $1"
  echo "$version"
}

echo "$(basename "$home") $(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$home/package.json")"
echo "debian $(cat "$root/etc/debian_version")"
built=$root/usr/share/snapshot/criu-source.txt
if [ -e "$built" ]; then
  echo "criu $(sed -n 's/^version //p' "$built") from $(sed -n 's/^repository //p' "$built") $(sed -n 's/^commit //p' "$built")"
elif grep -q '^criu ' <<<"$packages" || [ "$(basename "$home")" = snapshot-agent ]; then
  echo "criu $(version_of criu)"
fi
echo "node $(version_of nodejs)"
echo
echo "$packages"
