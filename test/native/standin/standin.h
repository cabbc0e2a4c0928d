/*
 * What the tests put in the place of a GPU and its driver: libcuda.so.1, libnvidia-ml.so.1, and a process that stands for a CUDA process
 * (standin-worker). Nothing of it ships. Everything they share lies in one directory, named by SNAPSHOT_STANDIN_DIR for the libraries and
 * for the workers, by whatever path each of them sees it at:
 *
 *   driver          the driver's version, "580.159.04" if missing
 *   api             what cuDriverGetVersion says, 13000 if missing
 *   gpus            the node's GPUs, one a line: UUID MINOR BUS_ID BYTES MIG MPS VIRTUALIZATION NAME…, separated by one space.
 *                   MIG and MPS are 0 or 1, VIRTUALIZATION is NVML's number; each is "-" where the function is to answer "not supported".
 *                   Missing or empty: cuInit says that there is no device
 *   dev/nvidiaN     what a worker has for device nodes: files whose first line is the UUID of a GPU. A worker looks for them in
 *                   SNAPSHOT_STANDIN_DEV instead, if that is set: such a file can be mounted at /dev/nvidia0 of a container. A character
 *                   device is the GPU with its minor number, and is neither opened nor mapped
 *   memory/UUID/X   the memory in use on a GPU. What a process has there is freed when it ends, or when it is checkpointed
 *   faults/X        one fault a file, see faults.h
 *   commands, answers  how the libraries reach the workers, see libcuda.c
 *
 * A CUDA process is one that has a thread whose name says so, and in which state the process is: "standin:running", "standin:locked",
 * "standin:saved" (checkpointed) or "standin:failed". Names of threads live through a dump and a restore by CRIU, no child inherits them by
 * fork, and any PID namespace shows them. That thread is the restore thread.
 */
#ifndef STANDIN_H
#define STANDIN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { STANDIN_TEXT = 256, STANDIN_GPUS = 16, STANDIN_UUID = 64, STANDIN_FIELD = 32, STANDIN_NAME = 96 };

/* Errors of the driver that the stand-in gives of its own accord. */
enum {
    CUDA_OK = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_NOT_INITIALIZED = 3,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_DEVICE = 101,
    CUDA_OPERATING_SYSTEM = 304,
    CUDA_ILLEGAL_STATE = 401,
    CUDA_NOT_READY = 600,
    CUDA_UNKNOWN = 999,
};

enum standin_state { STANDIN_RUNNING, STANDIN_LOCKED, STANDIN_SAVED, STANDIN_FAILED, STANDIN_STATES };

struct standin_gpu {
    char uuid[STANDIN_UUID];
    unsigned minor;
    char bus_id[STANDIN_FIELD];
    unsigned long long bytes;
    char mig[STANDIN_FIELD];
    char mps[STANDIN_FIELD];
    char virtualization[STANDIN_FIELD];
    char name[STANDIN_NAME];
};

/* A path below the directory. Ends the process when the directory is not named. The text is the caller's to free. */
char *standin_path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Reads the first line of a file, without its newline. Returns false where there is none. */
bool standin_line(const char *path, char *line, size_t size);

/* Writes a file whole or not at all, under its name at once. Returns false where that fails. */
bool standin_write(const char *path, const char *text);

/* The node's GPUs. Returns how many there are. */
size_t standin_gpus(struct standin_gpu *gpus);

/* The bytes in use on a GPU. */
unsigned long long standin_used(const char *uuid);

/* The restore thread of a process as /proc shows it, and the state of the process. Returns 0 where there is none. */
int standin_thread(pid_t pid, enum standin_state *state);

/* The name that the restore thread has in this state. */
const char *standin_thread_name(enum standin_state state);

/* Makes the directories that libraries and workers meet in. */
void standin_prepare(void);

/* What names a process for the libraries and for itself alike: its PID namespace and its PID there. Returns false when it has ended. */
bool standin_key(pid_t pid, char *key, size_t size);

/* Sleeps for so many milliseconds. */
void standin_sleep(unsigned long long milliseconds);

#endif
