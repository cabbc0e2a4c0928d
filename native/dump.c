/* dump: joins namespaces of the target, then becomes PROGRAM. What the joined namespaces hold is then not dumped. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "restore-child.h"
#include "target.h"
#include "verbs.h"

/* Joins each namespace of a comma-separated list; only ipc and uts make sense. Returns 0, 1 after reporting, or 2 when malformed. */
static int join_listed(const struct target *target, const char *list) {
    while (*list != '\0') {
        size_t length = strcspn(list, ",");
        bool ipc = length == 3 && strncmp(list, "ipc", 3) == 0;
        bool uts = length == 3 && strncmp(list, "uts", 3) == 0;
        if (!ipc && !uts)
            return EXIT_USAGE;
        if (target != NULL) {
            const char *name = ipc ? "ipc" : "uts";
            cleanup_close int namespace = target_namespace(target, name);
            if (namespace < 0)
                return EXIT_FAILED;
            if (setns(namespace, ipc ? CLONE_NEWIPC : CLONE_NEWUTS) != 0)
                return fail("setns", name, errno);
        }
        list += length;
        if (*list == ',' && *++list == '\0')
            return EXIT_USAGE;
    }
    return 0;
}

int verb_dump(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const char *join = "";
    struct operands program;
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"join", OPTION_STRING, false, &join, "ipc,uts"},
        {0},
    };
    const char *hint = "-- PROGRAM ARGV…";
    pid_t parent = getppid();
    int result = parse_options(argc, argv, specs, &program, hint);
    if (result != 0)
        return result;
    if (program.count == 0 || join_listed(NULL, join) != 0)
        return usage_error(specs, hint, "needs a program, and --join of ipc and uts");
    if (die_with_parent(parent) != 0 || keep_standard_only() != 0)
        return EXIT_FAILED;
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0 || join_listed(&target, join) != 0 || target_alive(&target) != 0)
        return EXIT_FAILED;
    return execute(program.items);
}
