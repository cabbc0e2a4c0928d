#!/bin/bash
# build-criu.sh OUT
#
# Builds CRIU from its sources, in a container build or in a root directory of the same Debian release, and installs it into the directory
# OUT as it would into /. Where neither CRIU_REPO (an address or path that git can clone) nor CRIU_REF (branch, tag or commit) is set, OUT
# stays empty: then the image has the CRIU of Debian.
set -euo pipefail
umask 022

fail() {
  echo "build-criu.sh: $*" >&2
  exit 1
}
[ $# = 1 ] || fail "usage: build-criu.sh OUT"
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$1"
out=$(readlink -f "$1")
[ -n "${CRIU_REPO:-}${CRIU_REF:-}" ] || exit 0
. "$here/versions.env"
repository=${CRIU_REPO:-$CRIU_DEFAULT_REPO} ref=${CRIU_REF:-$CRIU_DEFAULT_REF}

env -u CRIU_REPO -u CRIU_REF "$here/install-packages.sh" "$here/agent/criu-packages.txt"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init -q "$work"
# One commit is enough where the server gives it; an abbreviated commit needs the whole history.
git -C "$work" fetch -q --depth 1 "$repository" "$ref" ||
  git -C "$work" fetch -q "$repository" '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*' ||
  fail "cannot fetch $repository"
git -C "$work" checkout -q --detach "$(git -C "$work" rev-parse -q --verify "$ref^{commit}" || git -C "$work" rev-parse -q --verify FETCH_HEAD)" ||
  fail "$repository has no branch, tag or commit '$ref'"
commit=$(git -C "$work" rev-parse HEAD)

# The program alone: GPUs are the agent's own work, and CRIU's plug-ins, manual and Python tools are not used.
make -C "$work" -s -j"$(nproc)" criu
install -D -s -m 0755 "$work/criu/criu" "$out/usr/sbin/criu"
version=$("$out/usr/sbin/criu" --version | awk '/^Version:/ { print $2 }')
[ -n "$version" ] || fail "what was built from $repository $ref does not say its version"
dpkg --compare-versions "$version" ge "$CRIU_MINIMUM" && dpkg --compare-versions "$version" lt "$CRIU_BELOW" ||
  fail "$repository $ref is CRIU $version, and the agent works with versions from $CRIU_MINIMUM on and before $CRIU_BELOW"

# What the bill of materials says of it, in the place of Debian's package.
install -D -m 0644 "$work/COPYING" "$out/usr/share/doc/criu/copyright"
mkdir -p "$out/usr/share/snapshot"
printf 'version %s\nrepository %s\ncommit %s\n' "$version" "$repository" "$commit" >"$out/usr/share/snapshot/criu-source.txt"
echo "built CRIU $version from $repository, commit $commit"
