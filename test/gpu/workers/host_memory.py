"""host_memory.py MEBIBYTES: random memory of the process, no GPU. Shows that the rest works on a machine."""

import hashlib
import os
import sys

import contract

memory = bytearray(os.urandom(int(sys.argv[1]) << 20))


def digest():
    return hashlib.sha256(memory).hexdigest()


before = digest()
contract.on_check(lambda: {"check": "ok" if digest() == before else "memory differs", "sha256": digest()})
contract.announce(sha256=before)
contract.tick_forever(lambda: None, 0.05)
