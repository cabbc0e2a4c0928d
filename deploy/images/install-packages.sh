#!/bin/bash
# install-packages.sh PACKAGES
#
# Installs the packages listed in the file PACKAGES into the running root: what make-root.sh does for a new directory, this does inside a
# container build that starts from a Debian image of the same release. Both ask resolve-packages.sh what the list means.
#
# MIRROR, where it is set, is the only source of packages: a mirror near by, or a day of snapshot.debian.org, with which the same packages
# come again. Without it the sources of the base image stay, its security updates among them.
set -euo pipefail
umask 022

fail() {
  echo "install-packages.sh: $*" >&2
  exit 1
}
[ $# = 1 ] || fail "usage: install-packages.sh PACKAGES"
here=$(dirname "$(readlink -f "$0")")
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-none}")
# Images of Debian come without package lists, and without those apt does not say where it takes packages from.
[ -n "${MIRROR:-}" ] || apt-get update -qq
mirror=${MIRROR:-$("$here/mirror.sh")}

plan=$("$here/resolve-packages.sh" "$mirror" "$1")
mapfile -t suites < <(awk '$1 == "suite" { print $2 }' <<<"$plan")
mapfile -t packages < <(awk '$1 == "package" { print $2 }' <<<"$plan")
release=${suites[0]}
[ "$codename" = "$release" ] || fail "the base image is Debian $codename, and the list of packages is for $release: change the first line of FROM"

if [ -n "${MIRROR:-}" ]; then
  rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
else
  suites=("${suites[@]:1}") # the base image has its own release already
fi
for suite in "${suites[@]}"; do
  # The lists of a dated archive are not of today, and one near by often lags with sid. The option is gone again below (harden-root.sh).
  option=$([ -z "${MIRROR:-}" ] && [ "$suite" != sid ] || echo ' check-valid-until=no')
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg$option] $mirror $suite main"
done >/etc/apt/sources.list.d/snapshot.list
# Nothing comes from another suite but what is asked for by name. The pattern covers the release's updates and security suites.
cat >/etc/apt/apt.conf.d/50snapshot <<END
APT::Default-Release "/^$release(-updates|-security)?\$/";
APT::Install-Recommends "false";
END
# What nobody reads in a container, but for what the licences want to be kept.
{
  for unread in doc man locale; do
    echo "path-exclude=/usr/share/$unread/*"
  done
  echo 'path-include=/usr/share/doc/*/copyright'
} >/etc/dpkg/dpkg.cfg.d/50snapshot

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq -o Dpkg::Use-Pty=0 "${packages[@]}"
# Neither lists nor caches nor logs of this day: they would make every build another image.
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
"$here/harden-root.sh" /
