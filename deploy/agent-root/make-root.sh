#!/bin/bash
# make-root.sh PACKAGES TARGET
#
# Makes a Debian trixie root with the packages listed in the file PACKAGES: a directory TARGET, or an archive where TARGET ends in
# .tar. What is there already is kept while it was made from the same list by the same script (TARGET.stamp says so). The result
# appears under its name only when it is complete.
#
# A package written NAME@criu comes from the first of trixie, trixie-backports and sid whose CRIU is 4.2 or a later 4.x.
set -euo pipefail

readonly RELEASE=trixie
readonly MINIMUM=4.2
readonly BELOW=5

here=$(dirname "$(readlink -f "$0")")
fail() {
  echo "make-root.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || fail "usage: make-root.sh PACKAGES TARGET"
list=$(readlink -f "$1")
target=$(readlink -m "$2")
[ "$(id -u)" = 0 ] || fail "must run as root: it makes files of other owners and device nodes"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: run 'make setup'"

stamp=$(cat "$list" "$here/make-root.sh" "$here/mirror.sh" | sha256sum | cut -d' ' -f1)
mkdir -p "$(dirname "$target")"
exec 9>"$target.lock"
flock 9
if [ -e "$target" ] && [ "$(head -n1 "$target.stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

mirror=$("$here/mirror.sh")
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The version of CRIU that a suite of the archive has, or nothing.
criu_version() {
  local index="$work/packages.xz"
  rm -f "$index"
  /usr/lib/apt/apt-helper download-file "$mirror/dists/$1/main/binary-$(dpkg --print-architecture)/Packages.xz" "$index" \
    >"$work/download.log" 2>&1 || return 0
  xz -dc "$index" | awk '/^Package: criu$/ { mine = 1 } mine && /^Version:/ { print $2 } /^$/ { mine = 0 }' | tail -n1
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

suites=("$RELEASE")
criu_suite=""
if grep -q '@criu$' "$list"; then
  criu_suite=$(suite_of_criu)
  [ "$criu_suite" = "$RELEASE" ] || suites+=("$criu_suite")
fi

packages=()
while read -r name; do
  case "$name" in
  '' | '#'*) ;;
  criu@criu) packages+=("criu/$criu_suite") ;;
  # In the release's own suite the dependencies of CRIU fit as they are.
  *@criu) [ "$criu_suite" = "$RELEASE" ] || packages+=("${name%@criu}/$criu_suite") ;;
  *) packages+=("$name") ;;
  esac
done <"$list"

sources=()
for suite in "${suites[@]}"; do
  sources+=("deb $mirror $suite main")
done

case "$target" in
*.tar) made="$work/root.tar" ;;
*) made="$work/root" ;;
esac
echo "making $target: Debian $RELEASE with ${packages[*]}"
# Check-Valid-Until: a machine whose clock runs ahead, or whose mirror lags, must be able to use sid.
include=$(IFS=,; echo "${packages[*]}")
if ! mmdebstrap --quiet --mode=root --variant=minbase \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt="APT::Default-Release \"$RELEASE\"" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --include="$include" "$RELEASE" "$made" "${sources[@]}" >"$work/mmdebstrap.log" 2>&1; then
  tail -n 20 "$work/mmdebstrap.log" >&2
  fail "mmdebstrap could not make the root from $mirror (its last lines are above)"
fi

criu_line="criu none"
if [ -x "$made/usr/sbin/criu" ]; then
  criu_line="criu $(chroot "$made" criu --version | awk '/^Version:/ { print $2 }') from $criu_suite"
fi
rm -rf "$target" "$target.stamp"
mv "$made" "$target"
printf '%s\n%s\n' "$stamp" "$criu_line" >"$target.stamp"
echo "made $target ($criu_line)"
