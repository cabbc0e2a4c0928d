"""surroundings.py: says what it sees of the pod that it is in, anew with each check."""

import os
import socket

from verdict import run


def read(path):
    with open(path) as file:
        return file.read()


def addresses():
    """Addresses of this network namespace, as a routing decision shows them; nothing is sent."""
    found = set()
    for peer in ("192.0.2.1", "127.0.0.1"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 9))
            found.add(probe.getsockname()[0])
    return sorted(found)


def surroundings():
    return {
        "hosts": read("/etc/hosts"),
        "token": read("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        "addresses": addresses(),
        "mountPoints": sorted(line.split()[4] for line in read("/proc/self/mountinfo").splitlines()),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "environment": os.environ.get("POD_NAME"),
    }


run("surroundings", {}, details=surroundings)
