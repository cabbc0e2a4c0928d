#include "common.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pidfd-info.h"
#include "target.h"

/* Whether openat2 opens a directory. */
static bool has_openat2(void) {
    cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int opened = root < 0 ? -1 : open_in_root(root, "/", O_PATH | O_DIRECTORY);
    return opened >= 0;
}

/* Whether a process can be pinned. */
static bool has_pidfd(void) {
    cleanup_close int self = pidfd_open(getpid(), 0);
    return self >= 0;
}

/* Whether a mount can be cloned, and whether the clone can be told to follow no symlinks. */
static void try_mounts(bool *clones, bool *refuses_symlinks) {
    cleanup_close int tree = open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSYMFOLLOW};
    *clones = tree >= 0;
    *refuses_symlinks = tree >= 0 && mount_setattr(tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0;
}

/* Whether the kernel still tells the wait status of a process that was reaped by its parent. */
static bool has_pidfd_exit_code(void) {
    enum { STATUS = 7 };
    pid_t child = fork();
    if (child == 0)
        _exit(STATUS);
    if (child < 0)
        return false;
    cleanup_close int pidfd = pidfd_open(child, 0);
    if (waitpid(child, NULL, 0) != child || pidfd < 0)
        return false;
    int status = 0;
    return pidfd_exit_status(pidfd, &status) && WIFEXITED(status) && WEXITSTATUS(status) == STATUS;
}

/* Whether CAP_SYS_RESOURCE is effective. */
static bool has_sys_resource(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &header, data) != 0)
        return false;
    return (data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective & CAP_TO_MASK(CAP_SYS_RESOURCE)) != 0;
}

/* `probe`: what this kernel and these rights allow, each by trying it. */
int verb_probe(int argc, char **argv) {
    const struct option_spec specs[] = {{0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    struct utsname kernel;
    if (uname(&kernel) != 0)
        return fail("uname", "kernel", errno);
    bool clones, refuses_symlinks;
    try_mounts(&clones, &refuses_symlinks);
    const char *word[] = {"false", "true"};
    printf("{\"openat2\":%s,\"pidfd\":%s,\"openTree\":%s,\"nosymfollow\":%s,\"pidfdExitCode\":%s,\"kernel\":",
           word[has_openat2()], word[has_pidfd()], word[clones], word[refuses_symlinks], word[has_pidfd_exit_code()]);
    json_string(stdout, kernel.release);
    printf(",\"capSysResource\":%s}\n", word[has_sys_resource()]);
    return finish();
}
