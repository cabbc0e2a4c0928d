#!/bin/bash
# Makes this machine ready to build the product and run its tests, and says what it does. Done already: says so within a second.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
repository=$(readlink -f "$here/../../..")
fail() {
  echo "setup: $*" >&2
  exit 1
}

id=$(. /etc/os-release && echo "${ID:-unknown}")
[ "$id" = debian ] || fail "this machine runs '$id'. The build and the tests use Debian's packages of containerd, runc and CRIU: run them on Debian 12 or later"
[ "$(id -u)" = 0 ] || fail "must run as root: the tests run containers, and missing packages are installed"
command -v node >/dev/null || fail "Node.js is not installed: version 20.11 or later is needed, with npm"
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 11) ? 0 : 1)' ||
  fail "Node.js $(node --version) is too old: version 20.11 or later is needed"
command -v npm >/dev/null || fail "npm is not installed"

missing=()
while read -r name; do
  case "$name" in
  '' | '#'*) ;;
  *) [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name") ;;
  esac
done <"$here/host-packages.txt"

if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing with apt-get: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  install=(apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "${missing[@]}")
  log=$(mktemp)
  if ! "${install[@]}" >"$log" 2>&1 </dev/null; then
    echo "setup: package lists are missing or old: apt-get update"
    apt-get update -qq -o DPkg::Lock::Timeout=120 >>"$log" 2>&1 </dev/null || true
    "${install[@]}" >>"$log" 2>&1 </dev/null || {
      tail -n 20 "$log" >&2
      fail "apt-get could not install ${missing[*]}"
    }
  fi
  rm -f "$log"
fi

if [ ! -e "$repository/node_modules/.package-lock.json" ] || [ "$repository/package-lock.json" -nt "$repository/node_modules/.package-lock.json" ]; then
  echo "setup: npm install"
  (cd "$repository" && npm install --no-save --no-audit --no-fund --loglevel=error </dev/null)
  touch "$repository/node_modules/.package-lock.json"
fi
"$repository/test/chart/get-helm.sh"

"$repository/deploy/images/make-root.sh" "$repository/deploy/images/agent/packages.txt" "$repository/.cache/agent-root"
"$repository/deploy/images/make-root.sh" "$here/workload-packages.txt" "$repository/.cache/workload-base.tar"
echo "setup: ready (containerd $(dpkg-query -W -f='${Version}' containerd), $(runc --version | head -n1), $(tail -n1 "$repository/.cache/agent-root.stamp"))"
