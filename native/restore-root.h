/* Finding the host PID of what was restored. */
#ifndef SNAPSHOT_RESTORE_ROOT_H
#define SNAPSHOT_RESTORE_ROOT_H

#include <stdint.h>
#include <sys/types.h>

#include "target.h"

struct restored_root {
    pid_t pid;
    uint64_t start;
    uint64_t inner;
};

/*
 * Reads the PID that PROGRAM wrote to PIDFILE, as numbered in the placeholder's PID namespace (PIDNS: its inode), and finds the process of
 * PROCFS (a descriptor of the host's) that has this number there and is the first of a PID namespace of its own, a child of that one. Returns 0, or 1 after
 * reporting: code ROOT_NOT_FOUND when there is no such process.
 */
int find_restored(int procfs, const struct target *placeholder, ino_t pidns, const char *pidfile,
                  struct restored_root *found);

#endif
