#!/bin/bash
# resolve-packages.sh MIRROR PACKAGES
#
# Says what the list PACKAGES means on the Debian archive MIRROR today, one line each: `suite NAME` for every suite that is needed, the
# release first, and `package SPEC` for every package, as apt takes it. Both ways to an image ask here: make-root.sh, and
# install-packages.sh in a container build. So it needs nothing but what every Debian root has: bash, apt, dpkg, awk.
#
# Only amd64: CRIU's images of another architecture mean nothing here, and how an exit code is delivered is written for x86-64.
#
# A package written NAME@criu comes from the first of the release, its backports and sid whose CRIU is in the range of versions.env. Where
# CRIU_REPO or CRIU_REF is set, CRIU is built from its sources (build-criu.sh): then these are left out, and those written NAME@built-criu
# are taken, from the release.
set -euo pipefail

fail() {
  echo "resolve-packages.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: resolve-packages.sh MIRROR PACKAGES"
mirror=$1 list=$2
. "$(dirname "$(readlink -f "$0")")/versions.env"
architecture=$(dpkg --print-architecture)
[ "$architecture" = amd64 ] || fail "this is $architecture, and images are made for amd64 only"
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
  for suite in "$DEBIAN_RELEASE" "$DEBIAN_RELEASE-backports" sid; do
    version=$(criu_version "$suite")
    seen="$seen $suite:${version:-none}"
    if [ -n "$version" ] && dpkg --compare-versions "$version" ge "$CRIU_MINIMUM" && dpkg --compare-versions "$version" lt "$CRIU_BELOW"; then
      echo "$suite"
      return
    fi
  done
  fail "no suite of the Debian archive has CRIU from $CRIU_MINIMUM on and before $CRIU_BELOW (seen:$seen)"
}

from_suite_of_criu() {
  # In the release's own suite the dependencies of CRIU fit as they are.
  [ "$1" != criu ] && [ "$criu_suite" = "$DEBIAN_RELEASE" ] || echo "package $1/$criu_suite"
}

echo "suite $DEBIAN_RELEASE"
criu_suite=$DEBIAN_RELEASE
built=${CRIU_REPO:-}${CRIU_REF:-}
if [ -z "$built" ] && grep -q '@criu$' "$list"; then
  criu_suite=$(suite_of_criu)
  [ "$criu_suite" = "$DEBIAN_RELEASE" ] || echo "suite $criu_suite"
fi

while read -r name; do
  case "$name" in
  '' | '#'*) ;;
  *@built-criu) [ -z "$built" ] || echo "package ${name%@built-criu}" ;;
  *@criu) [ -n "$built" ] || from_suite_of_criu "${name%@criu}" ;;
  *) echo "package $name" ;;
  esac
done <"$list"
