/*
 * The part of the CUDA driver API that checkpoints other processes, as of CUDA 13.0 (driver 580). Declared here, so that no toolkit is
 * needed to build. The driver asks that whatever is reserved be zero.
 */
#ifndef SNAPSHOT_CUDA_DRIVER_H
#define SNAPSHOT_CUDA_DRIVER_H

#include <stdint.h>
#include <stdio.h>

#include "cuda-library.h"

enum { DRIVER_OK = 0, DRIVER_NO_DEVICE = 100 };

enum process_state { STATE_RUNNING, STATE_LOCKED, STATE_CHECKPOINTED, STATE_FAILED, STATE_COUNT };

struct gpu_uuid {
    unsigned char bytes[16];
};

struct gpu_pair {
    struct gpu_uuid old;
    struct gpu_uuid new;
};

struct lock_arguments {
    unsigned timeout_ms; /* 0: waits for ever */
    unsigned reserved;
    uint64_t reserved_more[7];
};

struct restore_arguments {
    const struct gpu_pair *pairs;
    unsigned pair_count;
    unsigned reserved;
    uint64_t reserved_more[6];
};

struct no_arguments {
    uint64_t reserved[8];
};

_Static_assert(sizeof(struct gpu_pair) == 32, "CUcheckpointGpuPair");
_Static_assert(sizeof(struct lock_arguments) == 64, "CUcheckpointLockArgs");
_Static_assert(sizeof(struct restore_arguments) == 64, "CUcheckpointRestoreArgs");
_Static_assert(sizeof(struct no_arguments) == 64, "CUcheckpointCheckpointArgs, CUcheckpointUnlockArgs");

/* What was found in libcuda. Every function returns DRIVER_OK or an error that `error_name` knows. */
struct driver {
    struct library library;
    int (*init)(unsigned flags);
    int (*get_version)(int *version);
    int (*error_name)(int error, const char **name);
    int (*error_text)(int error, const char **text);
    int (*restore_thread)(int pid, int *tid);
    int (*state)(int pid, int *state);
    int (*lock)(int pid, struct lock_arguments *arguments);
    int (*checkpoint)(int pid, struct no_arguments *arguments);
    int (*restore)(int pid, struct restore_arguments *arguments);
    int (*unlock)(int pid, struct no_arguments *arguments);
};

/*
 * Opens and initialises the driver. Returns NULL and the version of its API; or, after printing the line that says why there is no
 * driver, the reason in it.
 */
const char *driver_open(struct driver *driver, const struct option_list *candidates, int *version, FILE *out);

/* Writes the members `error`, `name` and `text` of an error of the driver. */
void driver_print_error(const struct driver *driver, int error, FILE *out);

#endif
