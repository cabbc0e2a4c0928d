"""nccl_ranks.py TRANSPORTS [quiet]: two ranks of NCCL that reduce, each on its own GPU, below a process that watches them.

TRANSPORTS is how they reach each other: "default", or "host" for through host memory, so that no GPU reaches into the other. They
reduce in a loop; where they are to be quiet, only when they are asked whether they are well.
"""

import os
import subprocess
import sys

import contract

transports = sys.argv[1]
is_quiet = "quiet" in sys.argv
if sys.argv[-1].isdigit():
    import torch
    import torch.distributed as dist

    rank = int(sys.argv[-1])
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=2)
    while not is_quiet or sys.stdin.readline():
        data = torch.full((1 << 20,), float(rank + 1), device="cuda")
        dist.all_reduce(data)
        torch.cuda.synchronize()
        print(data[0].item(), flush=True)
    sys.exit()

# Without NVLink multicast: a program that uses it can put GPUs that others share out of service. Without libuv in the store that
# the ranks meet at: it uses io_uring, which no checkpoint can have.
settings = {
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_NVLS_ENABLE": "0",
    "USE_LIBUV": "0",
    "UV_USE_IO_URING": "0",
}
# Shared host memory stays: it is how they reach each other then.
settings |= {
    "default": {},
    "host": {
        "NCCL_P2P_DISABLE": "1",
        "NCCL_CUMEM_ENABLE": "0",
        "NCCL_IB_DISABLE": "1",
        "NCCL_RAS_ENABLE": "0",
    },
}[transports]
command = [sys.executable, "-u", __file__, *sys.argv[1:]]
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
ranks = [subprocess.Popen([*command, str(rank)], env={**os.environ, **settings}, **pipes) for rank in (0, 1)]


def reduced():
    if is_quiet:
        for rank in ranks:
            rank.stdin.write(b"\n")
            rank.stdin.flush()
    return [rank.stdout.readline() for rank in ranks]


sums = reduced()
if not all(sums):
    sys.exit("a rank ended before its first sum")


def step():
    # A rank that stands still lets this stand still too: no line, no tick.
    if not is_quiet:
        sums[:] = reduced()
    return {"sums": [float(one or "nan") for one in sums], "lost": sum(rank.poll() is not None for rank in ranks)}



def verdict():
    if any(rank.poll() is not None for rank in ranks):
        return {"check": "a rank has ended"}
    if is_quiet:
        sums[:] = reduced()
    return {"check": "ok" if [float(one or "nan") for one in sums] == [3.0, 3.0] else f"the sums are {sums}"}


contract.on_check(verdict)
contract.announce()
contract.tick_forever(step, 0.01)
