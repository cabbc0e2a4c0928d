"""sockets.py [PEER:PORT]: sockets of every kind a worker has; with PEER, a TCP connection to the outside as well."""

import os
import socket
import sys
import threading
import time

from verdict import equal, run, writable_directory

directory = writable_directory()
pod_address = os.environ.get("POD_IP", "")


class PingPong:
    """A TCP connection within the workload, over which numbers go back and forth all the time."""

    def __init__(self, address, family=socket.AF_INET):
        self.rounds = 0
        self.problem = None
        self.listener = socket.socket(family)
        self.listener.bind((address, 0))
        self.listener.listen(8)
        self.client = socket.create_connection(self.listener.getsockname()[:2])
        self.server, _ = self.listener.accept()
        threading.Thread(target=self.echo, daemon=True).start()
        threading.Thread(target=self.play, daemon=True).start()

    def echo(self):
        while data := self.server.recv(64):
            self.server.sendall(data)

    def play(self):
        try:
            while True:
                ball = b"%016d" % (self.rounds + 1)
                self.client.sendall(ball)
                answer = b""
                while len(answer) < len(ball):
                    part = self.client.recv(len(ball) - len(answer))
                    if not part:
                        raise ConnectionError("connection was closed")
                    answer += part
                equal(answer, ball, "answer")
                self.rounds += 1
                time.sleep(0.01)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"

    def check(self):
        before = self.rounds
        end = time.monotonic() + 3
        while self.rounds < before + 3 and time.monotonic() < end:
            time.sleep(0.02)
        equal(self.problem, None, "problem")
        if self.rounds < before + 3:
            raise AssertionError(f"stands still after {before} rounds")
        # The listener still takes connections, at the address it has now.
        host, port = self.listener.getsockname()[:2]
        with socket.create_connection((host, port), timeout=3) as again:
            taken, _ = self.listener.accept()
            again.sendall(b"new")
            equal(taken.recv(3), b"new", "data of a new connection")
            taken.close()


def peeked(receiver, expected):
    """Data that was in flight is still there; it is only looked at, so that the check can be repeated."""
    return lambda: equal(receiver.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT), expected, "data in flight")


checks = {}
loopback = PingPong("127.0.0.1")
checks["loopback pair"] = loopback.check
own = PingPong(pod_address) if pod_address else None
if own:
    checks["own address pair"] = own.check

any4 = socket.socket()
any4.bind(("0.0.0.0", 0))
any4.listen(4)
any6 = socket.socket(socket.AF_INET6)
any6.bind(("::", 0))
any6.listen(4)


def answers(listener, host, family):
    def check():
        with socket.socket(family) as client:
            client.settimeout(3)
            client.connect((host, listener.getsockname()[1]))
            taken, _ = listener.accept()
            client.sendall(b"x")
            equal(taken.recv(1), b"x", "data")
            taken.close()

    return check


checks["listener on every IPv4 address"] = answers(any4, "127.0.0.1", socket.AF_INET)
checks["listener on every IPv6 address"] = answers(any6, "::1", socket.AF_INET6)

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))


def udp_answers():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        udp.settimeout(3)
        client.sendto(b"datagram", udp.getsockname())
        equal(udp.recv(64), b"datagram", "datagram")


checks["UDP"] = udp_answers

left, right = socket.socketpair()
left.sendall(b"in flight")
checks["stream with data in flight"] = peeked(right, b"in flight")

path_listener = socket.socket(socket.AF_UNIX)
path_listener.bind(f"{directory}/listener.sock")
path_listener.listen(4)
path_client = socket.socket(socket.AF_UNIX)
path_client.connect(f"{directory}/listener.sock")
path_server, _ = path_listener.accept()
path_client.sendall(b"over a path")
checks["accepted connection of a path"] = peeked(path_server, b"over a path")


def path_answers():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{directory}/listener.sock")
        path_listener.accept()[0].close()


checks["listener at a path"] = path_answers

packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
packets.bind("\0snapshot-test-packets")
packets.listen(4)
packet_client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
packet_client.connect("\0snapshot-test-packets")
packet_server, _ = packets.accept()
packet_client.send(b"first")
packet_client.send(b"second")
checks["abstract packets"] = peeked(packet_server, b"first")

datagram_left, datagram_right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
datagram_left.send(b"datagram in flight")
checks["datagram in flight"] = peeked(datagram_right, b"datagram in flight")

half_left, half_right = socket.socketpair()
half_left.shutdown(socket.SHUT_WR)
checks["half closed pair"] = lambda: equal(half_right.recv(1), b"", "end of data")

options = socket.socket()
options.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
options.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
options.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
options.bind(("127.0.0.1", 0))
options.listen(1)
checks["options"] = lambda: equal(
    (
        options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        options.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
    ),
    (1, 1),
    "keep-alive and no-delay",
)

outside = None
outside_state = "none"
if len(sys.argv) > 1:
    host, _, port = sys.argv[1].rpartition(":")
    outside = socket.create_connection((host, int(port)), timeout=5)


def outside_now():
    """Asks the peer outside: `open` where it answers, else how the connection ended. Neither is a failure by itself."""
    global outside_state
    if outside:
        try:
            outside.sendall(b"x")
            outside_state = "open" if outside.recv(1) == b"x" else "closed: end of data"
        except OSError as error:
            outside_state = f"closed: {type(error).__name__}"
    return outside_state


run(
    "sockets",
    checks,
    details=lambda: {
        "outside": outside_now(),
        "ownAddress": own.client.getsockname()[0] if own else "",
        "ownPeer": own.client.getpeername()[0] if own else "",
        "rounds": loopback.rounds,
    },
    port=any4.getsockname()[1],
)
