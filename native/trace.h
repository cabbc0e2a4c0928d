/* Holding a thread of another process by ptrace, for the shortest time. */
#ifndef SNAPSHOT_TRACE_H
#define SNAPSHOT_TRACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "target.h"

/* The most threads of one process that are looked at. */
enum { THREAD_LIMIT = 65536 };

/* Milliseconds of a clock that only goes forward. */
long monotonic_ms(void);

/*
 * Waits until the traced thread stops or ends, at most until DEADLINE_MS. Returns 0 with its wait status, or -1 with errno: ETIMEDOUT, or
 * ESRCH when it has ended.
 */
int trace_wait(pid_t thread, long deadline_ms, int *status);

/*
 * Seizes the thread and stops it within LIMIT_MS, also out of a group stop. OPTIONS: PTRACE_O_*. Returns 0, or -1 with errno; then the
 * thread runs on, at the latest when this process ends (the kernel detaches all that it traces).
 */
int trace_stop(pid_t thread, unsigned long options, long limit_ms);

/* Lets the thread go on as it was; a group stop it was in goes on too. */
void trace_release(pid_t thread);

/*
 * Lists the thread ids of the target, its main thread first. Returns how many, with *THREADS to be freed, or -1 after reporting.
 */
ssize_t list_threads(const struct target *target, pid_t **threads);

#endif
