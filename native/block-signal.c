#include "common.h"
#include "target.h"
#include "trace.h"
#include "verbs.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <time.h>

enum { STOP_LIMIT_MS = 1000, PASS_LIMIT = 20, QUIET_PASSES = 3 };

/* Whether the thread's blocked mask holds the signal; a thread that has ended counts as blocked. */
static bool is_blocked(const struct target *target, pid_t thread, uint64_t signal) {
    char path[48], status[8192];
    snprintf(path, sizeof path, "task/%d/status", thread);
    if (target_read(target, path, status, sizeof status) < 0)
        return true;
    const char *state = strstr(status, "\nState:\t");
    const char *line = strstr(status, "\nSigBlk:\t");
    if (state != NULL && (state[8] == 'Z' || state[8] == 'X'))
        return true;
    return line != NULL && (strtoull(line + 9, NULL, 16) >> (signal - 1) & 1) != 0;
}

/* Whether the stopped thread waits in a system call that takes a mask of its own, and sets it again when it goes on. */
static bool waits_with_mask(pid_t thread) {
    struct user_regs_struct registers;
    struct iovec place = {.iov_base = &registers, .iov_len = sizeof registers};
    if (ptrace(PTRACE_GETREGSET, thread, (void *)NT_PRSTATUS, &place) != 0)
        return false;
    return registers.orig_rax == SYS_rt_sigsuspend || registers.orig_rax == SYS_rt_sigtimedwait;
}

/* Adds the signal to the blocked mask of one thread. Returns 0, or -1 with errno (EBUSY for one that waits with a mask of its own); it runs on either way. */
static int block_in_thread(pid_t thread, uint64_t signal) {
    uint64_t mask = 0;
    if (trace_stop(thread, 0, STOP_LIMIT_MS) != 0)
        return -1;
    if (waits_with_mask(thread)) {
        trace_release(thread);
        errno = EBUSY;
        return -1;
    }
    long rc = ptrace(PTRACE_GETSIGMASK, thread, (void *)sizeof mask, &mask);
    mask |= UINT64_C(1) << (signal - 1);
    if (rc == 0)
        rc = ptrace(PTRACE_SETSIGMASK, thread, (void *)sizeof mask, &mask);
    trace_release(thread);
    return (int)rc;
}

static int fail_not_blocked(const struct target *target, uint64_t signal) {
    return fail_code("SIGNAL_NOT_BLOCKED", "block", "SigBlk", 0,
                     "signal %llu does not stay blocked in process %d: it sets its own mask again",
                     (unsigned long long)signal, target->pid);
}

/*
 * Goes through the threads once. Returns how many had to be changed, or -1 after reporting. A new thread inherits the mask of the one
 * that made it, so passes over the list come to an end.
 */
static int block_in_threads(const struct target *target, uint64_t signal) {
    cleanup_free pid_t *threads = NULL;
    ssize_t count = list_threads(target, &threads);
    if (count < 0)
        return -1;
    int changed = 0;
    for (ssize_t i = 0; i < count; i++) {
        if (is_blocked(target, threads[i], signal))
            continue;
        if (target_alive(target) != 0)
            return -1;
        if (block_in_thread(threads[i], signal) != 0) {
            int error = errno;
            if (is_blocked(target, threads[i], signal))
                continue;
            if (error == EBUSY) {
                fail_not_blocked(target, signal);
                return -1;
            }
            char name[24];
            snprintf(name, sizeof name, "%d", threads[i]);
            fail("ptrace", name, error);
            return -1;
        }
        changed++;
    }
    return changed;
}

/* `block-signal`: from now on the signal stays pending in the target, where it can be seen. */
int verb_block_signal(int argc, char **argv) {
    uint64_t signal = 0;
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"sig", OPTION_NUMBER, true, &signal, "N"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    if (signal < 1 || signal > 64 || signal == 9 || signal == 19)
        return usage_error(specs, NULL, "malformed value: --sig must be a signal that can be blocked");
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    /*
     * Looked at again a little later: a thread that is being made, or that waits with a mask of its own for this call only, has one that
     * it is about to replace.
     */
    const struct timespec pause = {.tv_nsec = 10000000};
    for (int pass = 0, quiet = 0; pass < PASS_LIMIT; pass++) {
        int changed = block_in_threads(&target, signal);
        if (changed < 0)
            return EXIT_FAILED;
        quiet = changed == 0 ? quiet + 1 : 0;
        if (quiet == QUIET_PASSES) {
            printf("{\"blocked\":%llu}\n", (unsigned long long)signal);
            return finish();
        }
        nanosleep(&pause, NULL);
    }
    return fail_not_blocked(&target, signal);
}
