"""memoryobjects.py [sysv]: memory that is shared, named, sealed or copied on write; with `sysv`, System V objects as well."""

import ctypes
import hashlib
import mmap
import multiprocessing
import os
import sys
import time
from multiprocessing import shared_memory

from verdict import equal, run

libc = ctypes.CDLL(None, use_errno=True)
checks = {}

memfd = os.memfd_create("test-object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.ftruncate(memfd, 1 << 20)
memfd_map = mmap.mmap(memfd, 1 << 20)
memfd_map[:] = os.urandom(1 << 20)
memfd_digest = hashlib.sha256(memfd_map).hexdigest()
checks["memfd by mapping"] = lambda: equal(hashlib.sha256(memfd_map).hexdigest(), memfd_digest, "digest")
checks["memfd by descriptor"] = lambda: equal(hashlib.sha256(os.pread(memfd, 1 << 20, 0)).hexdigest(), memfd_digest, "digest")

shared = mmap.mmap(-1, 1 << 20)
shared[8:] = os.urandom((1 << 20) - 8)
shared_digest = hashlib.sha256(shared[8:]).hexdigest()
copied = bytearray(os.urandom(8 << 20))
copied_digest = hashlib.sha256(copied).hexdigest()

named = shared_memory.SharedMemory(name="snapshot-test", create=True, size=1 << 20)
named.buf[16:] = os.urandom((1 << 20) - 16)
named_digest = hashlib.sha256(named.buf[16:]).hexdigest()

fork = multiprocessing.get_context("fork")
semaphore = fork.Semaphore(3)
semaphore.acquire()
value = fork.Value("q", 0)

child = os.fork()
if child == 0:
    counter = 0
    while True:
        counter += 1
        shared[:8] = counter.to_bytes(8, "little")
        named.buf[:8] = counter.to_bytes(8, "little")
        with value.get_lock():
            value.value += 1
        if hashlib.sha256(copied).hexdigest() != copied_digest:
            named.buf[8] = 1
        time.sleep(0.02)


def advances(what, read):
    """The child writes there all the time; the parent sees it."""

    def check():
        before = read()
        end = time.monotonic() + 3
        while read() <= before:
            if time.monotonic() > end:
                raise AssertionError(f"{what} stands still at {before}")
            time.sleep(0.01)

    return check


checks["shared anonymous memory"] = advances("counter", lambda: int.from_bytes(shared[:8], "little"))
checks["its content"] = lambda: equal(hashlib.sha256(shared[8:]).hexdigest(), shared_digest, "digest")
checks["named shared memory"] = advances("counter", lambda: int.from_bytes(bytes(named.buf[:8]), "little"))
checks["named content"] = lambda: equal(hashlib.sha256(named.buf[16:]).hexdigest(), named_digest, "digest")
checks["value under a lock"] = advances("value", lambda: value.value)
checks["copied memory of the parent"] = lambda: equal(hashlib.sha256(copied).hexdigest(), copied_digest, "digest")
checks["copied memory of the child"] = lambda: equal(named.buf[8], 0, "mismatch seen by the child")


def file_in_shm():
    with open("/dev/shm/snapshot-test", "rb") as file:
        equal(hashlib.sha256(file.read()[16:]).hexdigest(), named_digest, "digest of the file in /dev/shm")


checks["file in /dev/shm"] = file_in_shm


def semaphore_value():
    equal([semaphore.acquire(block=False) for _ in range(3)], [True, True, False], "what can be taken")
    semaphore.release()
    semaphore.release()


checks["semaphore"] = semaphore_value

libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
guarded = libc.mmap(None, 1 << 20, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)  # PROT_NONE, MAP_NORESERVE


def guard():
    with open("/proc/self/maps") as file:
        for line in file:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if begin <= guarded < end:
                return equal(line.split()[1], "---p", "protection")
    raise AssertionError("mapping is gone")


checks["memory without access"] = guard

if "sysv" in sys.argv[1:]:
    IPC_CREAT = 0o1000
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(0x5A5A, 4096, IPC_CREAT | 0o600)
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address, b"System V", 8)
    semaphores = libc.semget(0x5A5B, 2, IPC_CREAT | 0o600)
    libc.semctl(semaphores, 1, 16, 5)  # SETVAL
    queue = libc.msgget(0x5A5C, IPC_CREAT | 0o600)

    def message(text):
        return ctypes.create_string_buffer((1).to_bytes(8, "little") + text, 8 + 32)

    libc.msgsnd(queue, message(b"message in the queue"), 20, 0)

    def system_v():
        equal(ctypes.string_at(address, 8), b"System V", "attached memory")
        equal(libc.shmget(0x5A5A, 4096, 0), segment, "identifier of the memory")
        equal(libc.semctl(libc.semget(0x5A5B, 2, 0), 1, 12), 5, "semaphore")  # GETVAL
        received = message(b"")
        length = libc.msgrcv(libc.msgget(0x5A5C, 0), received, 32, 0, 0o4000)  # IPC_NOWAIT
        equal(received.raw[8 : 8 + max(length, 0)], b"message in the queue", "message")
        libc.msgsnd(queue, received, length, 0)

    checks["System V objects"] = system_v

run("memoryobjects", checks)
