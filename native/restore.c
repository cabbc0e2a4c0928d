/*
 * restore: runs PROGRAM (CRIU) as if in the placeholder's pod, but with the caller's files.
 *
 * What it takes from the placeholder are namespaces, cgroups, standard descriptors and a clone of its mount tree; nothing is written into it. Every descriptor
 * is opened while /proc is still the host's. The placeholder's PID 1 may be stopped all the while: nothing here waits for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "common.h"
#include "restore-child.h"
#include "restore-root.h"
#include "target.h"
#include "verbs.h"

enum { MAX_FDS = 16, HIGH_FD = 512 }; /* own descriptors lie above every number that can be asked for */

/* A descriptor of the placeholder's that PROGRAM inherits under a number of its own. */
struct handed {
    const char *path; /* in its procfs directory */
    int flags;
    int number;
    int descriptor;
};

struct restore {
    struct target_options options;
    struct target placeholder;
    const char *cgroup_root;
    const char *root_at;
    const char *pidfile;
    bool private_ipc;
    struct option_list wanted;
    struct operands program;
    struct handed handed[MAX_FDS];
    size_t handed_count;
    int procfs;
    int parent; /* pidfd of this process, for the child */
    ino_t pidns;
};

static const struct handed kinds[] = {
    {.path = "ns/net", .flags = O_RDONLY},  {.path = "fd/0", .flags = O_RDONLY}, {.path = "fd/1", .flags = O_WRONLY},
    {.path = "fd/2", .flags = O_WRONLY},    {.path = "fd/0", .flags = O_RDWR},
};
static const char *const kind_names[] = {"net", "stdin", "stdout", "stderr", "tty"};

/* Parses the --fd options: NUMBER=KIND. Returns false when one is malformed or a number is given twice. */
static bool parse_fds(struct restore *restore) {
    for (size_t i = 0; i < restore->wanted.count; i++) {
        const char *equals = strchr(restore->wanted.items[i], '=');
        char digits[8];
        uint64_t number;
        size_t kind = 0;
        if (equals == NULL || (size_t)(equals - restore->wanted.items[i]) >= sizeof digits || i >= MAX_FDS)
            return false;
        snprintf(digits, sizeof digits, "%.*s", (int)(equals - restore->wanted.items[i]), restore->wanted.items[i]);
        while (kind < sizeof kinds / sizeof kinds[0] && strcmp(kind_names[kind], equals + 1) != 0)
            kind++;
        if (!parse_number(digits, HIGH_FD - 1, &number) || number < 3 || kind == sizeof kinds / sizeof kinds[0])
            return false;
        for (size_t j = 0; j < restore->handed_count; j++)
            if (restore->handed[j].number == (int)number)
                return false;
        struct handed *handed = &restore->handed[restore->handed_count++];
        *handed = kinds[kind];
        handed->number = (int)number;
        handed->descriptor = -1;
    }
    return true;
}

/* Moves a descriptor above HIGH_FD, so that no number asked for can hit it. Returns -1 with errno. */
static int move_high(int descriptor) {
    int high = descriptor < 0 ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, HIGH_FD);
    close_descriptor(&descriptor);
    return high;
}

