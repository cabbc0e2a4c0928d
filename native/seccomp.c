#include "common.h"
#include "target.h"
#include "trace.h"
#include "verbs.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ptrace.h>

/* What the kernel allows along one path: 32768 instructions, each filter counted with four more. */
enum { FILTER_LIMIT = 32768 / 5, STOP_LIMIT_MS = 2000 };

/* The filter INDEX of the stopped thread; 0 is the oldest (ptrace(2) says the newest, the kernel does otherwise). Returns its number of instructions, 0 when there is none, or -1 with errno. */
static long read_filter(pid_t thread, unsigned long index, struct sock_filter *filter) {
    long count = ptrace(PTRACE_SECCOMP_GET_FILTER, thread, (void *)index, filter);
    return count < 0 && errno == ENOENT ? 0 : count;
}

/* Prints mode and filters of the stopped thread, oldest first. Returns 0, or 1 after reporting. */
static int print_filters(pid_t thread, uint64_t mode) {
    static struct sock_filter filter[BPF_MAXINSNS];
    printf("{\"mode\":%llu,\"filters\":[", (unsigned long long)mode);
    for (unsigned long index = 0; mode == SECCOMP_MODE_FILTER && index < FILTER_LIMIT; index++) {
        long length = read_filter(thread, index, filter);
        if (length < 0)
            return fail("PTRACE_SECCOMP_GET_FILTER", "filter", errno);
        if (length == 0)
            break;
        fputs(index > 0 ? ",\"" : "\"", stdout);
        const unsigned char *bytes = (const unsigned char *)filter;
        for (size_t i = 0; i < (size_t)length * sizeof *filter; i++)
            printf("%02x", bytes[i]);
        fputc('"', stdout);
    }
    puts("]}");
    return 0;
}

/* The target's seccomp mode as its status file says. Returns 0, or 1 after reporting. */
static int read_mode(const struct target *target, uint64_t *mode) {
    char status[8192];
    if (target_read(target, "status", status, sizeof status) < 0)
        return fail("read", "status", errno);
    char *line = strstr(status, "\nSeccomp:");
    if (line == NULL)
        return fail("read", "status: Seccomp", EPROTO);
    line += strlen("\nSeccomp:");
    line += strspn(line, " \t");
    line[strcspn(line, "\n")] = '\0';
    return parse_number(line, 2, mode) ? 0 : fail("read", "status: Seccomp", EPROTO);
}

/* `seccomp`: mode and filters of the target's main thread. */
int verb_seccomp(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {TARGET_OPTIONS(options, true), {0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0 || target_alive(&target) != 0)
        return EXIT_FAILED;
    char name[24];
    snprintf(name, sizeof name, "%d", target.pid);
    if (trace_stop(target.pid, 0, STOP_LIMIT_MS) != 0)
        return fail("ptrace", name, errno);
    /* Read while it is stopped, so that mode and filters are of one moment. */
    uint64_t mode = 0;
    rc = target_alive(&target) != 0 || read_mode(&target, &mode) != 0 ? EXIT_FAILED : print_filters(target.pid, mode);
    trace_release(target.pid);
    return rc != 0 ? rc : finish();
}
