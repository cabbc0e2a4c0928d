/*
 * Faults that tests have the stand-in libraries make. Each file in the directory `faults` is one, and is looked for at every call, in the
 * order of the files' names:
 *
 *   CALL SELECTOR ACTION [ARGUMENT] [after] [once]
 *
 * CALL is the name of the function. SELECTOR is the PID of the process that is acted upon, as the caller gives it; or an argument of that
 * process's command line (such as the name of a worker); or the UUID of a GPU, for NVML; or * for any. ACTION is
 *
 *   error N     the call returns N
 *   hang        the call never returns
 *   delay N     the call takes N milliseconds longer
 *   timeout     as a lock that some work on the GPU does not let through: returns "not ready" after the caller's time limit, or hangs
 *   abort       the library ends its process by SIGABRT
 *   signal N    the process that is acted upon gets this signal
 *   spawn       the process that is acted upon starts another CUDA process; the call goes on when it is there
 *
 * With `after`, the call is carried out first, and the fault follows if that went well. With `once`, the fault is made once only. A call
 * that none of its faults ended is carried out.
 */
#ifndef STANDIN_FAULTS_H
#define STANDIN_FAULTS_H

#include <stdbool.h>
#include <sys/types.h>

/* Whom a call is about: a process or a GPU, or neither. */
struct subject {
    pid_t pid;
    const char *uuid;
    unsigned timeout_ms; /* of a lock */
};

/* Makes the faults of this call. Returns 0 when the call goes on, else the error it ends with. */
int make_faults(const char *call, const struct subject *subject, bool after);

#endif
