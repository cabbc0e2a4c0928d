#!/bin/bash
# agent-root.sh ROOT WORK CGROUP BIND... -- PROGRAM ARGUMENT...
#
# Runs PROGRAM as a privileged DaemonSet pod with hostPID would run it: ROOT (read only below an overlay in WORK) as its root
# directory, a cgroup of its own, the host's PID namespace, all devices, the host's procfs and cgroups below /host. Each BIND is
# HOSTPATH:PATH. To be started in a new mount namespace of private propagation: everything mounted here ends with it.
set -euo pipefail

root=$1 work=$2 cgroup=$3
shift 3

# A cgroup of its own in every hierarchy, so that a process that stays in the agent's cgroup by mistake is seen there.
join_cgroup() {
  local directory=$1/$cgroup
  mkdir -p "$directory"
  if [ -e "$directory/cpuset.cpus" ] && [ -e "$directory/tasks" ]; then
    cat "$1/cpuset.cpus" >"$directory/cpuset.cpus"
    cat "$1/cpuset.mems" >"$directory/cpuset.mems"
  fi
  echo $$ >"$directory/cgroup.procs"
}
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
  join_cgroup /sys/fs/cgroup
else
  for hierarchy in /sys/fs/cgroup/*/; do
    [ -L "${hierarchy%/}" ] || [ ! -e "$hierarchy/cgroup.procs" ] || join_cgroup "${hierarchy%/}"
  done
fi

new=$work/root
mkdir -p "$work/upper" "$work/overlay" "$new"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/overlay" "$new"
mkdir -p "$new"/{proc,sys,dev,run,tmp,host/proc,host/cgroup,old-root}
mount -t proc proc "$new/proc"
mount --rbind /sys "$new/sys"
mount --rbind /dev "$new/dev"
mount --rbind /proc "$new/host/proc"
mount --rbind /sys/fs/cgroup "$new/host/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
while [ "$1" != -- ]; do
  from=${1%%:*} to=$new${1#*:}
  if [ -d "$from" ]; then
    mkdir -p "$to"
  else
    mkdir -p "$(dirname "$to")"
    [ -e "$to" ] || : >"$to"
  fi
  mount --bind "$from" "$to"
  shift
done
shift

cd "$new"
pivot_root . old-root
umount -l old-root
rmdir old-root
exec chroot . "$@"
