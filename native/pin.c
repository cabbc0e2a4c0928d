#include "common.h"
#include "pidfd-info.h"
#include "target.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const namespaces[] = {"mnt", "pid", "net", "ipc", "uts", "cgroup", "user"};
enum { NAMESPACE_COUNT = sizeof namespaces / sizeof namespaces[0], LINE_SIZE = 128 };

struct identity {
    ino_t inodes[NAMESPACE_COUNT];
};

/* Inode numbers of the process's namespaces; 0 for one that this kernel lacks. Returns NULL, or the name of the one that failed, with
 * errno. */
static const char *read_identity(const struct target *target, struct identity *identity) {
    for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
        char path[32];
        struct stat status = {0};
        snprintf(path, sizeof path, "ns/%s", namespaces[i]);
        if (fstatat(target->procdir, path, &status, 0) != 0 && (errno != ENOENT || !target_lives(target)))
            return namespaces[i];
        identity->inodes[i] = status.st_ino;
    }
    return NULL;
}

/* Prints the PIDs of the NSpid line of status as a list, outermost first. */
static int print_namespace_pids(const struct target *target) {
    char status[8192];
    if (target_read(target, "status", status, sizeof status) < 0)
        return fail("read", "status", errno);
    char *line = strstr(status, "\nNSpid:");
    if (line == NULL)
        return fail("read", "status: NSpid", EPROTO);
    line += strlen("\nNSpid:");
    line[strcspn(line, "\n")] = '\0';
    fputs("\"nspid\":[", stdout);
    const char *separator = "";
    char *state;
    for (char *word = strtok_r(line, " \t", &state); word != NULL; word = strtok_r(NULL, " \t", &state)) {
        uint64_t pid;
        if (!parse_number(word, INT32_MAX, &pid))
            return fail("read", "status: NSpid", EPROTO);
        printf("%s%llu", separator, (unsigned long long)pid);
        separator = ",";
    }
    fputs("]", stdout);
    return 0;
}

/* Prints what identifies the process, once it was found. */
static int print_identity(const struct target *target, struct identity *identity) {
    const char *failed = read_identity(target, identity);
    if (failed != NULL)
        return target_alive(target) != 0 ? EXIT_FAILED : fail("read namespace", failed, errno);
    printf("{\"pid\":%d,\"start\":%llu,", target->pid, (unsigned long long)target->start);
    if (print_namespace_pids(target) != 0)
        return EXIT_FAILED;
    fputs(",\"ns\":{", stdout);
    for (size_t i = 0; i < NAMESPACE_COUNT; i++)
        printf("%s\"%s\":%llu", i == 0 ? "" : ",", namespaces[i], (unsigned long long)identity->inodes[i]);
    fputs("}}\n", stdout);
    return finish();
}

/* `check`: the same process, still alive, still in the same namespaces. Answers on stdout either way. */
static void answer_check(const struct target *target, const struct identity *pinned) {
    char name[24];
    uint64_t start = 0;
    struct identity now = {0};
    snprintf(name, sizeof name, "%d", target->pid);
    const char *failed = NULL;
    if (target_lives(target) && process_start(target->procdir, &start) && start == target->start)
        failed = read_identity(target, &now);
    if (!target_lives(target) || start != target->start) {
        report(stdout, "TARGET_GONE", "check", name, 0, "process %d is gone", target->pid);
        return;
    }
    if (failed != NULL) {
        report(stdout, NULL, "check", name, errno, "reading a namespace failed: %s: %s", failed, strerror(errno));
        return;
    }
    for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
        if (now.inodes[i] != pinned->inodes[i]) {
            report(stdout, "TARGET_GONE", "check", name, 0, "process %d has changed its namespace: %s", target->pid,
                   namespaces[i]);
            return;
        }
    }
    puts("{\"alive\":true}");
}

/* Carries out one command line. What fails is answered on stdout, because the conversation goes on. */
static void answer(const struct target *target, const struct identity *pinned, const char *line) {
    uint64_t number;
    if (strcmp(line, "check") == 0) {
        answer_check(target, pinned);
    } else if (strncmp(line, "signal ", 7) == 0 && parse_number(line + 7, 64, &number) && number > 0) {
        if (pidfd_send_signal(target->pidfd, (int)number, NULL, 0) == 0)
            printf("{\"signalled\":%llu}\n", (unsigned long long)number);
        else
            report(stdout, errno == ESRCH ? "TARGET_GONE" : NULL, "pidfd_send_signal", line + 7, errno, NULL);
    } else {
        report(stdout, NULL, "command", line, 0, "unknown command: %s", line);
    }
    fflush(stdout);
}

struct input {
    char line[LINE_SIZE];
    size_t length;
    bool overlong;
};

/* Takes what stdin has and answers the complete lines. Returns false at its end. */
static bool take_input(struct input *input, const struct target *target, const struct identity *pinned) {
    char chunk[512];
    ssize_t got = read(STDIN_FILENO, chunk, sizeof chunk);
    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    for (ssize_t i = 0; i < got; i++) {
        if (chunk[i] == '\n') {
            input->line[input->length] = '\0';
            answer(target, pinned, input->overlong ? "line too long" : input->line);
            input->length = 0;
            input->overlong = false;
        } else if (input->length < sizeof input->line - 1) {
            input->line[input->length++] = chunk[i];
        } else {
            input->overlong = true;
        }
    }
    return got > 0;
}

/*
 * The wait status of a process that has ended. While it is a zombie, field 52 of stat has it; once reaped, the kernel may tell through
 * the pidfd. It is reaped between two looks at most once, so the pidfd is asked again.
 */
static bool read_exit_status(const struct target *target, int *status) {
    if (pidfd_exit_status(target->pidfd, status))
        return true;
    char stat[4096];
    if (target_read(target, "stat", stat, sizeof stat) > 0) {
        const char *state = strrchr(stat, ')');
        char *last = strrchr(stat, ' ');
        uint64_t number;
        if (state != NULL && last > state && (state[2] == 'Z' || state[2] == 'X')) {
            last[strcspn(last, "\n")] = '\0';
            if (parse_number(last + 1, UINT16_MAX, &number)) {
                *status = (int)number;
                return true;
            }
        }
    }
    return pidfd_exit_status(target->pidfd, status);
}

/* Prints that the process has ended, and how. */
static int print_exit(const struct target *target) {
    int status;
    if (read_exit_status(target, &status))
        printf("{\"exited\":true,\"status\":%d}\n", status);
    else
        puts("{\"exited\":true,\"status\":null}");
    return finish();
}

/* `pin`: holds one process, answers about it and says when and how it ended. */
int verb_pin(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {
        {"pid", OPTION_NUMBER, true, &options.pid, "N"},
        {"start", OPTION_NUMBER, false, &options.start, "TICKS"},
        {"proc", OPTION_STRING, false, &options.proc, "DIR"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    cleanup_target struct target target = TARGET_NONE;
    struct identity identity = {0};
    if (target_open_options(&target, &options) != 0 || print_identity(&target, &identity) != 0)
        return EXIT_FAILED;
    struct input input = {0};
    for (;;) {
        struct pollfd events[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = target.pidfd, .events = POLLIN}};
        if (poll(events, 2, -1) < 0 && errno != EINTR)
            return fail("poll", "pidfd", errno);
        if (events[1].revents != 0)
            return print_exit(&target);
        if (events[0].revents != 0 && !take_input(&input, &target, &identity))
            return 0;
    }
}
