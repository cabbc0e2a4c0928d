/* Joining the target's cgroups. */
#ifndef SNAPSHOT_CGROUP_H
#define SNAPSHOT_CGROUP_H

#include "target.h"

/*
 * Moves this process into each cgroup of the target, below ROOT: v1 controllers by directory name, `name=systemd` as `systemd`, the v2 line under
 * `unified` where there is one, else ROOT itself. Whatever is not joined would keep what is restored in the caller's cgroup, to be accounted and
 * killed with it: so each failure is one. Returns 0, or 1 after reporting.
 */
int join_cgroups(const struct target *target, const char *root);

/*
 * As join_cgroups, but only where it is decided which devices may be opened: the v1 hierarchy of that controller, and v2. That there is none is a
 * failure too. Reports on ERRORS.
 */
int join_device_cgroups(const struct target *target, const char *root, FILE *errors);

#endif
