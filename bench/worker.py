"""MEBIBYTES: the worker that demo and bench checkpoint. Run with `python3 -u -c SOURCE MEBIBYTES`, so that any image with Python will do.

It fills private memory with random bytes, prints their SHA-256, and counts: one line for each number. After twenty numbers it says
that it is ready for a snapshot. On SIGUSR1 it hashes its memory anew and prints what it finds.
"""

import hashlib
import json
import mmap
import os
import signal
import sys
import time

MEBIBYTE = 1 << 20
size = int(sys.argv[1])
control = os.environ.get("DYN_SNAPSHOT_CONTROL_DIR", "")


def say(**fields):
    os.write(1, (json.dumps(fields) + "\n").encode())


memory = mmap.mmap(-1, size * MEBIBYTE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for index in range(size):
    memory[index * MEBIBYTE : (index + 1) * MEBIBYTE] = os.urandom(MEBIBYTE)


def report(*_):
    say(sha256=hashlib.sha256(memory).hexdigest(), counted=counter, host=os.uname().nodename)


counter = 0
signal.signal(signal.SIGUSR1, report)
say(ready="worker", sha256=hashlib.sha256(memory).hexdigest(), host=os.uname().nodename)
while True:
    counter += 1
    say(counter=counter)
    if counter == 20 and control:
        with open(f"{control}/.ready", "w") as file:
            file.write("ready")
        os.rename(f"{control}/.ready", f"{control}/ready-for-snapshot")
    time.sleep(0.05)
