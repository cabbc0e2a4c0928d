#include "trace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

long monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int trace_wait(pid_t thread, long deadline_ms, int *status) {
    /* The first looks are close together: a thread stops within microseconds unless it sleeps uninterruptibly. */
    struct timespec pause = {.tv_nsec = 20000};
    for (;;) {
        pid_t got = waitpid(thread, status, __WALL | WNOHANG);
        if (got < 0 && errno != EINTR)
            return -1;
        if (got == thread) {
            errno = ESRCH;
            return WIFSTOPPED(*status) ? 0 : -1;
        }
        if (monotonic_ms() >= deadline_ms) {
            errno = ETIMEDOUT;
            return -1;
        }
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 2000000)
            pause.tv_nsec *= 2;
    }
}

int trace_stop(pid_t thread, unsigned long options, long limit_ms) {
    int status;
    long deadline = monotonic_ms() + limit_ms;
    if (ptrace(PTRACE_SEIZE, thread, NULL, (void *)options) != 0)
        return -1;
    if (ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) != 0)
        return -1;
    while (trace_wait(thread, deadline, &status) == 0) {
        if (status >> 16 == PTRACE_EVENT_STOP)
            return 0;
        /* A signal came first: it is delivered as if nobody had looked, and the stop asked for follows. */
        int signal = status >> 16 == 0 ? WSTOPSIG(status) : 0;
        if (ptrace(PTRACE_CONT, thread, NULL, (void *)(long)signal) != 0)
            return -1;
    }
    return -1;
}

void trace_release(pid_t thread) {
    int saved = errno;
    ptrace(PTRACE_DETACH, thread, NULL, NULL);
    errno = saved;
}

/* Opens the target's task directory for reading entries. Returns NULL after reporting. */
static DIR *open_tasks(const struct target *target) {
    int descriptor = openat(target->procdir, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *tasks = descriptor < 0 ? NULL : fdopendir(descriptor);
    if (tasks != NULL)
        return tasks;
    if (target_alive(target) == 0)
        fail("open", "task", errno);
    close_descriptor(&descriptor);
    return NULL;
}

ssize_t list_threads(const struct target *target, pid_t **threads) {
    DIR *tasks = open_tasks(target);
    if (tasks == NULL)
        return -1;
    size_t count = 0, room = 0;
    const struct dirent *entry;
    pid_t *list = NULL;
    while ((entry = readdir(tasks)) != NULL && count < THREAD_LIMIT) {
        uint64_t number;
        if (!parse_number(entry->d_name, INT32_MAX, &number))
            continue;
        if (count == room) {
            room = room == 0 ? 64 : room * 2;
            pid_t *longer = reallocarray(list, room, sizeof *list);
            if (longer == NULL) {
                fail("allocate", "thread list", errno);
                free(list);
                closedir(tasks);
                return -1;
            }
            list = longer;
        }
        list[count++] = (pid_t)number;
    }
    closedir(tasks);
    *threads = list;
    return (ssize_t)count;
}
