"""worker.py [MEBIBYTES [LOAD_SECONDS]]: an inference worker that follows the snapshot contract.

It loads, quiesces, writes `ready-for-snapshot` and polls: `snapshot-complete` lets it exit 0, `restore-complete` makes it take over
the new pod's identity, remove the sentinels and serve; from then on there is `/tmp/serving`, for probes. Started as a placeholder
(DYN_SNAPSHOT_RESTORE_STANDBY), it writes `restore-context.json` and sleeps. Without a control directory it serves at once.
"""

import hashlib
import json
import os
import sys
import threading
import time

from verdict import equal, run, say

CONTEXT_NAMES = ["POD_NAME", "POD_NAMESPACE", "POD_UID", "CONTAINER_NAME", "ENGINE_ID"]
SENTINELS = ["ready-for-snapshot", "snapshot-complete", "restore-complete"]

size = int(sys.argv[1]) if len(sys.argv) > 1 else 16
load_seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.2
control = os.environ.get("DYN_SNAPSHOT_CONTROL_DIR", "")


def place(name, content):
    with open(f"{control}/.{name}.new", "w") as file:
        file.write(content)
    os.rename(f"{control}/.{name}.new", f"{control}/{name}")


def exists(name):
    return os.path.lexists(f"{control}/{name}")


if control and os.environ.get("DYN_SNAPSHOT_RESTORE_STANDBY") == "1":
    place("restore-context.json", json.dumps({"env": {name: os.environ.get(name) for name in CONTEXT_NAMES}}))
    os.execvp("sleep", ["sleep", "infinity"])

started = time.monotonic()
model = bytearray()
for _ in range(size):
    model += os.urandom(1 << 20)
digest = hashlib.sha256(model).hexdigest()
time.sleep(load_seconds)
loaded_in = time.monotonic() - started
state = {"phase": "serving", "identity": os.environ.get("POD_NAME"), "context": None}


def follow_contract():
    while True:
        if exists("snapshot-complete"):
            say(released=True)
            for name in SENTINELS:
                if exists(name):
                    os.unlink(f"{control}/{name}")
            os._exit(0)
        if exists("restore-complete"):
            with open(f"{control}/restore-complete") as file:
                sentinel = file.read()
            if exists("restore-context.json"):
                with open(f"{control}/restore-context.json") as file:
                    state["context"] = json.load(file)["env"]
                state["identity"] = state["context"].get("POD_NAME")
            for name in SENTINELS:
                if exists(name):
                    os.unlink(f"{control}/{name}")
            state["phase"] = "serving"
            with open("/tmp/serving", "w"):
                pass
            say(resumed=True, sentinel=sentinel, identity=state["identity"], host=os.uname().nodename)
            return
        time.sleep(0.1)


if control:
    place("ready-for-snapshot", "ready")
    state["phase"] = "quiesced"
    threading.Thread(target=follow_contract, daemon=True).start()

run(
    "worker",
    {"model": lambda: equal(hashlib.sha256(model).hexdigest(), digest, "digest")},
    details=lambda: {"phase": state["phase"], "identity": state["identity"], "digest": digest[:16]},
    digest=digest[:16],
    loadedIn=round(loaded_in, 3),
)
