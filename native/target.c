#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool target_named(const struct target_options *options) {
    return options->pid != 0 || options->start != START_ANY;
}

/* Reports that PID is not the process that was meant; returns 1. */
static int fail_gone(const char *step, pid_t pid, int err, const char *why) {
    char name[24];
    snprintf(name, sizeof name, "%d", pid);
    return fail_code("TARGET_GONE", step, name, err, "process %d is gone: %s", pid, why);
}

int target_open(struct target *target, const char *proc, pid_t pid, uint64_t start) {
    char name[24];
    snprintf(name, sizeof name, "%d", pid);
    *target = (struct target){.pid = pid, .pidfd = pidfd_open(pid, 0), .procdir = -1};
    if (target->pidfd < 0) /* EINVAL: a PID that no process can have, or a thread's */
        return errno == ESRCH || errno == EINVAL ? fail_gone("pidfd_open", pid, errno, "no such process")
                                                 : fail("pidfd_open", name, errno);
    cleanup_close int procfs = open(proc, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (procfs < 0)
        return fail("open", proc, errno);
    target->procdir = openat(procfs, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target->procdir < 0)
        return errno == ENOENT ? fail_gone("open", pid, errno, "not in procfs") : fail("open", name, errno);
    if (!process_start(target->procdir, &target->start))
        return errno == ESRCH || errno == ENOENT ? fail_gone("stat", pid, errno, "ended")
                                                 : fail("read stat", name, errno);
    if (start != START_ANY && start != target->start)
        return fail_gone("start time", pid, 0, "another process has its number");
    return target_alive(target);
}

int target_open_options(struct target *target, const struct target_options *options) {
    *target = TARGET_NONE;
    if (options->pid == 0 || options->pid > INT32_MAX)
        return fail_code("TARGET_GONE", "pidfd_open", "--pid", 0, "no process can have this number: %llu",
                         (unsigned long long)options->pid);
    return target_open(target, options->proc, (pid_t)options->pid, options->start);
}

void target_close(const struct target *target) {
    close_descriptor(&target->pidfd);
    close_descriptor(&target->procdir);
}

bool target_lives(const struct target *target) {
    struct pollfd ended = {.fd = target->pidfd, .events = POLLIN};
    return poll(&ended, 1, 0) == 0;
}

int target_alive(const struct target *target) {
    return target_lives(target) ? 0 : fail_gone("pidfd", target->pid, 0, "it has ended");
}

ssize_t read_text_at(int directory, const char *path, char *text, size_t size) {
    cleanup_close int file = openat(directory, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return -1;
    size_t length = 0;
    while (length < size - 1) {
        ssize_t got = read(file, text + length, size - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    text[length] = '\0';
    return (ssize_t)length;
}

ssize_t target_read(const struct target *target, const char *name, char *text, size_t size) {
    return read_text_at(target->procdir, name, text, size);
}

bool process_start(int procdir, uint64_t *start) {
    char stat[4096];
    if (read_text_at(procdir, "stat", stat, sizeof stat) < 0)
        return false;
    /* The name in parentheses may contain anything, so the fields are counted from its last parenthesis. */
    char *field = strrchr(stat, ')');
    for (int number = 2; field != NULL && number < 22; number++) {
        field = strchr(field, ' ');
        if (field != NULL)
            field++;
    }
    errno = EPROTO;
    if (field == NULL)
        return false;
    char *end = strchr(field, ' ');
    if (end == NULL)
        return false;
    *end = '\0';
    return parse_number(field, UINT64_MAX, start);
}

int target_root(const struct target *target) {
    int root = openat(target->procdir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root >= 0)
        return root;
    if (errno == ENOENT || errno == ESRCH)
        fail_gone("open root", target->pid, errno, "it has no root any more");
    else
        fail("open root", "root", errno);
    return -1;
}

int target_namespace(const struct target *target, const char *name) {
    char path[32];
    snprintf(path, sizeof path, "ns/%s", name);
    int descriptor = openat(target->procdir, path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0)
        return descriptor;
    if (errno == ENOENT || errno == ESRCH)
        fail_gone("open namespace", target->pid, errno, "it has no namespaces any more");
    else
        fail("open namespace", path, errno);
    return -1;
}

int open_in_root(int root, const char *path, int flags) {
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    /* EAGAIN: something was renamed while ".." was looked up. Whoever keeps doing that is not waited for. */
    long descriptor = -1;
    for (int attempt = 0; attempt < 32; attempt++) {
        descriptor = syscall(SYS_openat2, root, path, &how, sizeof how);
        if (descriptor >= 0 || errno != EAGAIN)
            break;
    }
    return (int)descriptor;
}

int fail_open(const char *step, const char *path, int err) {
    if (err == ELOOP)
        return fail_code("SYMLINK_REFUSED", step, path, err, "%s refused: a symlink lies on the path %s", step, path);
    return fail(step, path, err);
}

int mount_id(int descriptor, uint64_t *id) {
    struct statx status;
    if (statx(descriptor, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) != 0)
        return -1;
    if ((status.stx_mask & STATX_MNT_ID) == 0) {
        errno = EOPNOTSUPP;
        return -1;
    }
    *id = status.stx_mnt_id;
    return 0;
}
