/* N threads over one list of blocks; the first failure stops all of them. */
#ifndef SNAPSHOT_BULK_WORK_H
#define SNAPSHOT_BULK_WORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_THREADS = 256 };

struct work {
    void *context;
    void (*run)(struct work *work, size_t thread); /* returns when there is nothing left or work_failed() */
    size_t threads;
    atomic_bool failed;
    _Atomic uint64_t done_bytes;
    pthread_t ids[MAX_THREADS];
    size_t started;
    size_t running;
    pthread_mutex_t lock;
    pthread_cond_t ended;
};

/* Checks a --threads value: 1 to MAX_THREADS. */
bool work_threads_valid(uint64_t threads);

/* Starts the threads. Returns 0, or 1 after reporting. work_wait must follow in either case. */
int work_start(struct work *work, size_t threads, void (*run)(struct work *work, size_t thread), void *context);

/* Waits for all of them; with PROGRESS, a line {"done":bytes} on stdout every 200 ms. Returns 0, or 1 when one has failed (and has reported it). */
int work_wait(struct work *work, bool progress);

/* True for the first who asks: who then reports its failure. Stops the others. */
bool work_fail(struct work *work);

/* Whether to stop. */
bool work_failed(struct work *work);

#endif
