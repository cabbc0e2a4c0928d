"""The few calls of the CUDA driver API that the workers make, through libcuda alone: a worker without PyTorch starts in a moment."""

import ctypes
import os

cuda = ctypes.CDLL("libcuda.so.1")


def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code != 0:
        text = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(text))
        raise RuntimeError(f"{name}: {(text.value or b'').decode()} ({code})")


class Device:
    """One GPU, with its primary context made current."""

    def __init__(self, ordinal=0):
        call("cuInit", 0)
        handle, self.context = ctypes.c_int(), ctypes.c_void_p()
        call("cuDeviceGet", ctypes.byref(handle), ordinal)
        call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), handle)
        self.handle = handle
        self.use()

    def use(self):
        call("cuCtxSetCurrent", self.context)

    def uuid(self):
        raw = (ctypes.c_ubyte * 16)()
        call("cuDeviceGetUuid_v2", raw, self.handle)
        text = bytes(raw).hex()
        return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def free_bytes(self):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value


class Buffer:
    """Device memory."""

    def __init__(self, size):
        self.size = size
        self.address = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(size))

    def write(self, offset, data):
        at = ctypes.c_uint64(self.address.value + offset)
        call("cuMemcpyHtoD_v2", at, data, ctypes.c_size_t(len(data)))

    def read(self, offset, size):
        into = ctypes.create_string_buffer(size)
        at = ctypes.c_uint64(self.address.value + offset)
        call("cuMemcpyDtoH_v2", into, at, ctypes.c_size_t(size))
        return into.raw

    def fill_random(self, step=64 << 20):
        for offset in range(0, self.size, step):
            self.write(offset, os.urandom(min(step, self.size - offset)))

    def feed(self, digest, step=64 << 20):
        """Every byte, in order, into a hash."""
        for offset in range(0, self.size, step):
            digest.update(self.read(offset, min(step, self.size - offset)))
