#!/bin/bash
# resolve-packages.sh MIRROR PACKAGES
#
# Says what the list PACKAGES means on the Debian archive MIRROR today, one line each: `suite NAME` for every suite that is needed, the
# release first, and `package SPEC` for every package, as apt takes it. Both ways to the agent's image ask here: make-root.sh, and
# ../agent-image/install-packages.sh in a container build. So it needs nothing but what every Debian root has: bash, apt, dpkg, awk.
#
# Only amd64: CRIU's images of another architecture mean nothing here, and how an exit code is delivered is written for x86-64.
#
# A package written NAME@criu comes from the first of trixie, trixie-backports and sid whose CRIU is 4.2 or a later 4.x.
set -euo pipefail

readonly RELEASE=trixie
readonly MINIMUM=4.2
readonly BELOW=5

fail() {
  echo "resolve-packages.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: resolve-packages.sh MIRROR PACKAGES"
mirror=$1 list=$2
architecture=$(dpkg --print-architecture)
[ "$architecture" = amd64 ] || fail "this is $architecture, and the agent is made for amd64 only"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The version of CRIU that a suite of the archive has, or nothing. Only looked at: what is installed is verified by apt.
criu_version() {
  local index="$work/packages.xz"
  rm -f "$index"
  /usr/lib/apt/apt-helper download-file "$mirror/dists/$1/main/binary-$architecture/Packages.xz" "$index" \
    >"$work/download.log" 2>&1 || return 0
  /usr/lib/apt/apt-helper cat-file "$index" |
    awk '/^Package: criu$/ { mine = 1 } mine && /^Version:/ { print $2 } /^$/ { mine = 0 }' | tail -n1
}

suite_of_criu() {
  local suite version seen=""
  for suite in "$RELEASE" "$RELEASE-backports" sid; do
    version=$(criu_version "$suite")
    seen="$seen $suite:${version:-none}"
    if [ -n "$version" ] && dpkg --compare-versions "$version" ge "$MINIMUM" && dpkg --compare-versions "$version" lt "$BELOW"; then
      echo "$suite"
      return
    fi
  done
  fail "no suite of the Debian archive has CRIU $MINIMUM or a later 4.x (seen:$seen)"
}

echo "suite $RELEASE"
criu_suite=$RELEASE
if grep -q '@criu$' "$list"; then
  criu_suite=$(suite_of_criu)
  [ "$criu_suite" = "$RELEASE" ] || echo "suite $criu_suite"
fi

while read -r name; do
  case "$name" in
  '' | '#'*) ;;
  criu@criu) echo "package criu/$criu_suite" ;;
  # In the release's own suite the dependencies of CRIU fit as they are.
  *@criu) [ "$criu_suite" = "$RELEASE" ] || echo "package ${name%@criu}/$criu_suite" ;;
  *) echo "package $name" ;;
  esac
done <"$list"
