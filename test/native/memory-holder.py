"""A process with memory at known addresses: `memory-holder.py FILE ADDRESS:LENGTH…`. Prints ready and stops; once continued, writes all of that memory to FILE."""
import ctypes, os, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
areas = [tuple(int(number) for number in area.split(':')) for area in sys.argv[2:]]
for address, length in areas:
    # Readable, writable, private, anonymous, exactly there.
    assert libc.mmap(address, length, 3, 0x2 | 0x20 | 0x100000, -1, 0) == address
print('ready', flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
with open(sys.argv[1] + '.part', 'wb') as file:
    for address, length in areas:
        file.write((ctypes.c_char * length).from_address(address))
os.rename(sys.argv[1] + '.part', sys.argv[1])
