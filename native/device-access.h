/* Whether the cgroups of a container let device nodes be opened. */
#ifndef SNAPSHOT_DEVICE_ACCESS_H
#define SNAPSHOT_DEVICE_ACCESS_H

#include <sys/types.h>

#include "target.h"

/* More nodes than these are not tried: each is opened. */
enum { TRIAL_LIMIT = 256, NOT_TRIED = -1 };

/* A node that is to be opened, and what came of it. */
struct trial {
    int node; /* O_PATH */
    dev_t number;
    int outcome; /* NOT_TRIED; 0: it was opened; else the errno */
};

/*
 * Opens each node, and closes it at once, as a process of the target's cgroups could: by a child that joins them and then ends. Where nodes stay
 * NOT_TRIED, *WHY becomes the error line that says why, without its newline; else NULL. Returns 0, or 1 after reporting.
 */
int try_devices(const struct target *target, const char *cgroup_root, struct trial *trials, size_t count,
                const char **why);

#endif
