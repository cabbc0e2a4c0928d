"""Trees for the tests of capture and apply. `lower DIR` makes the image's files, `change DIR` does to them what a workload may do,
`conflict DIR` puts something else where those changes will land, `show DIR` prints everything about a tree, one JSON object per file."""
import hashlib, json, os, shutil, socket, stat, struct, sys

root = os.fsencode(sys.argv[2])
if os.path.samestat(os.stat(root), os.stat('/')):  # a test's mistake must not reach the machine's own files
    sys.exit('this is the root of the machine')
CAPABILITY = bytes.fromhex('0100000200040000000000000000000000000000')  # cap_net_bind_service=ep


def at(path):
    return os.path.join(root, path if isinstance(path, bytes) else path.encode())


def put(path, content='', mode=0o644):
    with open(at(path), 'wb') as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    os.chmod(at(path), mode)


def when(path, ns):
    os.utime(at(path), ns=(ns, ns), follow_symlinks=False)


def acl(*entries):
    """The value of a POSIX ACL attribute; entries are (tag, permissions, id)."""
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACL = acl((1, 6, NOBODY), (2, 7, 4711), (4, 4, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY))


def lower():
    for path in ('bin', 'proc', 'old', 'etc/deep/er', 'data', 'keep', 'replaced/inside', 'opaque/a', 'acls', 'shared', 'volume'):
        os.makedirs(at(path))
    for path in ('etc/issue', 'etc/issue.net', 'etc/deep/er/file', 'keep/same', 'replaced/inside/f', 'opaque/a/f', 'opaque/b', 'mode',
                 'owner', 'touched', 'gone', 'becomes-directory', 'appended', 'pair-one'):
        put(path, f'lower {path}\n')
    os.link(at('pair-one'), at('pair-two'))
    os.symlink('issue', at('etc/link'))
    os.symlink('/nowhere', at('link-becomes-file'))
    put('file-becomes-link')
    os.setxattr(at('keep'), 'user.from', b'lower')
    os.setxattr(at('etc'), 'user.removed', b'lower')
    os.setxattr(at('acls'), 'system.posix_acl_default', ACL)
    put('acls/inherited')
    put('%-in lower', 'x')


