/* clone_mount: a detached clone of a directory, also of another mount namespace. */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reports NOT_A_VOLUME unless DIRECTORY lies on another mount than ROOT. Returns 0 or 1. */
static int require_volume(int root, int directory, const char *path) {
    uint64_t root_id, id;
    if (mount_id(root, &root_id) != 0)
        return fail("statx", "/", errno);
    if (mount_id(directory, &id) != 0)
        return fail("statx", path, errno);
    if (id == root_id)
        return fail_code("NOT_A_VOLUME", "statx", path, 0, "%s refused: it lies on the container's root, not on a volume",
                         path);
    return 0;
}

/* Makes the last component of PATH below ROOT if it is missing; its parent must pass the same checks. Returns 0 or 1. */
static int create_last(int root, const char *path, int flags) {
    char parent_path[PATH_MAX];
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/')
        length--;
    if (length == 0)
        return 0;
    if (length >= sizeof parent_path)
        return fail("mkdir", path, ENAMETOOLONG);
    memcpy(parent_path, path, length);
    parent_path[length] = '\0';
    char *slash = strrchr(parent_path, '/');
    const char *name = slash == NULL ? parent_path : slash + 1;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return fail("mkdir", path, EINVAL);
    if (slash != NULL)
        *slash = '\0';
    const char *parent_name = slash == NULL || *parent_path == '\0' ? "/" : parent_path;
    cleanup_close int parent = open_in_root(root, parent_name, O_PATH | O_DIRECTORY);
    if (parent < 0)
        return fail_open("open", parent_name, errno);
    if ((flags & CLONE_TREE_VOLUME) != 0 && require_volume(root, parent, path) != 0)
        return EXIT_FAILED;
    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        return fail("mkdir", path, errno);
    return 0;
}

/* Opens the directory PATH below ROOT by the rules of FLAGS. Returns an O_PATH descriptor or -1 after reporting. */
static int open_source(int root, const char *path, int flags) {
    int directory = open_in_root(root, path, O_PATH | O_DIRECTORY);
    if (directory < 0 && errno == ENOENT && (flags & CLONE_TREE_CREATE) != 0) {
        if (create_last(root, path, flags) != 0)
            return -1;
        directory = open_in_root(root, path, O_PATH | O_DIRECTORY);
    }
    if (directory < 0) {
        fail_open("open", path, errno);
        return -1;
    }
    if ((flags & CLONE_TREE_VOLUME) != 0 && require_volume(root, directory, path) != 0) {
        close(directory);
        return -1;
    }
    return directory;
}

/* open_tree of an open directory of the current mount namespace. Returns the descriptor or -1 after reporting. */
static int clone_open(int directory, const char *path, int flags) {
    unsigned recursive = (flags & CLONE_TREE_RECURSIVE) != 0 ? AT_RECURSIVE : 0;
    int tree = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
    if (tree < 0)
        fail("open_tree", path, errno);
    return tree;
}

/* As clone_open, from inside the mount namespace THEIRS; root and working directory are afterwards what they were. */
static int clone_joined(int theirs, int directory, const char *path, int flags) {
    cleanup_close int ours = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (ours < 0)
        return fail("open", "/proc/self/ns/mnt", errno), -1;
    cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || cwd < 0)
        return fail("open", root < 0 ? "/" : ".", errno), -1;
    if (setns(theirs, CLONE_NEWNS) != 0)
        return fail("setns", "mnt", errno), -1;
    cleanup_close int tree = clone_open(directory, path, flags);
    /* Joining moves root and working directory to the namespace's own root, so both are put back by hand. */
    if (setns(ours, CLONE_NEWNS) != 0 || fchdir(root) != 0 || chroot(".") != 0 || fchdir(cwd) != 0)
        return fail("return to the own mount namespace", path, errno), -1;
    return take_descriptor(&tree);
}

int clone_mount(const struct target *target, const char *path, int flags) {
    cleanup_close int root = target != NULL ? target_root(target) : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        if (target == NULL)
            fail("open", "/", errno);
        return -1;
    }
    cleanup_close int theirs = target != NULL ? target_namespace(target, "mnt") : -1;
    if (target != NULL && (theirs < 0 || target_alive(target) != 0))
        return -1;
    cleanup_close int directory = open_source(root, path, flags);
    if (directory < 0)
        return -1;
    return target != NULL ? clone_joined(theirs, directory, path, flags) : clone_open(directory, path, flags);
}
