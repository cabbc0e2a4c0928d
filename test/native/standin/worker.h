/* standin-worker: a process that stands for a CUDA process. See worker.c. */
#ifndef STANDIN_WORKER_H
#define STANDIN_WORKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>

#include "standin.h"

/* Where the driver keeps the content of device memory while a process is checkpointed. */
enum host_copy { COPY_PRIVATE, COPY_SHARED, COPY_MEMFD };

/* A GPU that the process sees: one of its device nodes. */
struct seen_gpu {
    char uuid[STANDIN_UUID];     /* the one it is now */
    char reported[STANDIN_UUID]; /* the one it was when the process started: what CUDA goes on reporting */
    int node;                    /* the device node, or what is in its place while checkpointed; -1 for a character device */
    void *mapping;               /* of the device node; NULL if there is none */
};

/* Memory on one GPU, or the copy of it. */
struct allocation {
    size_t gpu; /* index among the GPUs that are seen */
    size_t bytes;
    uint64_t *device; /* NULL while checkpointed */
    char *path;
    int file;
    void *copy; /* NULL while not checkpointed */
    int copy_file;
};

struct worker {
    enum host_copy host_copy;
    struct seen_gpu seen[STANDIN_GPUS];
    size_t seen_count;
    struct allocation allocations[STANDIN_GPUS];
    size_t allocation_count;
    bool peer_access;   /* it cannot be restored */
    bool out_of_memory; /* a restore once failed for want of memory: none will succeed */
    enum standin_state state;
    sem_t serving;        /* posted once the restore thread can be found */
    pthread_mutex_t work; /* held by whoever may touch device memory; kept while the process is locked */
};

/* Finds the device nodes. */
void worker_find_gpus(struct worker *worker);

/* Takes BYTES of memory on the GPU with this index. Returns 0 or an error of the driver. */
int worker_allocate(struct worker *worker, size_t gpu, size_t bytes);

/* Copies device memory to the host and lets go of every device. Returns 0 or an error of the driver. */
int worker_save(struct worker *worker);

/* Takes devices again and copies back. MAP is OLD=NEW,…, or empty. Returns 0 or an error of the driver. */
int worker_restore(struct worker *worker, char *map);

/* The restore thread: carries out what the libraries command. */
void *worker_serve(void *worker);

#endif
