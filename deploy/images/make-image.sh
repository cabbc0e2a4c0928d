#!/bin/bash
# make-image.sh IMAGE NAME ARCHIVE [BELOW]
#
# Makes an image without a container engine, as an archive that `docker load`, `podman load`, `skopeo` and `ctr images import` take. IMAGE is
# a directory here, NAME what the image is called in the archive. Needs a built tree (`make build`), root, and mmdebstrap.
#
# An image with a list of packages gets a new Debian root below it; BELOW is where that is kept between runs, and without it it is made anew.
# Any other image is put upon BELOW: the archive of an image (`docker save`), a root directory, or an archive of one.
#
# The bytes depend on the packages, the base and the built files only: same input, same image.
set -euo pipefail
umask 022

fail() {
  echo "make-image.sh: $*" >&2
  exit 1
}
[ $# = 3 ] || [ $# = 4 ] || fail "usage: make-image.sh IMAGE NAME ARCHIVE [BELOW]"
image=$1 name=$2 archive=$(readlink -m "$3")
here=$(dirname "$(readlink -f "$0")")
tree=$(readlink -f "$here/../..")
[ -e "$here/$image/image.json" ] || fail "there is no image '$image' in $here"
"$here/check-architecture.sh" "$(dpkg --print-architecture)"
[ -z "${CRIU_REPO:-}${CRIU_REF:-}" ] || [ ! -e "$here/$image/criu-packages.txt" ] ||
  fail "CRIU_REPO and CRIU_REF are for builds with a container engine: make docker-build-$image"
mkdir -p "$(dirname "$archive")"
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Makes a layer of a directory. tar says "socket ignored" and the like on standard error only. Of itself it would note, for each file, its
# own process number and when the file was last read.
layer() { # layer FILE DIRECTORY ARGUMENT...
  tar -C "$2" --sort=name --mtime=@0 --numeric-owner --xattrs --xattrs-include=security.capability \
    --format=posix --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' "${@:3}" -cf "$1"
}
# /dev, /proc, /sys and /run are the container's own.
readonly NOT_OURS=(--exclude='./dev/*' --exclude='./run/*' --exclude=./etc/resolv.conf --exclude=./etc/hostname)

layers=() base=()
if [ -e "$here/$image/packages.txt" ]; then
  below=$(readlink -m "${4:-$work/root}")
  "$here/make-root.sh" "$here/$image/packages.txt" "$below"
  layer "$work/below.tar" "$below" "${NOT_OURS[@]}" .
  layers+=(--layer "$work/below.tar=deploy/images/make-root.sh")
  "$here/lay-out.sh" "$image" "$tree" "$work/added" "$below"
  layer "$work/added.tar" "$work/added" --owner=0 --group=0 .
else
  [ $# = 4 ] || fail "the image '$image' is put upon another one: name its archive, or its root directory"
  below=$(readlink -e "$4") || fail "$4 is not there"
  mkdir "$work/base"
  if [ -d "$below" ]; then
    "$here/check-base.sh" "$below"
    layer "$work/below.tar" "$below" "${NOT_OURS[@]}" .
    layers+=(--layer "$work/below.tar=$(basename "$below")")
  elif tar -tf "$below" | grep -xE '(\./)?(manifest|index)\.json' >/dev/null; then
    tar -C "$work/base" -xf "$below"
    base=(--base "$work/base")
  else
    cp "$below" "$work/below.tar"
    layers+=(--layer "$work/below.tar=$(basename "$below")")
  fi
  "$here/lay-out.sh" "$image" "$tree" "$work/added"
  # Files alone: owners and modes of directories that the base has are the base's.
  (cd "$work/added" && find . ! -type d | LC_ALL=C sort) >"$work/files"
  layer "$work/added.tar" "$work/added" --owner=0 --group=0 --no-recursion --files-from="$work/files"
fi
layers+=(--layer "$work/added.tar=deploy/images/$image/install.sh")

id=$(cd "$tree" && node --import tsx "$here/archive/main.ts" --out "$work/archive" --name "$name" --image "$here/$image/image.json" \
  "${base[@]}" "${layers[@]}")
tar -C "$work/archive" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/image.tar" .
mv "$work/image.tar" "$archive"
echo "made $archive: $name $id"
