#include "device-access.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "restore-child.h"

/* A driver may have to start a GPU first. A child that hangs in it even after SIGKILL is not waited for for ever. */
enum { TRY_MS = 10000, END_MS = 2000, SETTLE_MS = 500 };

/* What the child tells: in memory of both, as it may be killed, or hang, at any point. */
struct told {
    atomic_int outcomes[TRIAL_LIMIT];
    char why[65536]; /* an error line, or nothing */
};

/* What the child works with. */
struct task {
    const struct target *target;
    const char *cgroup_root;
    const struct trial *trials;
    size_t count;
    struct told *told;
    pid_t parent;
};

/* Opens the device behind the O_PATH descriptor through which it was looked at: no other can have taken its place. Returns 0 or the errno. */
static int open_device(const struct trial *trial) {
    char path[48];
    struct stat status;
    snprintf(path, sizeof path, "/proc/self/fd/%d", trial->node);
    cleanup_close int device = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (device < 0 || fstat(device, &status) != 0)
        return errno;
    return S_ISCHR(status.st_mode) && status.st_rdev == trial->number ? 0 : ESTALE;
}

/* Whoever waits for the end of the caller's output does not wait for a child that hangs in a driver. */
static int let_go_of_standard(void) {
    cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -1;
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++)
        if (dup2(null, descriptor) < 0)
            return -1;
    return 0;
}

/* The child. It touches as little as it can once it is in the container's cgroups, whose limits count for it. */
static void run_child(const struct task *task) {
    cleanup_file FILE *errors = fmemopen(task->told->why, sizeof task->told->why, "w");
    if (errors == NULL)
        return;
    if (let_go_of_standard() != 0) {
        report(errors, NULL, "open", "/dev/null", errno, NULL);
        return;
    }
    if (die_with_parent(task->parent) != 0 || join_device_cgroups(task->target, task->cgroup_root, errors) != 0)
        return;
    for (size_t i = 0; i < task->count; i++)
        atomic_store(&task->told->outcomes[i], open_device(&task->trials[i]));
}

/* Whether the child has ended within so many milliseconds. */
static bool ends_within(int pidfd, int milliseconds) {
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    int ready;
    do
        ready = poll(&ended, 1, milliseconds);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

/* Waits for the child, and ends it when its time is over. Says in WORDS what went wrong, if anything did. */
static void await_child(pid_t child, char *words, size_t size) {
    int status = 0;
    cleanup_close int pidfd = pidfd_open(child, 0);
    *words = '\0';
    if (pidfd >= 0 && ends_within(pidfd, TRY_MS)) {
        if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
            snprintf(words, size, "it was ended by signal %d", WTERMSIG(status));
        return;
    }
    kill(child, SIGKILL);
    bool ended = pidfd >= 0 && ends_within(pidfd, END_MS) && waitpid(child, &status, 0) == child;
    snprintf(words, size, "it did not end in %d seconds%s", TRY_MS / 1000,
             ended ? "" : ", and does not die after SIGKILL: it is left behind");
}

/* Why nodes were not tried: what the child said, or else what became of it. */
static const char *explain(struct told *told, const char *words) {
    if (*told->why == '\0') {
        FILE *errors = fmemopen(told->why, sizeof told->why, "w");
        if (errors == NULL)
            return "{}";
        report(errors, NULL, "open", "devices", 0, "the child that opens the devices could not go on: %s", words);
        fclose(errors);
    }
    told->why[strcspn(told->why, "\n")] = '\0';
    return told->why;
}

int try_devices(const struct target *target, const char *cgroup_root, struct trial *trials, size_t count,
                const char **why) {
    char words[128];
    struct told *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (told == MAP_FAILED)
        return fail("mmap", "results", errno);
    for (size_t i = 0; i < count; i++)
        atomic_init(&told->outcomes[i], NOT_TRIED);
    const struct task task = {target, cgroup_root, trials, count, told, getpid()};
    pid_t child = fork();
    if (child < 0)
        return fail("fork", "child", errno);
    if (child == 0) {
        run_child(&task);
        _exit(0);
    }
    await_child(child, words, sizeof words);
    size_t tried = 0;
    for (size_t i = 0; i < count; i++) {
        trials[i].outcome = atomic_load(&told->outcomes[i]);
        tried += trials[i].outcome != NOT_TRIED;
    }
    *why = NULL;
    if (tried == count)
        return 0;
    *why = explain(told, words);
    /* A container that is being ended takes the child with it, or its cgroups away, and may be the last to be gone. */
    ends_within(target->pidfd, SETTLE_MS);
    return 0;
}
