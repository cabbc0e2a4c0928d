"""What the test workloads share.

A workload sets itself up, prints {"ready": NAME, ...} and goes on. On SIGUSR1 it verifies everything it holds and prints
{"check": "ok", ...}, or {"check": "failed", "problems": [...]}. A check can be asked for any number of times. On SIGTERM it prints
{"terminated": true} and exits 0.
"""

import json
import os
import signal
import sys
import time


def say(**fields):
    """Prints one JSON line with one write, so that lines of several processes do not mix."""
    os.write(1, (json.dumps(fields) + "\n").encode())


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what} is {actual!r}, expected {expected!r}")


def writable_directory():
    """A directory for the workload's files, also where the root file system is read-only or the user is not root."""
    for parent in ("/data", "/tmp/data", "/dev/shm/data"):
        try:
            os.makedirs(parent, exist_ok=True)
            with open(f"{parent}/.probe", "w"):
                os.unlink(f"{parent}/.probe")
            return parent
        except OSError:
            continue
    raise SystemExit("no directory can be written to")


def terminate(*_):
    say(terminated=True)
    os._exit(0)


def run(name, checks, beat=None, every=0.05, details=None, **about):
    """Serves as described above. `checks` maps names to functions that raise; `beat` is called again and again with a count."""
    state = {"beats": 0}

    def verify(*_):
        problems = []
        for what, check in checks.items():
            try:
                check()
            except Exception as error:
                problems.append(f"{what}: {type(error).__name__}: {error}")
        say(
            check="failed" if problems else "ok",
            problems=problems,
            checks=list(checks),
            beats=state["beats"],
            host=os.uname().nodename,
            pid=os.getpid(),
            uid=os.getuid(),
            **(details() if details else {}),
        )

    signal.signal(signal.SIGUSR1, verify)
    signal.signal(signal.SIGTERM, terminate)
    say(ready=name, pid=os.getpid(), **about)
    while True:
        state["beats"] += 1
        if beat:
            beat(state["beats"])
        if state["beats"] % 20 == 0:
            say(beat=state["beats"])
            print(f"error output {state['beats']}", file=sys.stderr, flush=True)
        time.sleep(every)
