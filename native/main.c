#include "common.h"

#include <libgen.h>
#include <string.h>
#include <sys/prctl.h>

#include "verbs.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"probe", verb_probe},
    {"lock", verb_lock},
    {"pin", verb_pin},
    {"signal", verb_signal},
    {"private-tmpfs", verb_private_tmpfs},
    {"attach", verb_attach},
    {"detach", verb_detach},
    {"put", verb_put},
    {"look", verb_look},
    {"remove", verb_remove},
    {"devices", verb_devices},
    {"graft", verb_graft},
    {"ipc-usage", verb_ipc_usage},
    {"seccomp", verb_seccomp},
    {"block-signal", verb_block_signal},
    {"inject-exit", verb_inject_exit},
    {"arm", verb_arm},
    {"capture", verb_capture},
    {"apply", verb_apply},
    {"dump", verb_dump},
    {"restore", verb_restore},
    {"bulk-write", verb_bulk_write},
    {"bulk-fill", verb_bulk_fill},
    {"prefetch", verb_prefetch},
};

enum { VERB_COUNT = sizeof verbs / sizeof verbs[0] };

/* Prints what is wrong and the list of verbs; returns 2. */
static int unknown_verb(const char *name) {
    if (name != NULL)
        fprintf(stderr, "unknown verb: %s\n", name);
    fputs("usage: snapshot-helper VERB --option value … [-- ARGV…]\nverbs:", stderr);
    for (size_t i = 0; i < VERB_COUNT; i++)
        fprintf(stderr, " %s", verbs[i].name);
    fputc('\n', stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc > 0 && strcmp(basename(argv[0]), "snapshot-hook") == 0) {
        current_verb = "hook";
        return run_hook();
    }
    if (argc < 2)
        return unknown_verb(NULL);
    /* Before any namespace is joined, so that nothing inside it can trace this process or read its descriptors. */
    if (prctl(PR_SET_DUMPABLE, 0) != 0)
        return fail("prctl", "PR_SET_DUMPABLE", 0);
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            current_verb = verbs[i].name;
            return verbs[i].run(argc - 1, argv + 1);
        }
    }
    return unknown_verb(argv[1]);
}
