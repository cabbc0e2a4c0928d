"""exits.py CODE | segfault: on SIGUSR2 ends with this code, or by a fault. On SIGTERM cleans up for a moment and exits 0.

A process that is number 1 of its PID namespace cannot end itself by a signal; a fault ends it all the same.
"""

import ctypes
import os
import signal
import sys
import time

from verdict import run, say

how = sys.argv[1] if len(sys.argv) > 1 else "42"


def end(*_):
    say(ending=how)
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(int(how))


def terminate(*_):
    say(terminating=True)
    time.sleep(0.3)
    with open("/dev/termination-log", "w") as file:
        file.write("cleaned up")
    say(terminated=True)
    os._exit(0)


signal.signal(signal.SIGUSR2, end)
# The handler must stand before the workload says that it is ready, and run() installs its own.
handler = signal.signal


def keep(number, action):
    return handler(number, terminate if number == signal.SIGTERM else action)


signal.signal = keep
run("exits", {"how": lambda: None}, details=lambda: {"how": how})
