"""What every worker of these tests does besides its own work: it says that it is ready, ticks, and verifies itself on SIGUSR1."""

import json
import os
import signal
import time

CONTROL = os.environ.get("DYN_SNAPSHOT_CONTROL_DIR", "")


def say(**fields):
    """One line of standard output; one write, so that lines stay whole."""
    os.write(1, (json.dumps(fields) + "\n").encode())


def place(name):
    """A file of the control directory appears under its name all at once."""
    with open(f"{CONTROL}/.{name}", "w") as file:
        file.write("ready")
    os.rename(f"{CONTROL}/.{name}", f"{CONTROL}/{name}")


def announce(**fields):
    """Says that the worker is set up, and that it may be checkpointed."""
    say(ready=True, host=os.uname().nodename, **fields)
    if CONTROL:
        place("ready-for-snapshot")


def on_check(verdict):
    """On SIGUSR1: prints what `verdict` finds. Its `check` is "ok", or says what is wrong."""

    def handle(*_):
        try:
            found = verdict()
        except Exception as error:  # The test must learn of it, and the worker goes on.
            found = {"check": repr(error)}
        say(host=os.uname().nodename, **found)

    signal.signal(signal.SIGUSR1, handle)


def tick_forever(step, seconds):
    """Calls `step` again and again; each line has the number and the wall clock, which shows how long the worker stood still."""
    count = 0
    while True:
        count += 1
        found = step() or {}
        say(tick=count, at=time.time(), **found)
        if CONTROL and os.path.exists(f"{CONTROL}/restore-complete"):
            os.unlink(f"{CONTROL}/restore-complete")
            say(resumed=True, at=time.time(), host=os.uname().nodename)
        time.sleep(seconds)
