#!/bin/bash
# fetch-prometheus.sh DIR
#
# Puts promtool and prometheus of Debian's package into DIR: 19 MB to download, 95 MB there. The package is not installed, since it would start
# a server on this machine.
set -euo pipefail

[ $# = 1 ] || {
  echo "usage: fetch-prometheus.sh DIR" >&2
  exit 2
}
directory=$(readlink -m "$1")
[ ! -x "$directory/promtool" ] || exit 0

mkdir -p "$(dirname "$directory")"
work=$(mktemp -d "$directory.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
# As this user: apt's own cannot write here, and says so.
download=(apt-get download -q -o APT::Sandbox::User=root prometheus)
"${download[@]}" >log 2>&1 || {
  apt-get update -qq -o DPkg::Lock::Timeout=120 >>log 2>&1
  "${download[@]}" >>log 2>&1 || {
    cat log >&2
    echo "fetch-prometheus.sh: Debian's package of Prometheus cannot be downloaded" >&2
    exit 1
  }
}
mkdir bin
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -C bin --strip-components=3 ./usr/bin/promtool ./usr/bin/prometheus
# Of two that fetch at the same time, the first one's stay.
mv -T bin "$directory" 2>/dev/null || [ -x "$directory/promtool" ] || exit 1
