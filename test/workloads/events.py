"""events.py [without-inotify]: descriptors and timers that tell a process of something."""

import ctypes
import os
import select
import signal
import struct
import sys
import threading
import time

from verdict import equal, run, writable_directory

libc = ctypes.CDLL(None, use_errno=True)
directory = writable_directory()
checks = {}

# Before there are threads: a signal goes to any thread that does not block it.
PENDING = signal.SIGRTMIN + 3
CAUGHT = signal.SIGRTMIN + 4
signal.pthread_sigmask(signal.SIG_BLOCK, [PENDING, CAUGHT])

event = os.eventfd(3, os.EFD_NONBLOCK)


def event_value():
    count = os.eventfd_read(event)
    os.eventfd_write(event, count)
    equal(count, 3, "count")


checks["eventfd"] = event_value

# So short that it expires while the process is frozen: it must go on all the same.
timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK)
os.timerfd_settime(timer, initial=0.02, interval=0.02)
epoll = select.epoll()
epoll.register(timer, select.EPOLLIN)
pipe_read, pipe_write = os.pipe()
epoll.register(pipe_read, select.EPOLLIN | select.EPOLLET)
expirations = 0


def wait_for_timer():
    global expirations
    while True:
        for descriptor, _ in epoll.poll(1):
            if descriptor == timer:
                expirations += int.from_bytes(os.read(timer, 8), "little")


threading.Thread(target=wait_for_timer, daemon=True).start()


def grows(read, what):
    def check():
        before = read()
        end = time.monotonic() + 3
        while read() <= before:
            if time.monotonic() > end:
                raise AssertionError(f"{what} stand still at {before}")
            time.sleep(0.01)

    return check


checks["timerfd and epoll"] = grows(lambda: expirations, "expirations")
# A timer in the far future keeps what is left of its time, within what a checkpoint may take.
far = os.timerfd_create(time.CLOCK_MONOTONIC)
os.timerfd_settime(far, initial=86_400)


def time_left():
    left = os.timerfd_gettime(far)[0]
    if not 80_000 < left <= 86_400:
        raise AssertionError(f"{left} seconds are left")


checks["timer in the future"] = time_left

alarms = 0


def on_alarm(*_):
    global alarms
    alarms += 1


signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
beats = 0


def beat(count):
    global beats
    beats = count


alarms_seen = 0
alarms_seen_at = time.monotonic()


def alarms_grow():
    # Within a signal handler the interpreter runs no other; alarms of the time between two checks are what counts, where it is
    # long enough for one.
    global alarms_seen, alarms_seen_at
    now = time.monotonic()
    if now < alarms_seen_at + 0.25:
        return
    if alarms <= alarms_seen and beats > 10:
        raise AssertionError(f"alarms stand still at {alarms}")
    alarms_seen, alarms_seen_at = alarms, now


checks["interval timer"] = alarms_grow

os.kill(os.getpid(), PENDING)
checks["pending signal"] = lambda: equal(PENDING in signal.sigpending(), True, "pending")

mask = struct.pack("Q", 1 << (CAUGHT - 1))
signal_fd = libc.signalfd(-1, ctypes.create_string_buffer(mask.ljust(128, b"\0")), 0o4000)  # SFD_NONBLOCK
equal(signal_fd >= 0, True, "signalfd")


def signal_arrives():
    os.kill(os.getpid(), CAUGHT)
    equal(struct.unpack_from("I", os.read(signal_fd, 128))[0], CAUGHT, "signal")


checks["signalfd"] = signal_arrives

if "without-inotify" not in sys.argv[1:]:
    os.makedirs(f"{directory}/watched", exist_ok=True)
    watch = libc.inotify_init1(0o4000)  # IN_NONBLOCK
    equal(libc.inotify_add_watch(watch, f"{directory}/watched".encode(), 0x100) >= 0, True, "watch")  # IN_CREATE

    def watch_sees():
        name = f"file-{time.monotonic_ns()}"
        with open(f"{directory}/watched/{name}", "w"):
            pass
        seen = os.read(watch, 4096)
        if name.encode() not in seen:
            raise AssertionError(f"watch saw {seen!r}, not {name}")

    checks["inotify"] = watch_sees

condition = threading.Condition()
turns = 0


def take_turns(own):
    global turns
    with condition:
        while True:
            condition.wait_for(lambda: turns % 2 == own)
            turns += 1
            condition.notify_all()
            condition.wait(0.01)


for own in (0, 1):
    threading.Thread(target=take_turns, args=(own,), daemon=True).start()
checks["threads that wait for each other"] = grows(lambda: turns, "turns")

clock = [time.monotonic()]


def clock_goes_on():
    now = time.monotonic()
    if now < clock[0] or now > clock[0] + 3600:
        raise AssertionError(f"monotonic clock went from {clock[0]} to {now}")
    clock[0] = now


checks["monotonic clock"] = clock_goes_on

run("events", checks, beat)
