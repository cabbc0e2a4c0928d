"""Files in every state: open, deleted, locked, changed against the image, with all their metadata. For root, with a writable root."""

import fcntl
import mmap
import os
import shutil
import stat

from verdict import equal, run

IMAGE = "/srv/image"
os.makedirs("/data", exist_ok=True)


def write(path, content, mode="w"):
    with open(path, mode) as file:
        file.write(content)


def read(path, mode="r"):
    with open(path, mode) as file:
        return file.read()


checks = {}

# Deleted while open, written through to a position in the middle.
ghost = open("/data/ghost", "w+b")
ghost.write(b"deleted but open" * 1000)
ghost.flush()
ghost.seek(5)
os.unlink("/data/ghost")


def ghost_content():
    equal(ghost.tell(), 5, "position")
    equal(os.pread(ghost.fileno(), 100_000, 0), b"deleted but open" * 1000, "content")
    equal(os.fstat(ghost.fileno()).st_nlink, 0, "links")


checks["deleted file"] = ghost_content

# One of two names deleted while open.
linked = open("/data/linked-kept", "w+")
linked.write("two names\n")
linked.flush()
os.link("/data/linked-kept", "/data/linked-deleted")
opened_deleted = open("/data/linked-deleted")
os.unlink("/data/linked-deleted")
checks["deleted name of a kept file"] = lambda: equal(
    (os.pread(opened_deleted.fileno(), 99, 0), os.path.exists("/data/linked-deleted")), (b"two names\n", False), "content"
)

log = open("/data/held.log", "a", buffering=1)
written = 0


def beat(count):
    global written
    log.write(f"{count}\n")
    written = count


def held_log():
    lines = read("/data/held.log").split()
    equal(lines, [str(number + 1) for number in range(len(lines))], "lines")
    if abs(len(lines) - written) > 1:
        raise AssertionError(f"{len(lines)} lines, {written} written")
    equal(bool(fcntl.fcntl(log.fileno(), fcntl.F_GETFL) & os.O_APPEND), True, "append flag")


checks["held log"] = held_log

whole_lock = open("/data/whole-lock", "w")
fcntl.flock(whole_lock, fcntl.LOCK_EX)
range_lock = open("/data/range-lock", "w")
fcntl.lockf(range_lock, fcntl.LOCK_EX, 10, 5)


def refused(path, lock):
    """Another process cannot take the lock."""

    def check():
        pid = os.fork()
        if pid == 0:
            try:
                with open(path, "r+") as file:
                    lock(file)
                os._exit(1)
            except BlockingIOError:
                os._exit(0)
        equal(os.waitpid(pid, 0)[1], 0, "exit status of the one that tries")

    return check


checks["flock"] = refused("/data/whole-lock", lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
checks["fcntl lock"] = refused("/data/range-lock", lambda file: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7))

os.mkfifo("/data/fifo", 0o640)
fifo = os.open("/data/fifo", os.O_RDWR | os.O_NONBLOCK)
os.write(fifo, b"in the fifo")
pipe_read, pipe_write = os.pipe()
os.write(pipe_write, b"in the pipe")


def taken_and_returned(reader, writer, expected):
    def check():
        data = os.read(reader, 99)
        os.write(writer, data)
        equal(data, expected, "data")

    return check


checks["fifo"] = taken_and_returned(fifo, fifo, b"in the fifo")
checks["pipe"] = taken_and_returned(pipe_read, pipe_write, b"in the pipe")

# Against the image.
os.unlink(f"{IMAGE}/removed.txt")
write(f"{IMAGE}/appended.txt", "by the workload\n", "a")
os.chmod(f"{IMAGE}/mode.txt", 0o600)
os.chown(f"{IMAGE}/owner.txt", 1234, 2345)
os.rename(f"{IMAGE}/renamed.txt", f"{IMAGE}/new-name.txt")
os.unlink(f"{IMAGE}/replaced-by-directory")
os.mkdir(f"{IMAGE}/replaced-by-directory")
write(f"{IMAGE}/replaced-by-directory/inside.txt", "inside\n")
shutil.rmtree(f"{IMAGE}/removed-directory")
shutil.rmtree(f"{IMAGE}/opaque")
os.mkdir(f"{IMAGE}/opaque")
write(f"{IMAGE}/opaque/new.txt", "new\n")


def image_changes():
    equal(
        sorted(os.listdir(IMAGE)),
        ["appended.txt", "kept", "mode.txt", "new-name.txt", "opaque", "owner.txt", "replaced-by-directory"],
        "names",
    )
    equal(read(f"{IMAGE}/appended.txt"), "from the image\nby the workload\n", "appended file")
    equal(stat.S_IMODE(os.stat(f"{IMAGE}/mode.txt").st_mode), 0o600, "mode")
    owner = os.stat(f"{IMAGE}/owner.txt")
    equal((owner.st_uid, owner.st_gid), (1234, 2345), "owner")
    equal(read(f"{IMAGE}/new-name.txt"), "renamed by the workload\n", "renamed file")
    equal(read(f"{IMAGE}/replaced-by-directory/inside.txt"), "inside\n", "file in the directory that replaced a file")
    equal(os.listdir(f"{IMAGE}/opaque"), ["new.txt"], "names in the directory made anew")
    equal(read(f"{IMAGE}/kept/untouched.txt"), "untouched\n", "untouched file")


