/* Becoming another program, and not outliving the one that asked for it. */
#ifndef SNAPSHOT_RESTORE_CHILD_H
#define SNAPSHOT_RESTORE_CHILD_H

#include <sys/types.h>

/*
 * Asks the kernel for SIGKILL when the parent ends, and then checks that it is still PARENT: it may have ended before the kernel was asked. Returns 0,
 * or 1 after reporting.
 */
int die_with_parent(pid_t parent);

/* Makes every descriptor from 3 on close-on-exec, also those that the caller has left open by mistake. Returns 0, or 1 after reporting. */
int keep_standard_only(void);

/* Executes ARGV[0]; a name without a slash is looked for in the usual directories, never in $PATH. Returns 1 after reporting. */
int execute(char **argv);

#endif
