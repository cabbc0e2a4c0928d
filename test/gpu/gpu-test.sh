#!/bin/bash
# gpu-test.sh [ARGUMENT...]
#
# Unpacks what `make gpu-bundle` made and runs the GPU tests from it. Needs root, bash, mount and unshare, and xz or Python to unpack;
# nothing else, and no network. Node.js is the agent's own, started through its own loader.
set -euo pipefail

repository=$(readlink -f "$(dirname "$(readlink -f "$0")")/../..")
bundle=$repository/.gpu
tree=$repository/.gpu-tree
fail() {
  echo "gpu-test: $*" >&2
  exit 1
}
[ "$(id -u)" = 0 ] || fail "must run as root: it runs containers"
[ -e "$bundle/program.tar.xz" ] || fail "$bundle is not there: run 'make gpu-bundle' where the repository is built, and bring it here"

unpack() { # ARCHIVE
  local stamp
  stamp=$tree/$(basename "$1").stamp
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(sha256sum <"$1")" ]; then return; fi
  if command -v xz >/dev/null; then
    tar -xJf "$1" -C "$tree"
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="fully_trusted")' "$1" "$tree"
  fi
  sha256sum <"$1" >"$stamp"
}
mkdir -p "$tree"
for archive in "$bundle"/*.tar.xz; do unpack "$archive"; done

added=()
cleanup() {
  for path in "${added[@]}"; do rm -f "$path"; done
}
trap cleanup EXIT
# Node.js of the agent's root has some of its parts at this path, and nowhere else.
if [ ! -e /usr/share/nodejs ]; then
  ln -s "$tree/.cache/agent-root/usr/share/nodejs" /usr/share/nodejs
  added+=(/usr/share/nodejs)
fi
export PATH=$tree/bin:$PATH
if ! runc --version >/dev/null 2>&1; then
  library=/usr/lib/x86_64-linux-gnu/libseccomp.so.2
  [ -e "$library" ] || { cp "$tree/lib/libseccomp.so.2" "$library" && added+=("$library"); }
  runc --version >/dev/null || fail "runc does not run on this machine"
fi

root=$tree/.cache/agent-root/usr
libraries=$root/lib/x86_64-linux-gnu
"$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/bin/node" "$tree/test/gpu/program/run.mjs" "$@"
