#!/bin/bash
# check-base.sh BASE
#
# Refuses the root directory BASE of another image where its programs are not for amd64. The programs themselves are asked, because a
# builder takes an image of another architecture for one of its own where that is the only one under its name.
set -euo pipefail

fail() {
  echo "check-base.sh: $*" >&2
  exit 1
}
[ $# = 1 ] && [ -d "$1" ] || fail "usage: check-base.sh BASE"

# The first program that is found answers for all: the 16-bit number at its byte 18 says for which machine it is.
while IFS= read -r -d '' file; do
  [ "$(od -An -tx1 -N4 "$file")" = ' 7f 45 4c 46' ] || continue
  machine=$(od -An -j18 -N2 -tu2 "$file" | tr -d ' ')
  case "$machine" in
  62) exit 0 ;;
  3) name=i386 ;;
  21) name=ppc64le ;;
  22) name=s390x ;;
  40) name=arm ;;
  183) name=arm64 ;;
  243) name=riscv64 ;;
  *) name="machine $machine" ;;
  esac
  fail "the base image is for $name (${file#"$1"}), and images are made for amd64 only"
done < <(find "$1" -xdev -type f -perm /111 -size +63c -print0)
echo "check-base.sh: there is no program in the base image: it is taken for amd64" >&2