def change():
    put('etc/issue', 'changed\n', 0o600)
    os.remove(at('etc/issue.net'))
    os.remove(at('gone'))
    os.remove(at('%-in lower'))
    os.removexattr(at('etc'), 'user.removed')
    os.setxattr(at('etc'), 'user.added', b'\x00\xff binary')
    os.setxattr(at('etc'), 'user.empty', b'')
    os.setxattr(at('etc'), 'user.a=b%\xc3\xa9', b'odd name')
    shutil.rmtree(at('opaque'))
    os.mkdir(at('opaque'), 0o2750)
    put('opaque/new', 'n')
    shutil.rmtree(at('replaced'))
    put('replaced', 'a file where a directory was')
    os.remove(at('becomes-directory'))
    os.makedirs(at('becomes-directory/with/depth'))
    put('becomes-directory/with/depth/f', 'f')
    os.remove(at('link-becomes-file'))
    put('link-becomes-file', 'file')
    os.remove(at('file-becomes-link'))
    os.symlink(b'/absolute/\xff\n%', at('file-becomes-link'))
    os.chown(at('file-becomes-link'), 7, 8, follow_symlinks=False)
    when('file-becomes-link', 1_111_111_111_222_333_444)
    os.chmod(at('mode'), 0o4751)
    os.chown(at('owner'), 123456, 4_000_000_000)
    os.chmod(at('owner'), 0o6755)
    when('touched', 1_234_567_890_123_456_789)
    with open(at('appended'), 'ab') as file:
        file.write(b'more')
    put('pair-one', 'changed')
    put('capable', '#!', 0o755)
    os.setxattr(at('capable'), 'security.capability', CAPABILITY)
    os.setxattr(at('capable'), 'user.overlay.opaque', b'y')
    os.setxattr(at('capable'), 'trusted.mine', b'\x00\x01')
    os.chown(at('capable'), 10, 20)
    os.setxattr(at('capable'), 'security.capability', CAPABILITY)
    put('acls/without', 'x')
    os.removexattr(at('acls/without'), 'system.posix_acl_access')
    put('acls/with', 'x')
    os.mkdir(at('acls/below'))
    put('acls/below/f')
    os.mkdir(at('acls/plain'))
    os.removexattr(at('acls/plain'), 'system.posix_acl_default')
    os.removexattr(at('acls/plain'), 'system.posix_acl_access')
    os.mkfifo(at('acls/fifo'))
    os.removexattr(at('acls/fifo'), 'system.posix_acl_access')
    os.chmod(at('acls/fifo'), 0o640)
    put('acl', 'x')
    os.setxattr(at('acl'), 'system.posix_acl_access', ACL)
    os.makedirs(at('links/below'))
    put('links/z-first', 'linked')
    for name in ('links/a', 'links/below/b', 'zz-link'):
        os.link(at('links/z-first'), at(name))
    os.symlink('x', at('links/symlink'))
    os.link(at('links/symlink'), at('links/symlink-again'), follow_symlinks=False)
    os.link(at('etc/deep/er/file'), at('links/of-lower'))
    with open(at('sparse'), 'wb') as file:
        for offset in (1 << 20, 300 << 20, (2 << 30) + 4096):
            file.seek(offset)
            file.write(os.urandom(70_000))
        file.truncate((3 << 30) + 17)
    with open(at(b'hole-\xfe'), 'wb') as file:
        file.truncate(5 << 30)
    with open(at('starts-with-data'), 'wb') as file:
        file.write(b'x' * 8192)
        file.seek(1 << 20)
        file.write(b'y')
    put('large', os.urandom(9_000_001))
    put('empty', b'')
    for number, name in enumerate((b'new\nline', b'not-utf8-\xff\xfe\x80', b'per%cent%41', b'quote"back\\slash', b' space ', b'-dash',
                                   'umlaut-ü'.encode(), b'tab\t\x01\x7f', b'n' * 255, b'...', b'..a')):
        put(name, f'{number}')
        os.makedirs(at(b'dirs/' + name))
        put(b'dirs/' + name + b'/' + name, f'{number}')
        os.symlink(name, at(b'dirs/' + name + b'/l'))
    deep = b'/'.join([b'd' * 100] * 36)
    os.makedirs(at(deep))
    put(deep + b'/f', 'deep')
    os.symlink(b't' * 4000, at('long-target'))
    os.mkfifo(at('fifo'), 0o620)
    os.mknod(at('device'), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkdir(at('sticky'))
    os.chmod(at('sticky'), 0o1777)
    bound = socket.socket(socket.AF_UNIX)
    os.chdir(at('sticky'))
    bound.bind('socket')
    for directory in range(50):
        os.mkdir(at(f'many{directory}'))
        for number in range(100):
            put(f'many{directory}/{number}', f'{directory} {number}')
    when('dirs', 999_999_999_000_000_001)
    when('many7', -1_000_000_000)
    os.chmod(at('keep'), 0o711)
    os.chmod(root, 0o751)


def conflict():
    os.remove(at('etc/issue'))
    os.makedirs(at('etc/issue/full/of'))
    put('etc/issue/full/of/things')
    shutil.rmtree(at('opaque'))
    os.symlink('/keep', at('opaque'))
    put('replaced/inside/more')
    os.symlink('/keep', at('dirs'))
    put('links', 'a file')
    os.makedirs(at('large/d'))
    os.makedirs(at('long-target/d'))
    os.makedirs(at('fifo/d'))
    os.makedirs(at('zz-link/d'))
    os.symlink('keep/same', at('empty'))
    os.link(at('keep/same'), at('capable'))
    put('acl', 'other', 0o777)
    os.setxattr(at('acl'), 'user.other', b'1')
    os.mkdir(at('sticky'))
    os.setxattr(at('sticky'), 'user.other', b'1')
    os.setxattr(at('sticky'), 'system.posix_acl_default', ACL)


def describe(path, status, names):
    found = {'path': path.decode('latin-1'), 'mode': oct(status.st_mode), 'owner': [status.st_uid, status.st_gid], 'mtime': str(status.st_mtime_ns),
             'xattrs': {name: os.getxattr(at(path), name, follow_symlinks=False).hex()
                        for name in sorted(os.listxattr(at(path), follow_symlinks=False))}}
    if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
        found['link'] = names.setdefault((status.st_dev, status.st_ino), found['path'])
    if stat.S_ISLNK(status.st_mode):
        found['target'] = os.readlink(at(path)).decode('latin-1')
    if stat.S_ISREG(status.st_mode):
        found.update(size=status.st_size, content=digest(at(path)))
        if status.st_blocks * 512 < status.st_size:
            found['blocks'] = status.st_blocks
    return found


def digest(path):
    """Of the data and where it lies, so that a hole costs nothing."""
    sha = hashlib.sha256()
    with open(path, 'rb') as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:
                break
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            sha.update(f'{start} {offset}:'.encode())
            for piece in range(start, offset, 1 << 20):
                sha.update(os.pread(file.fileno(), min(1 << 20, offset - piece), piece))
    return sha.hexdigest()


def show():
    names, paths = {}, [b'']
    for directory, directories, files in os.walk(root):
        if directory == root:
            directories.remove(b'proc')
        paths += [os.path.relpath(os.path.join(directory, name), root) for name in directories + files]
    for path in sorted(paths):
        print(json.dumps(describe(path, os.lstat(at(path)), names)))


os.umask(0o022)
{'lower': lower, 'change': change, 'conflict': conflict, 'show': show}[sys.argv[1]]()
