#!/bin/bash
# cgroup-v2.sh PROGRAM ARGUMENT...
#
# Runs PROGRAM on a machine that has cgroup v2 only, as far as it can see: the v2 hierarchy of a hybrid machine lies where a unified
# one has it. To be started in a new mount namespace of private propagation. Controllers that v1 hierarchies hold are missing there.
set -euo pipefail
[ -e /sys/fs/cgroup/cgroup.procs ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
exec "$@"
