/*
 * apply: what capture found, put over a mount of the container.
 *
 * The list and the archive are opened before anything of the container is touched. The mount is cloned without what is mounted below it, so no volume
 * and no /proc is reached, and the clone becomes this process's root, so nothing else is: whatever symlinks the container has planted.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive-extract.h"
#include "archive-path.h"
#include "archive-remove.h"
#include "common.h"
#include "target.h"
#include "verbs.h"

#define REMOVED_BYTES ((off_t)128 << 20)

struct removal {
    const struct option_list *keep;
    int root;
    uint64_t removed;
};

/* The list of removed paths, mapped. */
struct list {
    const char *text;
    size_t length;
};

/* Opens a regular file without following or blocking. Returns -1 after reporting. */
static int open_regular(const char *path, struct stat *status) {
    int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        fail("open", path, errno);
        return -1;
    }
    if (fstat(file, status) == 0 && S_ISREG(status->st_mode))
        return file;
    fail_code(NULL, "open", path, 0, "%s is not a regular file", path);
    close(file);
    return -1;
}

/* Reads the list and checks all of it. Returns 0, or 1 after reporting. */
static int load_list(const char *path, struct list *list) {
    struct stat status;
    cleanup_close int file = open_regular(path, &status);
    if (file < 0)
        return 1;
    if (status.st_size == 0 || status.st_size > REMOVED_BYTES)
        return fail_code("BAD_REMOVED", "read", path, 0, "%s: empty or too large", path);
    /* A copy, not a mapping of the file, so that nobody changes what was checked. */
    char *text = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (text == MAP_FAILED)
        return fail("mmap", path, errno);
    size_t length = 0;
    while (length < (size_t)status.st_size) {
        ssize_t got = read(file, text + length, (size_t)status.st_size - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail("read", path, errno);
        if (got == 0)
            break;
        length += (size_t)got;
    }
    *list = (struct list){.text = text, .length = length};
    return removed_parse(text, length, NULL, NULL);
}

/* Removes one path, or the content of one opaque directory. What a symlink or a file hides is not there. */
static int remove_listed(void *context, bool opaque, const char *path) {
    struct removal *removal = context;
    if (kept_relation(removal->keep, path) != KEPT_APART)
        return 0;
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    const char *name = slash != NULL ? slash + 1 : parent;
    if (slash != NULL)
        *slash = '\0';
    const char *opened = opaque ? path : slash != NULL ? parent : ".";
    cleanup_close int directory = open_in_root(removal->root, opened, O_RDONLY | O_DIRECTORY);
    if (directory < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : fail("open", path, errno);
    struct stat status;
    if (!opaque && fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : fail("stat", path, errno);
    if ((opaque ? remove_content(directory) : remove_tree(directory, name)) != 0)
        return fail("remove", path, errno);
    removal->removed++;
    return 0;
}

/* Makes the clone writable and this process's root. Returns 0, or 1 after reporting. */
static int enter_clone(int clone, const char *mount) {
    /* readOnlyRootFilesystem is a flag of the container's mount, and the clone has it too. A read-only filesystem says so when it is written. */
    struct mount_attr writable = {.attr_clr = MOUNT_ATTR_RDONLY};
    if (mount_setattr(clone, "", AT_EMPTY_PATH, &writable, sizeof writable) != 0)
        return fail("mount_setattr", mount, errno);
    if (fchdir(clone) != 0 || chroot(".") != 0)
        return fail("chroot", mount, errno);
    struct rlimit files; /* one descriptor per level of depth */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    umask(0);
    return 0;
}

int verb_apply(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const char *mount = NULL, *tar = NULL, *removed = NULL;
    struct option_list keep = {.count = 0};
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"mount", OPTION_STRING, true, &mount, "M"},
        {"tar", OPTION_STRING, true, &tar, "FILE"},
        {"removed", OPTION_STRING, false, &removed, "FILE"},
        {"keep", OPTION_LIST, false, &keep, "PATH"},
        {0},
    };
    int result = parse_options(argc, argv, specs, NULL, NULL);
    if (result != 0)
        return result;
    struct stat status;
    struct list list = {.text = NULL};
    struct removal removal = {.keep = &keep, .removed = 0};
    struct extract_counts counts = {.entries = 0};
    cleanup_close int archive = open_regular(tar, &status);
    if (archive < 0 || (removed != NULL && load_list(removed, &list) != 0))
        return EXIT_FAILED;
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    cleanup_close int clone = clone_mount(&target, mount, 0);
    if (clone < 0 || enter_clone(clone, mount) != 0)
        return EXIT_FAILED;
    cleanup_close int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail("open", mount, errno);
    removal.root = root;
    if ((list.text != NULL && removed_parse(list.text, list.length, remove_listed, &removal) != 0) ||
        archive_extract(archive, root, &keep, &counts) != 0)
        return EXIT_FAILED;
    printf("{\"entries\":%llu,\"removed\":%llu,\"skipped\":%llu}\n", (unsigned long long)counts.entries,
           (unsigned long long)removal.removed, (unsigned long long)counts.skipped);
    return finish();
}
