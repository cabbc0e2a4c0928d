"""cuda_fill.py LEAVE_MIB: takes the memory of the GPU but for so much, and holds it."""

import sys

import contract
import driver

device = driver.Device()
held = []
for step in (1 << 30, 64 << 20, 8 << 20):
    while device.free_bytes() > (int(sys.argv[1]) << 20) + step:
        held.append(driver.Buffer(step))
contract.say(ready=True, free=device.free_bytes())
contract.tick_forever(lambda: None, 1)
