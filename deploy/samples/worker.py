"""A stand-in for an inference server that follows the snapshot contract. Python's standard library is all that it needs.

It loads a "model", and serves GET /health and GET /generate on port 8000. Where DYN_SNAPSHOT_CONTROL_DIR is set, it waits between the
two until it is told that its checkpoint is complete, and exits, or that it was restored, and serves.
"""

import hashlib
import http.server
import json
import os
import random
import signal
import ssl
import sys
import time

CONTROL = os.environ.get("DYN_SNAPSHOT_CONTROL_DIR", "")
MEBIBYTES = int(os.environ.get("MODEL_MIB", "64"))
WARM_UP = int(os.environ.get("WARM_UP_TOKENS", "1000"))


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Engine:
    """The expensive part: what a cold start has to build, and a restored worker already has."""

    def __init__(self):
        self.model = b"".join(random.randbytes(1 << 20) for _ in range(MEBIBYTES))
        self.digest = hashlib.sha256(self.model).hexdigest()
        self.tokens = 0
        for _ in range(WARM_UP):
            self.generate()

    def generate(self):
        self.tokens += 1
        return {"token": self.tokens, "sample": random.random()}

    def quiesce(self):
        """Nothing may be in flight from here on. With a GPU: finish the work of all ranks, drop the KV cache, shut down compile workers."""

    def is_intact(self):
        return hashlib.sha256(self.model).hexdigest() == self.digest


def exists(name):
    return os.path.exists(os.path.join(CONTROL, name))


def write(name, text):
    """Whole or not at all: whoever sees the file may read it at once."""
    temporary = os.path.join(CONTROL, f".{name}.new")
    with open(temporary, "w") as file:
        file.write(text)
    os.replace(temporary, os.path.join(CONTROL, name))


def clear():
    """So that the next container in this directory does not take these files for its own."""
    for name in ("ready-for-snapshot", "snapshot-complete", "restore-complete"):
        if exists(name):
            os.unlink(os.path.join(CONTROL, name))


def wait_for_snapshot():
    """Returns in the restored worker only. The one that was checkpointed ends here."""
    clocks = time.time(), time.monotonic()
    write("ready-for-snapshot", "ready\n")
    say("quiet")
    while True:
        if exists("snapshot-complete"):
            clear()
            say("released")
            sys.exit(0)
        if exists("restore-complete"):
            # Hours may have passed, or months. Only the wall clock knows: leases, tokens and timeouts that it was asked for are over.
            wall, monotonic = time.time() - clocks[0], time.monotonic() - clocks[1]
            say("restored", wall=round(wall, 3), monotonic=round(monotonic, 3))
            return
        time.sleep(0.1)


def take_over_identity():
    """The environment in memory is that of the pod that was checkpointed. The file has that of this pod."""
    path = os.path.join(CONTROL, "restore-context.json")
    if not os.path.exists(path):
        return
    with open(path) as file:
        for name, value in json.load(file)["env"].items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def reseed():
    """Every worker restored from one artifact has the same generators in memory, in the same state."""
    random.seed()
    ssl.RAND_add(os.urandom(48), 48)
    # numpy.random.seed(), torch.manual_seed(), torch.cuda.manual_seed_all(): with numbers from os.urandom()


class Handler(http.server.BaseHTTPRequestHandler):
    engine = None

    def do_GET(self):
        answers = {"/health": lambda: {"intact": self.engine.is_intact()}, "/generate": self.engine.generate}
        answer = answers.get(self.path)
        body = json.dumps({"pod": os.environ.get("POD_NAME"), **(answer() if answer else {})}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    # The first process of a container gets no signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    started = time.monotonic()
    engine = Engine()
    say("loaded", seconds=round(time.monotonic() - started, 2), token=engine.tokens)

    if CONTROL:
        engine.quiesce()
        wait_for_snapshot()
        take_over_identity()
        reseed()
        clear()

    # Connections to others, registration and the port come last: a restored worker makes them as the pod that it is now.
    Handler.engine = engine
    server = http.server.ThreadingHTTPServer(("", 8000), Handler)
    say("serving", pod=os.environ.get("POD_NAME"), host=os.uname().nodename, token=engine.tokens)
    server.serve_forever()


main()
