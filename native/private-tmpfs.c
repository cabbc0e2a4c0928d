#include "common.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

/* A new tmpfs of at most SIZE bytes, not attached anywhere. Returns its descriptor or -1 after reporting. */
static int make_tmpfs(uint64_t size) {
    char bytes[24];
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)size);
    cleanup_close int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (context < 0)
        return fail("fsopen", "tmpfs", errno), -1;
    if (fsconfig(context, FSCONFIG_SET_STRING, "size", bytes, 0) != 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "mode", "0700", 0) != 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0)
        return fail("fsconfig", bytes, errno), -1;
    int tree = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (tree < 0)
        fail("fsmount", "tmpfs", errno);
    return tree;
}

/* `private-tmpfs`: memory of the agent's own, which nothing propagates out of and nobody else can enter. */
int verb_private_tmpfs(int argc, char **argv) {
    const char *at = NULL;
    uint64_t size = 0;
    const struct option_spec specs[] = {
        {"at", OPTION_STRING, true, &at, "DIR"},
        {"size", OPTION_NUMBER, true, &size, "BYTES"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    if (size == 0) /* which tmpfs would take for "no limit" */
        return usage_error(specs, NULL, "malformed value: --size must not be 0");
    cleanup_close int place = open(at, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (place < 0)
        return fail("open", at, errno);
    cleanup_close int tree = make_tmpfs(size);
    if (tree < 0)
        return EXIT_FAILED;
    if (move_mount(tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
        return fail("move_mount", at, errno);
    /* Only now: a mount that is attached below a shared one becomes shared by that. */
    struct mount_attr attributes = {.propagation = MS_PRIVATE};
    if (mount_setattr(tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
        int err = errno;
        umount2(at, MNT_DETACH | UMOUNT_NOFOLLOW);
        return fail("mount_setattr", at, err);
    }
    puts("{}");
    return finish();
}
