#!/bin/bash
# make-root.sh PACKAGES TARGET
#
# Makes a Debian root with the packages listed in the file PACKAGES: a directory TARGET, or an archive where TARGET ends in
# .tar. What is there already is kept while it was made from the same list by the same script (TARGET.stamp says so). The result
# appears under its name only when it is complete.
#
# What the list means, and from which suite a package comes, says resolve-packages.sh.
set -euo pipefail

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

stamp=$(cat "$list" "$here"/{make-root.sh,harden-root.sh,mirror.sh,resolve-packages.sh,versions.env} <(echo "${CRIU_REPO:-} ${CRIU_REF:-}") | sha256sum | cut -d' ' -f1)
mkdir -p "$(dirname "$target")"
exec 9>"$target.lock"
flock 9
if [ -e "$target" ] && [ "$(head -n1 "$target.stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

mirror=$("$here/mirror.sh")
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT

plan=$("$here/resolve-packages.sh" "$mirror" "$list")
mapfile -t suites < <(awk '$1 == "suite" { print $2 }' <<<"$plan")
mapfile -t packages < <(awk '$1 == "package" { print $2 }' <<<"$plan")
readonly release=${suites[0]}

sources=()
for suite in "${suites[@]}"; do
  # An archive near by often lags with sid, where lists are good for a week only. The lists of all others must be of today.
  option=$([ "$suite" != sid ] || echo '[check-valid-until=no] ')
  sources+=("deb $option$mirror $suite main")
done

case "$target" in
*.tar) made="$work/root.tar" ;;
*) made="$work/root" ;;
esac
echo "making $target: Debian $release with ${packages[*]}"
include=$(IFS=,; echo "${packages[*]}")
if ! mmdebstrap --quiet --mode=root --variant=minbase \
  --aptopt="APT::Default-Release \"$release\"" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --include="$include" --customize-hook="$here/harden-root.sh" "$release" "$made" "${sources[@]}" >"$work/mmdebstrap.log" 2>&1; then
  tail -n 20 "$work/mmdebstrap.log" >&2
  fail "mmdebstrap could not make the root from $mirror (its last lines are above)"
fi

criu_line="criu none"
if [ -x "$made/usr/sbin/criu" ]; then
  criu_line="criu $(chroot "$made" criu --version | awk '/^Version:/ { print $2 }') from ${suites[-1]}"
fi
rm -rf "$target" "$target.stamp"
mv "$made" "$target"
printf '%s\n%s\n' "$stamp" "$criu_line" >"$target.stamp"
echo "made $target ($criu_line)"