checks["changes against the image"] = image_changes

# Metadata and odd shapes.
write("/data/first-name", "hard link\n")
os.link("/data/first-name", "/data/second-name")
with open("/data/sparse", "wb") as file:
    file.seek(64 << 20)
    file.write(b"at the end")
write("/data/attributes", "with attributes\n")
os.setxattr("/data/attributes", "user.test", b"value\x00with zero")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
os.setxattr("/data/attributes", "security.capability", CAPABILITY)
os.mkdir("/data/sticky")
os.setxattr("/data/sticky", "user.directory", b"too")
os.chmod("/data/sticky", 0o1777)
os.mkdir("/data/empty-directory", 0o700)
write("/data/setuid", "")
os.chown("/data/setuid", 33, 44)
os.chmod("/data/setuid", 0o6755)
write("/data/dated", "dated\n")
os.utime("/data/dated", ns=(1_000_000_000_123_456_789, 1_111_111_111_987_654_321))
os.symlink("/etc/passwd", "/data/absolute-link")
os.symlink("../data/first-name", "/data/relative-link")
os.symlink("nowhere", "/data/dangling-link")
ODD_NAMES = ["name with space", "name\nwith newline", "näme", "n" * 200, "-rf", "*", "back\\slash", 'quo"te', "per%cent"]
for name in ODD_NAMES:
    write(f"/data/{name}", name)
with open(b"/data/not-\xff-utf8", "w") as file:
    file.write("bytes")


def metadata():
    first, second = os.stat("/data/first-name"), os.stat("/data/second-name")
    equal((first.st_ino, first.st_nlink), (second.st_ino, 2), "hard link")
    sparse = os.stat("/data/sparse")
    equal(sparse.st_size, (64 << 20) + 10, "size of the sparse file")
    if sparse.st_blocks * 512 > 1 << 20:
        raise AssertionError(f"sparse file has {sparse.st_blocks} blocks")
    with open("/data/sparse", "rb") as file:
        equal(file.read(16), bytes(16), "begin of the sparse file")
        file.seek(64 << 20)
        equal(file.read(), b"at the end", "end of the sparse file")
    equal(os.getxattr("/data/attributes", "user.test"), b"value\x00with zero", "attribute of a file")
    equal(os.getxattr("/data/attributes", "security.capability"), CAPABILITY, "capability of a file")
    equal(os.getxattr("/data/sticky", "user.directory"), b"too", "attribute of a directory")
    equal(stat.S_IMODE(os.stat("/data/sticky").st_mode), 0o1777, "mode of a directory")
    equal(stat.S_IMODE(os.stat("/data/empty-directory").st_mode), 0o700, "mode of an empty directory")
    setuid = os.stat("/data/setuid")
    equal((stat.S_IMODE(setuid.st_mode), setuid.st_uid, setuid.st_gid), (0o6755, 33, 44), "setuid file")
    equal(os.stat("/data/dated").st_mtime_ns, 1_111_111_111_987_654_321, "time of change")
    equal(os.readlink("/data/absolute-link"), "/etc/passwd", "absolute link")
    equal(os.readlink("/data/relative-link"), "../data/first-name", "relative link")
    equal(os.readlink("/data/dangling-link"), "nowhere", "dangling link")
    for name in ODD_NAMES:
        equal(read(f"/data/{name}"), name, f"content of {name!r}")
    equal(read(b"/data/not-\xff-utf8"), "bytes", "content under a name that is not UTF-8")
    equal(stat.S_ISFIFO(os.stat("/data/fifo").st_mode), True, "fifo")


checks["metadata"] = metadata

os.makedirs("/data/work/here")
os.chdir("/data/work/here")
write("relative.txt", "relative\n")
checks["working directory"] = lambda: equal((os.getcwd(), read("relative.txt")), ("/data/work/here", "relative\n"), "content")

write("/data/mapped", "\0" * 8192)
mapped_file = open("/data/mapped", "r+b")
mapped = mmap.mmap(mapped_file.fileno(), 8192)
mapped[0:6] = b"shared"
private = mmap.mmap(mapped_file.fileno(), 8192, mmap.MAP_PRIVATE)
private[4096:4103] = b"private"


def mappings():
    equal((mapped[0:6], private[4096:4103], mapped[4096:4103]), (b"shared", b"private", bytes(7)), "memory")
    with open("/data/mapped", "rb") as file:
        equal(file.read(6), b"shared", "file")


checks["mapped file"] = mappings

positioned = open(f"{IMAGE}/kept/untouched.txt")
positioned.read(2)
position = os.lseek(positioned.fileno(), 4, os.SEEK_SET)
checks["position in a file of the image"] = lambda: equal(os.lseek(positioned.fileno(), 0, os.SEEK_CUR), 4, "position")

directory_fd = os.open("/data/work", os.O_RDONLY | os.O_DIRECTORY)
checks["open directory"] = lambda: equal(os.listdir(directory_fd), ["here"], "names")

run("files", checks, beat)
