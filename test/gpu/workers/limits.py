"""limits.py DIRECTORY [GIB]: what this machine can do, in GB/s: copies to and from the GPU, memory copies, the disk of DIRECTORY."""

import json
import os
import sys
import threading
import time

import numpy

directory = sys.argv[1]
gib = int(sys.argv[2]) if len(sys.argv) > 2 else 4
size = gib << 30
found = {}


def rate(seconds):
    return size / seconds / 1e9


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(work, times=3):
    return rate(min(timed(work) for _ in range(times)))


def copy_threads(count, source, target):
    def part(at):
        step = size // count
        numpy.copyto(target[at * step : (at + 1) * step], source[at * step : (at + 1) * step])

    threads = [threading.Thread(target=part, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


source, target = numpy.ones(size, numpy.uint8), numpy.ones(size, numpy.uint8)
for count in (1, 4, 16):
    found[f"memory copy, {count} threads"] = best(lambda count=count: copy_threads(count, source, target))


def touch_fresh():
    numpy.ones(size, numpy.uint8)


found["fresh memory, 1 thread"] = best(touch_fresh)

try:
    import torch

    device = torch.empty(size, dtype=torch.uint8, device="cuda")
    pinned, pageable = torch.empty(size, dtype=torch.uint8, pin_memory=True), torch.from_numpy(source)

    def copy(to, of):
        to.copy_(of)
        torch.cuda.synchronize()

    found["host to device, pinned"] = best(lambda: copy(device, pinned))
    found["device to host, pinned"] = best(lambda: copy(pinned, device))
    found["host to device, pageable"] = best(lambda: copy(device, pageable))
    found["device to host, pageable"] = best(lambda: copy(pageable, device))
except (ImportError, RuntimeError) as error:
    found["gpu"] = str(error)

path = os.path.join(directory, "limits.data")


def write():
    with open(path, "wb", buffering=0) as file:
        for offset in range(0, size, 64 << 20):
            file.write(source[offset : offset + (64 << 20)])
        os.fsync(file.fileno())


def read(count):
    def part(at):
        with open(path, "rb", buffering=0) as file:
            file.seek(at * (size // count))
            left = size // count
            buffer = bytearray(8 << 20)
            while left > 0:
                left -= file.readinto(buffer)

    threads = [threading.Thread(target=part, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def forget():
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


found["disk write, synced"] = rate(timed(write))
for count in (1, 16):
    forget()
    found[f"disk read, cold, {count} streams"] = rate(timed(lambda count=count: read(count)))
os.unlink(path)
print(json.dumps(found))
