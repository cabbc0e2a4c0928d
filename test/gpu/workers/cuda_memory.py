"""cuda_memory.py MEBIBYTES [ORDINAL,…]: device memory of random content on each of the GPUs, every byte of it hashed before and after.

A page besides holds a counter that is read from the device, raised and written back at each tick.
"""

import hashlib
import sys

import contract
import driver

size = int(sys.argv[1]) << 20
ordinals = [int(one) for one in (sys.argv[2] if len(sys.argv) > 2 else "0").split(",")]
interval = float(sys.argv[3]) if len(sys.argv) > 3 else 0.05

held = []
for ordinal in ordinals:
    device = driver.Device(ordinal)
    memory, counter = driver.Buffer(size), driver.Buffer(8)
    memory.fill_random()
    counter.write(0, (0).to_bytes(8, "little"))
    held.append((device, memory, counter))


def digest():
    seen = hashlib.sha256()
    for device, memory, _ in held:
        device.use()
        memory.feed(seen)
    return seen.hexdigest()


def step():
    counts = []
    for device, _, counter in held:
        device.use()
        counts.append(int.from_bytes(counter.read(0, 8), "little") + 1)
        counter.write(0, counts[-1].to_bytes(8, "little"))
    return {"counts": counts}


def verdict():
    now = digest()
    return {"check": "ok" if now == before else "device memory differs", "sha256": now}


before = digest()
contract.on_check(verdict)
contract.announce(sha256=before, uuids=[device.uuid() for device, _, _ in held], bytes=size * len(held))
contract.tick_forever(step, interval)
