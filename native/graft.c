#include "common.h"
#include "target.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* A device node of the one container, and its place in the other. */
struct graft {
    const char *path;
    int node;
    int place;
    int clone;
};

struct grafts {
    struct graft *items;
    int count;
};

static void close_grafts(const struct grafts *grafts) {
    for (int i = 0; i < grafts->count; i++) {
        const int descriptors[] = {grafts->items[i].node, grafts->items[i].place, grafts->items[i].clone};
        for (size_t j = 0; j < sizeof descriptors / sizeof descriptors[0]; j++)
            if (descriptors[j] >= 0)
                close(descriptors[j]);
    }
    free(grafts->items);
}

/* Opens a node and its place. Only character devices are grafted: nothing else leads from one container into another. */
static int open_graft(struct graft *graft, int from_root, int into_root) {
    struct stat node, place;
    graft->node = open_in_root(from_root, graft->path, O_PATH);
    if (graft->node < 0)
        return fail_open("open", graft->path, errno);
    graft->place = open_in_root(into_root, graft->path, O_PATH);
    if (graft->place < 0)
        return fail_open("open", graft->path, errno);
    if (fstat(graft->node, &node) != 0 || fstat(graft->place, &place) != 0)
        return fail("stat", graft->path, errno);
    if (!S_ISCHR(node.st_mode))
        return fail_code("NOT_A_DEVICE", "stat", graft->path, 0, "%s is no character device", graft->path);
    if (S_ISDIR(place.st_mode))
        return fail_code("NOT_A_DEVICE", "stat", graft->path, 0, "%s is a directory where it is to be put", graft->path);
    return 0;
}

/* Clones all nodes in the namespace that they are in. The caller joins it; one after the other, as joining closes the way back. */
static int clone_all(const struct grafts *grafts, int namespace) {
    if (setns(namespace, CLONE_NEWNS) != 0)
        return fail("setns", "mnt", errno);
    for (int i = 0; i < grafts->count; i++) {
        struct graft *graft = &grafts->items[i];
        graft->clone = open_tree(graft->node, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (graft->clone < 0)
            return fail("open_tree", graft->path, errno);
    }
    return 0;
}

static int put_all(const struct grafts *grafts, int namespace) {
    struct mount_attr make_private = {.propagation = MS_PRIVATE};
    if (setns(namespace, CLONE_NEWNS) != 0)
        return fail("setns", "mnt", errno);
    for (int i = 0; i < grafts->count; i++) {
        const struct graft *graft = &grafts->items[i];
        if (mount_setattr(graft->clone, "", AT_EMPTY_PATH, &make_private, sizeof make_private) != 0)
            return fail("mount_setattr", graft->path, errno);
        if (move_mount(graft->clone, "", graft->place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
            return fail("move_mount", graft->path, errno);
    }
    return 0;
}

static int graft_all(struct grafts *grafts, const struct target *from, const struct target *into) {
    cleanup_close int from_root = target_root(from);
    cleanup_close int into_root = target_root(into);
    cleanup_close int from_mnt = target_namespace(from, "mnt");
    cleanup_close int into_mnt = target_namespace(into, "mnt");
    if (from_root < 0 || into_root < 0 || from_mnt < 0 || into_mnt < 0)
        return EXIT_FAILED;
    if (target_alive(from) != 0 || target_alive(into) != 0)
        return EXIT_FAILED;
    for (int i = 0; i < grafts->count; i++)
        if (open_graft(&grafts->items[i], from_root, into_root) != 0)
            return EXIT_FAILED;
    if (clone_all(grafts, from_mnt) != 0 || put_all(grafts, into_mnt) != 0)
        return EXIT_FAILED;
    printf("{\"grafted\":%d}\n", grafts->count);
    return finish();
}

/* `graft`: device nodes that are mounted in one container are mounted at the same places in another mount namespace. */
int verb_graft(int argc, char **argv) {
    static const char hint[] = "PATH…";
    struct target_options options = TARGET_OPTIONS_NONE;
    const char *into_text = NULL;
    struct operands paths;
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"into", OPTION_STRING, true, &into_text, "PID:START"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, &paths, hint);
    if (rc != 0)
        return rc;
    uint64_t pid, start;
    if (!parse_process(into_text, &pid, &start))
        return usage_error(specs, hint, "malformed process: %s", into_text);
    struct target_options into_options = {.pid = pid, .start = start, .proc = options.proc};
    cleanup_target struct target from = TARGET_NONE;
    cleanup_target struct target into = TARGET_NONE;
    if (target_open_options(&from, &options) != 0 || target_open_options(&into, &into_options) != 0)
        return EXIT_FAILED;
    struct grafts grafts = {calloc((size_t)paths.count + 1, sizeof *grafts.items), paths.count};
    if (grafts.items == NULL)
        return fail("calloc", "paths", errno);
    for (int i = 0; i < paths.count; i++)
        grafts.items[i] = (struct graft){.path = paths.items[i], .node = -1, .place = -1, .clone = -1};
    rc = graft_all(&grafts, &from, &into);
    close_grafts(&grafts);
    return rc;
}
