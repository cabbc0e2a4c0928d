#!/bin/bash
# probe.sh: what a machine has of what the GPU tests take for granted. Changes nothing; what is missing is said and passed over.
show() {
  echo "== $*"
  "$@" 2>&1 | head -n "${LINES_EACH:-40}"
}
show uname -a
show cat /etc/os-release
show id
show grep -E 'Cap|NoNewPrivs|Seccomp' /proc/self/status
show nproc
show free -m
show df -h / /tmp /root /dev/shm "$PWD"
show findmnt -rno TARGET,FSTYPE,PROPAGATION,OPTIONS
show lsns
show cat /proc/1/comm /proc/self/cgroup
show ls /sys/fs/cgroup
show cat /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/cgroup.subtree_control
show cat /sys/kernel/mm/transparent_hugepage/enabled
show sh -c 'ls -lR /dev/nvidia*'
show sh -c 'ls -l /usr/local/nvidia /usr/local/nvidia/*'
show sh -c 'ldconfig -p | grep -E "libcuda|libnvidia-ml|libseccomp|libstdc"'
show sh -c 'find / -xdev -name "libcuda.so*" -o -xdev -name "cuda-checkpoint" 2>/dev/null'
show sh -c 'env | grep -E "^(PATH|LD_|NCCL_|CUDA_|NVIDIA_|NVSHMEM_|TORCH_|PYTHON|HF_|OUT=)"'
show nvidia-smi
show nvidia-smi -q -d MIG
show nvidia-smi topo -m
show cat /proc/driver/nvidia/version /proc/driver/nvidia/params
show sh -c 'command -v make xz zstd python3 gcc nvcc runc unshare nsenter mount findmnt ip iptables strace node'
show python3 --version
show sh -c 'ldd --version; getconf GNU_LIBC_VERSION'
show sh -c 'zcat /proc/config.gz | grep -E "CGROUP_BPF|CGROUP_DEVICE|USERFAULTFD|OVERLAY_FS|CHECKPOINT_RESTORE|MEM_SOFT_DIRTY|TIME_NS|IO_URING="'
show cat /proc/sys/kernel/yama/ptrace_scope /proc/sys/vm/overcommit_memory
show sh -c 'cat /proc/sys/kernel/random/boot_id; cat /proc/loadavg'

echo "== an overlay over the root, with its upper directory in a tmpfs"
unshare --mount --propagation private sh -c '
  mkdir -p /tmp/probe-overlay && mount -t tmpfs tmpfs /tmp/probe-overlay && cd /tmp/probe-overlay && mkdir upper work root &&
  mount -t overlay -o lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work overlay root && echo changed >root/etc/probe &&
  ls upper/etc && grep " $PWD/root " /proc/self/mountinfo' 2>&1
rmdir /tmp/probe-overlay 2>/dev/null
echo "== a cgroup of its own"
directory=/sys/fs/cgroup/snapshot-probe
mkdir "$directory" && ls "$directory" | tr '\n' ' ' && rmdir "$directory"
