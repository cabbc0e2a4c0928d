"""cuda_births.py SECONDS: a CUDA process that goes on starting others for so long after it said that it is ready. It ticks with their number.

With `child` as its argument it is one of those.
"""

import hashlib
import subprocess
import sys
import time

import contract
import driver

MEMORY = 64 << 20
PAUSE = 0.25

device = driver.Device()
memory = driver.Buffer(MEMORY)
memory.fill_random()


def digest():
    seen = hashlib.sha256()
    memory.feed(seen)
    return seen.hexdigest()


before = digest()
if sys.argv[1] == "child":
    print("up", flush=True)
    while True:
        if digest() != before:
            sys.exit(3)
        time.sleep(0.2)

children = []
until = time.monotonic() + float(sys.argv[1])


def step():
    if time.monotonic() < until:
        child = subprocess.Popen([sys.executable, "-u", __file__, "child"], stdout=subprocess.PIPE)
        children.append(child)
    return {"born": len(children), "lost": sum(child.poll() is not None for child in children)}


def verdict():
    lost = [child.returncode for child in children if child.poll() is not None]
    if lost:
        return {"check": f"children ended: {lost}"}
    return {"check": "ok" if digest() == before else "device memory differs", "born": len(children)}


contract.on_check(verdict)
contract.announce()
contract.tick_forever(step, PAUSE)
