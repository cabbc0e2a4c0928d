"""memory.py [MEBIBYTES [ZERO_MEBIBYTES]]: random memory with a digest, memory of zeros, a counter file and a held log."""

import hashlib
import mmap
import os
import sys

from verdict import equal, run, writable_directory

size = int(sys.argv[1]) if len(sys.argv) > 1 else 32
zero_size = int(sys.argv[2]) if len(sys.argv) > 2 else 4
directory = writable_directory()

memory = mmap.mmap(-1, size << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for index in range(size):
    memory[index << 20 : (index + 1) << 20] = os.urandom(1 << 20)
zeros = mmap.mmap(-1, max(zero_size, 1) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(zeros), 4096):
    zeros[page] = 0  # touched, so that there is a page of zeros
# Pages that alternate between content and zeros, and one byte at the end of a page.
sparse = bytearray(4 << 20)
for page in range(0, len(sparse), 8192):
    sparse[page : page + 8] = page.to_bytes(8, "little")
sparse[-1] = 7


def digest():
    return hashlib.sha256(memory).hexdigest()


def sparse_digest():
    return hashlib.sha256(sparse).hexdigest()


expected, expected_sparse = digest(), sparse_digest()
counted = 0
log = open(f"{directory}/held.log", "a", buffering=1)


def beat(count):
    global counted
    with open(f"{directory}/counter", "w") as file:
        file.write(str(count))
    counted = count
    log.write(f"{count}\n")


def counter_file():
    if counted == 0 and not os.path.exists(f"{directory}/counter"):
        return  # asked before the first beat
    with open(f"{directory}/counter") as file:
        text = file.read()
    # The signal can arrive between the two writes.
    if text not in ("", str(counted), str(counted + 1)):
        raise AssertionError(f"counter file has {text!r}, counted {counted}")


def held_log():
    with open(f"{directory}/held.log") as file:
        lines = file.read().split()
    equal(lines, [str(number + 1) for number in range(len(lines))], "lines of the held log")
    if abs(len(lines) - counted) > 1:
        raise AssertionError(f"held log has {len(lines)} lines, counted {counted}")
    equal(os.fstat(log.fileno()).st_ino, os.stat(f"{directory}/held.log").st_ino, "file of the held log")


run(
    "memory",
    {
        "memory": lambda: equal(digest(), expected, "digest"),
        "sparse memory": lambda: equal(sparse_digest(), expected_sparse, "digest"),
        "zeros": lambda: equal(zeros[:].count(0), len(zeros), "number of zeros"),
        "counter file": counter_file,
        "held log": held_log,
    },
    beat,
    details=lambda: {"digest": expected[:16], "mebibytes": size},
    digest=expected[:16],
)
