"""stand_in.py SCRIPT [ARGUMENT…]: what takes the place of the worker SCRIPT where nothing but a stand-in for GPUs is there.

The processes that hold its "device memory" are standin-workers; this one, their parent, says of them what the worker would say of itself.
"""

import json
import queue
import subprocess
import sys
import threading
import time

import contract

PROGRAM = "/opt/standin-worker"
script, args = sys.argv[1], sys.argv[2:]


class Process:
    """One standin-worker, and the lines that it prints while it is not locked."""

    def __init__(self, *options):
        self.child = subprocess.Popen([PROGRAM, *options], stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.last = json.loads(self.child.stdout.readline())
        self.hash = self.last["hash"]
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            self.lines.put(json.loads(line))

    def step(self):
        """The next line: none comes while it is locked."""
        self.last = self.lines.get()
        while not self.lines.empty():
            self.last = self.lines.get()
        return self.last["beat"]

    def problem(self):
        if self.child.poll() is not None:
            return f"it ended: {self.child.returncode}"
        return None if self.last["hash"] == self.hash else "device memory differs"


def memory():
    return ["--bytes", str((int(args[0]) << 20) // 64)]


def gpus(list_of_ordinals):
    return [word for one in list_of_ordinals for word in ("--gpu", str(one))]


def started():
    if script == "cuda_memory":
        return [Process(*memory(), *gpus((args[1] if len(args) > 1 else "0").split(",")))]
    if script == "torch_tensor":
        return [Process(*memory(), "--every", "5")]
    if script == "two_processes":
        return [Process(*memory(), *gpus([ordinal])) for ordinal in (0, 1)]
    if script == "nccl_ranks":
        # As seen on GPUs: with the default transports all can be locked, and one cannot be restored.
        if "quiet" in args:
            return [Process(), Process(*gpus([1]))]
        other = "with-default-transports" if args[0] == "default" else "in-a-collective"
        return [Process("--name", "a-rank"), Process("--name", other, *gpus([1]))]
    if script == "peer_copy":
        return [Process("--peer-access", *gpus([0, 1]))]
    if script == "compile_pool":
        return [Process("--forked-child")]
    if script == "cuda_fill":
        return [Process("--bytes", str(480 << 20), "--every", "500")]
    if script == "cuda_births":
        return [Process()]
    sys.exit(f"nothing stands for {script}")


processes = started()
births_end = time.monotonic() + float(args[0]) if script == "cuda_births" else 0


def step():
    if time.monotonic() < births_end:
        processes.append(Process())
    counts = [process.step() for process in processes]
    return {"counts": counts, "count": counts[0], "born": len(processes) - 1}


def verdict():
    problems = [problem for process in processes if (problem := process.problem())]
    return {"check": "; ".join(problems) or "ok"}


contract.on_check(verdict)
contract.announce(sha256=processes[0].hash, uuids=processes[0].last["on"])
contract.tick_forever(step, 0.01)
