#!/bin/bash
# make-image.sh NAME ARCHIVE [ROOT]
#
# Makes the agent's image without a container engine, as an archive that `docker load`, `podman load`, `skopeo` and `ctr images import`
# take: one layer with the Debian root, one with the agent. Needs a built tree (`make build`), root, and mmdebstrap. ROOT is where the
# Debian root is kept between runs; without it it is made anew.
#
# The bytes depend on the packages and the built files only: same input, same image.
set -euo pipefail
umask 022

fail() {
  echo "make-image.sh: $*" >&2
  exit 1
}
[ $# = 2 ] || [ $# = 3 ] || fail "usage: make-image.sh NAME ARCHIVE [ROOT]"
name=$1 archive=$(readlink -m "$2")
here=$(dirname "$(readlink -f "$0")")
tree=$(readlink -f "$here/../..")
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT

root=$(readlink -m "${3:-$work/root}")
"$here/../agent-root/make-root.sh" "$here/../agent-root/packages.txt" "$root"

mkdir "$work/agent" "$work/archive"
"$here/install.sh" "$tree" "$work/agent"
"$here/list-versions.sh" "$root" "$work/agent/opt/snapshot-agent" >"$work/agent/opt/snapshot-agent/versions.txt"

# Prints the digest of the layer made from a directory.
layer() {
  local file=$work/layer.tar digest
  # tar says "socket ignored" and the like on standard error only.
  tar -C "$1" --sort=name --mtime=@0 --numeric-owner --xattrs --xattrs-include=security.capability "${@:2}" -cf "$file" .
  digest=$(sha256sum "$file" | cut -d' ' -f1)
  mv "$file" "$work/archive/$digest.tar"
  echo "$digest"
}
# /dev, /proc, /sys and /run are the container's own.
base=$(layer "$root" --exclude='./dev/*' --exclude='./run/*' --exclude=./etc/resolv.conf --exclude=./etc/hostname)
agent=$(layer "$work/agent" --owner=0 --group=0)

cat >"$work/config.json" <<END
{
  "architecture": "$(dpkg --print-architecture)",
  "os": "linux",
  "config": $(cat "$here/image.json"),
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$base", "sha256:$agent"] },
  "history": [{ "created_by": "deploy/agent-root/make-root.sh" }, { "created_by": "deploy/agent-image/install.sh" }]
}
END
config=$(sha256sum "$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$work/archive/$config.json"
cat >"$work/archive/manifest.json" <<END
[{ "Config": "$config.json", "RepoTags": ["$name"], "Layers": ["$base.tar", "$agent.tar"] }]
END
tar -C "$work/archive" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/image.tar" .
mv "$work/image.tar" "$archive"
echo "made $archive: $name sha256:$config ($(sed -n 's/^criu /criu /p' "$work/agent/opt/snapshot-agent/versions.txt" | head -n1))"
