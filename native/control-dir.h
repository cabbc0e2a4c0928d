/* A file of a directory inside a container: what put, look and remove share. */
#ifndef SNAPSHOT_CONTROL_DIR_H
#define SNAPSHOT_CONTROL_DIR_H

#include "target.h"

struct control_options {
    struct target_options target;
    const char *dir;
    const char *name;
};

#define CONTROL_OPTIONS_NONE ((struct control_options){.target = TARGET_OPTIONS_NONE})
#define CONTROL_OPTIONS(options)                                                                                       \
    TARGET_OPTIONS((options).target, true), {"dir", OPTION_STRING, true, &(options).dir, "D"}, {                       \
        "name", OPTION_STRING, true, &(options).name, "F"                                                              \
    }

/* Whether the name is one component of at most 200 bytes, so that a temporary name beside it still fits. */
bool is_file_name(const char *name);

/*
 * Opens the target and then the directory inside its root, following no symlink. DIRECTORY is -1 when there is no such directory.
 * Returns 0, or 1 after reporting.
 */
int open_control_dir(struct target *target, const struct control_options *options, int *directory);

#endif
