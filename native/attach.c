#include "common.h"
#include "target.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* One line of mountinfo, as far as it is of interest. The strings point into the line. */
struct mount_line {
    const char *device;
    const char *fstype;
};

/* Takes the device and the filesystem type out of LINE when it is that of mount ID. */
static bool parse_mount_line(char *line, uint64_t id, struct mount_line *mount) {
    char *state, *words[3];
    char *separator = strstr(line, " - ");
    if (separator == NULL)
        return false;
    *separator = '\0';
    for (size_t i = 0; i < 3; i++)
        if ((words[i] = strtok_r(i == 0 ? line : NULL, " ", &state)) == NULL)
            return false;
    uint64_t found;
    if (!parse_number(words[0], UINT64_MAX, &found) || found != id)
        return false;
    mount->device = words[2];
    mount->fstype = strtok_r(separator + 3, " \n", &state);
    return mount->fstype != NULL;
}

/* Prints what was attached: TREE is the attached mount. Returns 0, or 1 after reporting. */
static int print_mount(int tree, const char *path) {
    uint64_t id;
    struct statvfs status;
    if (mount_id(tree, &id) != 0 || fstatvfs(tree, &status) != 0)
        return fail("statx", path, errno);
    cleanup_file FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts == NULL)
        return fail("open", "/proc/self/mountinfo", errno);
    cleanup_free char *line = NULL;
    size_t size = 0;
    struct mount_line mount = {0};
    while (mount.fstype == NULL) {
        if (getline(&line, &size, mounts) < 0)
            return fail_code(NULL, "mountinfo", path, 0, "the mount of %s is not in mountinfo", path);
        parse_mount_line(line, id, &mount);
    }
    printf("{\"mountId\":%llu,\"fstype\":", (unsigned long long)id);
    json_string(stdout, mount.fstype);
    printf(",\"device\":");
    json_string(stdout, mount.device);
    printf(",\"readOnly\":%s}\n", (status.f_flag & ST_RDONLY) != 0 ? "true" : "false");
    return finish();
}

/* Puts the clone TREE on PLACE, without anything in it that could lead out of it. Returns 0, or 1 after reporting. */
static int attach_tree(int tree, int place, const char *path, const char *at) {
    struct mount_attr restrict_all = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW,
        .propagation = MS_PRIVATE,
    };
    struct mount_attr make_private = {.propagation = MS_PRIVATE};
    if (mount_setattr(tree, "", AT_EMPTY_PATH, &restrict_all, sizeof restrict_all) != 0)
        return fail("mount_setattr", path, errno);
    if (move_mount(tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
        return fail("move_mount", at, errno);
    /* A mount that is attached below a shared one becomes shared by that, so it is made private once more. */
    int rc = mount_setattr(tree, "", AT_EMPTY_PATH, &make_private, sizeof make_private) != 0
                 ? fail("mount_setattr", at, errno)
                 : print_mount(tree, path);
    if (rc != 0)
        umount2(at, MNT_DETACH | UMOUNT_NOFOLLOW);
    return rc;
}

/* `attach`: the one door to storage. */
int verb_attach(int argc, char **argv) {
    const char *path = NULL, *at = NULL;
    bool create = false;
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {
        {"path", OPTION_STRING, true, &path, "P"},
        {"at", OPTION_STRING, true, &at, "DIR"},
        {"create", OPTION_FLAG, false, &create, "0|1"},
        TARGET_OPTIONS(options, false),
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    bool targeted = target_named(&options);
    if (targeted && (options.pid == 0 || options.start == START_ANY))
        return usage_error(specs, NULL, "missing option: --pid and --start go together");
    cleanup_target struct target target = TARGET_NONE;
    if (targeted && target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    cleanup_close int place = open(at, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (place < 0)
        return fail("open", at, errno);
    int flags = (create ? CLONE_TREE_CREATE : 0) | (targeted ? CLONE_TREE_VOLUME : 0);
    cleanup_close int tree = clone_mount(targeted ? &target : NULL, path, flags);
    if (tree < 0)
        return EXIT_FAILED;
    return attach_tree(tree, place, path, at);
}
