#include "common.h"
#include "standby.h"
#include "target.h"
#include "trace.h"
#include "verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_LIMIT_MS = 1000 };

/* Whether the target catches the arming signal, as a standby does once it is ready for it. It would end anybody else. */
static bool is_waiting(const struct target *target) {
    char status[8192];
    if (target_read(target, "status", status, sizeof status) < 0)
        return false;
    const char *line = strstr(status, "\nSigCgt:\t");
    return line != NULL && (strtoull(line + 9, NULL, 16) >> (ARMING_SIGNAL - 1) & 1) != 0;
}

/* Whether the target has taken the name by which a standby acknowledges. */
static bool is_armed(const struct target *target) {
    char name[32];
    return target_read(target, "comm", name, sizeof name) > 0 && strcmp(name, ARMED_NAME "\n") == 0;
}

/* Asks CONDITION again and again until DEADLINE_MS or the target's end. Returns its last answer. */
static bool wait_for(bool (*condition)(const struct target *), const struct target *target, long deadline_ms) {
    const struct timespec pause = {.tv_nsec = 2000000};
    while (!condition(target)) {
        if (!target_lives(target) || monotonic_ms() >= deadline_ms)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

/* `arm`: tells a standby which process it now stands for. */
int verb_arm(int argc, char **argv) {
    uint64_t inner = 0;
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"inner", OPTION_NUMBER, true, &inner, "PID"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    if (inner < 1 || inner > INT32_MAX)
        return usage_error(specs, NULL, "malformed value: --inner must be a PID");
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    long deadline = monotonic_ms() + ANSWER_LIMIT_MS;
    bool armed = false;
    if (wait_for(is_waiting, &target, deadline)) {
        siginfo_t info = {.si_signo = ARMING_SIGNAL, .si_code = SI_QUEUE};
        info.si_pid = getpid();
        info.si_uid = getuid();
        info.si_value.sival_int = (int)inner;
        if (pidfd_send_signal(target.pidfd, ARMING_SIGNAL, &info, 0) != 0)
            return fail("pidfd_send_signal", "arming signal", errno);
        armed = wait_for(is_armed, &target, deadline);
    }
    if (!armed && target_alive(&target) != 0)
        return EXIT_FAILED;
    printf("{\"armed\":%s}\n", armed ? "true" : "false");
    return finish();
}
