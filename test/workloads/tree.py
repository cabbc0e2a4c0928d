"""A tree of processes: threads, a session and process groups of their own, a zombie, a stopped process, an orphan."""

import hashlib
import json
import os
import signal
import socket
import threading
import time

from verdict import equal, run

children = {}
shared_random = os.urandom(8 << 20)
shared_digest = hashlib.sha256(shared_random).hexdigest()


def stat_of(pid):
    """State, parent, process group and session of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[2]), int(fields[3])


def serve_child(channel, threads):
    """Answers each question with what the child sees of itself."""
    own = os.urandom(1 << 20)
    own_digest = hashlib.sha256(own).hexdigest()
    counts = [0] * threads

    def count(index):
        while True:
            counts[index] += 1
            time.sleep(0.005)

    for index in range(threads):
        threading.Thread(target=count, args=(index,), daemon=True).start()
    while channel.recv(1):
        answer = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgid(0),
            "session": os.getsid(0),
            "threads": len(os.listdir("/proc/self/task")),
            "counts": counts,
            "own": hashlib.sha256(own).hexdigest() == own_digest,
            "inherited": hashlib.sha256(shared_random).hexdigest() == shared_digest,
        }
        channel.send(json.dumps(answer).encode())
    os._exit(0)


def start_child(name, threads=0, prepare=None, orphan=False):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        near.close()
        if orphan and os.fork() != 0:
            os._exit(0)
        for other, _ in children.values():
            other.close()
        if prepare:
            prepare()
        serve_child(far, threads)
    far.close()
    if orphan:
        os.waitpid(pid, 0)
        while ask(near)["parent"] == pid:
            time.sleep(0.01)
    children[name] = (near, ask(near))


def ask(channel):
    channel.send(b"?")
    return json.loads(channel.recv(65536))


def child(name):
    def check():
        channel, first = children[name]
        before = ask(channel)
        time.sleep(0.05)
        after = ask(channel)
        for key in ("pid", "parent", "group", "session", "threads"):
            equal(after[key], first[key], key)
        equal((after["own"], after["inherited"]), (True, True), "memory")
        for index, (old, new) in enumerate(zip(before["counts"], after["counts"])):
            if new <= old:
                raise AssertionError(f"thread {index} stands still at {old}")

    return check


start_child("plain")
start_child("threads", threads=4)
start_child("session", prepare=os.setsid)
start_child("group", prepare=os.setpgrp)
start_child("orphan", orphan=True)

zombie = os.fork()
if zombie == 0:
    os._exit(7)
stopped = os.fork()
if stopped == 0:
    while True:
        time.sleep(60)
os.kill(stopped, signal.SIGSTOP)
while stat_of(zombie)[0] != "Z" or stat_of(stopped)[0] != "T":
    time.sleep(0.01)

run(
    "tree",
    {
        **{name: child(name) for name in children},
        "zombie": lambda: equal(stat_of(zombie)[:2], ("Z", os.getpid()), "state and parent"),
        "stopped": lambda: equal(stat_of(stopped)[:2], ("T", os.getpid()), "state and parent"),
    },
    details=lambda: {"processes": len(children) + 3},
)