/* Opens what PROGRAM inherits. Never blocks: a pipe may have no other end. Returns 0, or 1 after reporting. */
static int open_handed(struct restore *restore) {
    for (size_t i = 0; i < restore->handed_count; i++) {
        struct handed *handed = &restore->handed[i];
        int opened = openat(restore->placeholder.procdir, handed->path, handed->flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        int flags = opened < 0 ? -1 : fcntl(opened, F_GETFL);
        if (opened < 0 || flags < 0 || fcntl(opened, F_SETFL, flags & ~O_NONBLOCK) != 0)
            return fail("open descriptor of the placeholder", handed->path, errno);
        handed->descriptor = move_high(opened);
        if (handed->descriptor < 0)
            return fail("dup", handed->path, errno);
    }
    return 0;
}

/* Pins the placeholder and opens all that needs the host's procfs. Returns 0, or 1 after reporting. */
static int prepare(struct restore *restore) {
    struct stat status;
    if (access(restore->pidfile, F_OK) == 0) /* CRIU would say so when all has been restored */
        return fail("pidfile", restore->pidfile, EEXIST);
    if (target_open_options(&restore->placeholder, &restore->options) != 0)
        return EXIT_FAILED;
    restore->placeholder.pidfd = move_high(restore->placeholder.pidfd);
    restore->placeholder.procdir = move_high(restore->placeholder.procdir);
    restore->procfs = move_high(open(restore->options.proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    restore->parent = move_high(pidfd_open(getpid(), 0));
    if (restore->placeholder.pidfd < 0 || restore->placeholder.procdir < 0 || restore->procfs < 0 || restore->parent < 0)
        return fail("open", restore->options.proc, errno);
    if (fstatat(restore->placeholder.procdir, "ns/pid", &status, 0) != 0)
        return fail("stat", "ns/pid", errno);
    restore->pidns = status.st_ino;
    return open_handed(restore);
}

/* Joins one namespace of the placeholder. Returns 0, or 1 after reporting. */
static int join(const struct target *placeholder, const char *name, int type) {
    cleanup_close int namespace = target_namespace(placeholder, name);
    if (namespace < 0)
        return EXIT_FAILED;
    return setns(namespace, type) == 0 ? 0 : fail("setns", name, errno);
}

/* Everything up to the PID namespace, in the order of the contract. Returns 0, or 1 after reporting. */
static int enter_pod(struct restore *restore) {
    const struct target *placeholder = &restore->placeholder;
    if (join_cgroups(placeholder, restore->cgroup_root) != 0 || join(placeholder, "uts", CLONE_NEWUTS) != 0 ||
        join(placeholder, "net", CLONE_NEWNET) != 0 || join(placeholder, "cgroup", CLONE_NEWCGROUP) != 0 ||
        (!restore->private_ipc && join(placeholder, "ipc", CLONE_NEWIPC) != 0))
        return EXIT_FAILED;
    if (unshare(CLONE_NEWNS) != 0)
        return fail("unshare", "mnt", errno);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return fail("make private", "/", errno);
    return join(placeholder, "pid", CLONE_NEWPID);
}

/* Attaches a private clone of the placeholder's mount tree at --root-at. Returns 0, or 1 after reporting. */
static int attach_tree(const struct restore *restore) {
    struct mount_attr private = {.propagation = MS_PRIVATE};
    cleanup_close int tree = clone_mount(&restore->placeholder, "/", CLONE_TREE_RECURSIVE);
    if (tree < 0)
        return EXIT_FAILED;
    if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &private, sizeof private) != 0)
        return fail("make private", restore->root_at, errno);
    if (mkdir(restore->root_at, 0700) != 0 && errno != EEXIST)
        return fail("mkdir", restore->root_at, errno);
    if (move_mount(tree, "", AT_FDCWD, restore->root_at, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return fail("move_mount", restore->root_at, errno);
    return 0;
}

/* The child: first process of this kind in the placeholder's PID namespace. Returns the exit status if PROGRAM does not run. */
static int run_child(const struct restore *restore) {
    struct pollfd parent = {.fd = restore->parent, .events = POLLIN};
    /* The parent is not in this PID namespace, so getppid cannot tell that it has ended; its pidfd can. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || poll(&parent, 1, 0) != 0) {
        fail("prctl", "PR_SET_PDEATHSIG", errno);
        return EXIT_BEFORE_PROGRAM;
    }
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0) {
        fail("mount", "/proc", errno);
        return EXIT_BEFORE_PROGRAM;
    }
    if (attach_tree(restore) != 0 || keep_standard_only() != 0)
        return EXIT_BEFORE_PROGRAM;
    for (size_t i = 0; i < restore->handed_count; i++)
        if (dup2(restore->handed[i].descriptor, restore->handed[i].number) < 0) {
            fail("dup2", restore->handed[i].path, errno);
            return EXIT_BEFORE_PROGRAM;
        }
    /* Standard output is for the one line at the end. */
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        fail("dup2", "stdout", errno);
    else
        execute(restore->program.items);
    return EXIT_BEFORE_PROGRAM;
}

/* Waits for PROGRAM. Returns its exit status, or 128 and the signal that ended it. */
static int wait_child(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail("waitpid", "program", errno);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(struct restore *restore) {
    struct restored_root found;
    if (prepare(restore) != 0 || enter_pod(restore) != 0)
        return EXIT_BEFORE_PROGRAM;
    pid_t child = fork();
    if (child < 0) {
        fail("fork", "program", errno);
        return EXIT_BEFORE_PROGRAM;
    }
    if (child == 0)
        _exit(run_child(restore));
    int status = wait_child(child);
    if (status != 0)
        return status;
    if (find_restored(restore->procfs, &restore->placeholder, restore->pidns, restore->pidfile, &found) != 0)
        return EXIT_FAILED;
    printf("{\"pid\":%d,\"start\":%llu,\"inner\":%llu}\n", found.pid, (unsigned long long)found.start,
           (unsigned long long)found.inner);
    return finish();
}

int verb_restore(int argc, char **argv) {
    struct restore restore = {.options = TARGET_OPTIONS_NONE, .placeholder = TARGET_NONE};
    const struct option_spec specs[] = {
        TARGET_OPTIONS(restore.options, true),
        {"cgroup-root", OPTION_STRING, true, &restore.cgroup_root, "DIR"},
        {"root-at", OPTION_STRING, true, &restore.root_at, "DIR"},
        {"pidfile", OPTION_STRING, true, &restore.pidfile, "FILE"},
        {"private-ipc", OPTION_FLAG, false, &restore.private_ipc, "0|1"},
        {"fd", OPTION_LIST, false, &restore.wanted, "NUMBER=net|stdin|stdout|stderr|tty"},
        {0},
    };
    const char *hint = "-- PROGRAM ARGV…";
    pid_t parent = getppid();
    int result = parse_options(argc, argv, specs, &restore.program, hint);
    if (result != 0)
        return result;
    if (restore.program.count == 0 || !parse_fds(&restore))
        return usage_error(specs, hint, "needs a program, and --fd NUMBER=net|stdin|stdout|stderr|tty, numbers from 3 to %d",
                           HIGH_FD - 1);
    if (die_with_parent(parent) != 0)
        return EXIT_BEFORE_PROGRAM;
    return run(&restore);
}
