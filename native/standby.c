/*
 * The placeholder's PID 1. It waits, reaping, until the agent arms it with the PID of the process that was restored beside it; from then
 * on it stands for that process: forwards signals to it and ends as it ends.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "restore-context.h"
#include "standby.h"

/* 137 is what a container has whose end is not known: see EXIT_CODE_UNKNOWN. */
enum { REMEMBERED = 1024, EXIT_UNKNOWN = 137, KERNEL_MASK_BYTES = 8 };

struct ended {
    pid_t pid;
    int status;
};

struct standby {
    pid_t restored; /* 0 until armed */
    struct ended ended[REMEMBERED];
    size_t ended_count;
};

/* Exit code of a process as a shell or a container runtime would give it. */
static int exit_code(int status) {
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Reaps everything that has ended and remembers the latest of it. Ends with the restored process's code if it is among them. */
static void reap(struct standby *standby) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
        if (pid == standby->restored)
            exit(exit_code(status));
        standby->ended[standby->ended_count++ % REMEMBERED] = (struct ended){.pid = pid, .status = status};
    }
}

/* Ends with an unknown code when the restored process is gone without having been reaped here. */
static void check_restored(const struct standby *standby) {
    if (standby->restored != 0 && kill(standby->restored, 0) != 0 && errno == ESRCH)
        exit(EXIT_UNKNOWN);
}

/* Arms: from now on this process stands for PID, which may already have ended. */
static void arm(struct standby *standby, pid_t pid) {
    if (standby->restored != 0 || pid <= 0 || pid == getpid())
        return;
    reap(standby);
    standby->restored = pid;
    prctl(PR_SET_NAME, ARMED_NAME);
    /* The latest first: an older process may have had the same number. */
    size_t known = standby->ended_count < REMEMBERED ? standby->ended_count : REMEMBERED;
    for (size_t i = 1; i <= known; i++) {
        const struct ended *ended = &standby->ended[(standby->ended_count - i) % REMEMBERED];
        if (ended->pid == pid)
            exit(exit_code(ended->status));
    }
    check_restored(standby);
}

/* Acts on one signal that was taken from the queue. */
static void take(struct standby *standby, const siginfo_t *info) {
    int signal = info->si_signo;
    if (signal == SIGCHLD)
        reap(standby);
    else if (signal == ARMING_SIGNAL && info->si_code == SI_QUEUE && info->si_pid == 0)
        arm(standby, (pid_t)info->si_value.sival_int);
    else if (standby->restored != 0)
        kill(standby->restored, signal);
    else if (signal == SIGTERM || signal == SIGINT || signal == SIGQUIT)
        exit(128 + signal);
}

/* See main. */
static void never_called(int number) {
    (void)number;
}

int main(void) {
    static struct standby standby;
    const uint64_t every_signal = UINT64_MAX;
    const struct timespec look_again = {.tv_sec = 1};
    /* By raw calls: the library keeps signals 32 and 33 for itself and would leave them out of the mask. */
    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &every_signal, NULL, KERNEL_MASK_BYTES) != 0)
        return perror("snapshot-standby: blocking signals"), 1;
    /* Never called, because all is blocked; it only shows in /proc, where `arm` looks for it, that this program is ready. */
    signal(ARMING_SIGNAL, never_called);
    /* An ignored SIGCHLD, inherited from whoever started this program, would make the kernel reap instead. */
    signal(SIGCHLD, SIG_DFL);
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        perror("snapshot-standby: becoming a subreaper");
    write_restore_context();
    for (;;) {
        siginfo_t info;
        reap(&standby);
        /* The pause is for a restored process that some other parent reaped. */
        long got = syscall(SYS_rt_sigtimedwait, &every_signal, &info, standby.restored != 0 ? &look_again : NULL,
                           KERNEL_MASK_BYTES);
        if (got > 0)
            take(&standby, &info);
        else if (errno == EAGAIN)
            check_restored(&standby);
    }
}
