#include "common.h"
#include "target.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <unistd.h>

enum outcome { SENT, GONE, FAILED };

/* Signals the process if it is still the one with this start time. FAILED leaves errno. */
static enum outcome send_one(int procfs, uint64_t pid, uint64_t start, int signal) {
    char name[24];
    uint64_t found;
    cleanup_close int pidfd = pidfd_open((pid_t)pid, 0);
    if (pidfd < 0)
        return errno == ESRCH || errno == EINVAL ? GONE : FAILED;
    snprintf(name, sizeof name, "%llu", (unsigned long long)pid);
    cleanup_close int procdir = openat(procfs, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (procdir < 0 || !process_start(procdir, &found))
        return errno == ENOENT || errno == ESRCH ? GONE : FAILED;
    const struct target target = {.pid = (pid_t)pid, .start = found, .pidfd = pidfd, .procdir = procdir};
    if (found != start || !target_lives(&target))
        return GONE;
    if (pidfd_send_signal(pidfd, signal, NULL, 0) == 0)
        return SENT;
    return errno == ESRCH ? GONE : FAILED;
}

/* `signal`: the same signal to many processes. One that cannot be signalled does not keep the others from it. */
int verb_signal(int argc, char **argv) {
    static const char hint[] = "PID:START…";
    uint64_t signal = 0;
    const char *proc = "/proc";
    struct operands processes;
    const struct option_spec specs[] = {
        {"sig", OPTION_NUMBER, true, &signal, "N"},
        {"proc", OPTION_STRING, false, &proc, "DIR"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, &processes, hint);
    if (rc != 0)
        return rc;
    if (signal < 1 || signal > 64)
        return usage_error(specs, hint, "malformed value: --sig must be 1 to 64");
    uint64_t pid, start;
    for (int i = 0; i < processes.count; i++)
        if (!parse_process(processes.items[i], &pid, &start))
            return usage_error(specs, hint, "malformed process: %s", processes.items[i]);
    cleanup_close int procfs = open(proc, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (procfs < 0)
        return fail("open", proc, errno);
    cleanup_free uint64_t *gone = calloc((size_t)processes.count + 1, sizeof *gone);
    if (gone == NULL)
        return fail("calloc", "process list", errno);
    int sent = 0, gone_count = 0, first_error = 0;
    const char *failed = NULL;
    for (int i = 0; i < processes.count; i++) {
        parse_process(processes.items[i], &pid, &start);
        switch (send_one(procfs, pid, start, (int)signal)) {
        case SENT:
            sent++;
            break;
        case GONE:
            gone[gone_count++] = pid;
            break;
        case FAILED:
            if (failed == NULL) {
                first_error = errno;
                failed = processes.items[i];
            }
            break;
        }
    }
    if (failed != NULL)
        return fail("pidfd_send_signal", failed, first_error);
    printf("{\"sent\":%d,\"gone\":[", sent);
    for (int i = 0; i < gone_count; i++)
        printf("%s%llu", i == 0 ? "" : ",", (unsigned long long)gone[i]);
    puts("]}");
    return finish();
}
