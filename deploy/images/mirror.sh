#!/bin/bash
# Prints the address of the Debian archive that this machine's apt is configured with (either format of its source lists).
set -euo pipefail

fail() {
  echo "mirror.sh: $*" >&2
  exit 1
}

release=$(. /etc/os-release && echo "${ID:-unknown} ${VERSION_CODENAME:-}")
read -r id codename <<<"$release"
[ "$id" = debian ] || fail "this machine runs '$id', but root directories are made from Debian packages with the mirror that apt is configured with here: run this on Debian 12 or later"
[ -n "$codename" ] || fail "/etc/os-release names no VERSION_CODENAME, so the main archive cannot be told from other package sources"

uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
  awk -v suite="$codename" '$1 == suite && $2 == "main" { print $3; exit }')
[ -n "$uri" ] || fail "apt is configured with no source '$codename main': add the Debian archive to /etc/apt/sources.list.d"
case "$uri" in
mirror+file:*) # a file that lists mirrors, as on cloud images
  uri=$(awk '!/^#/ && NF { print $1; exit }' "${uri#mirror+file:}") ;;
esac
case "$uri" in
*://*) echo "${uri%/}" ;;
*) fail "the package source '$uri' is no address that a new root directory can be made from" ;;
esac
