/*
 * The stand-in for libcuda.so.1: the functions that snapshot-cuda calls, over workers (worker.c) instead of CUDA processes.
 *
 * A call reaches a worker by a file `commands/KEY` with one line, "SEQUENCE VERB [OLD=NEW,…]", where KEY names the process for both sides.
 * The worker takes it away, does what it says, and writes its error to `answers/SEQUENCE`. No connection is held, so CRIU may dump the
 * worker between two calls. A worker that is stopped does not answer, and the call hangs as the real one does.
 *
 * Errors that are measured, or reported by others, of driver 580: 401 for a call in the wrong state; 600 for a lock at its time limit; 1 for
 * a map of GPUs that is not complete, after which a complete one may follow; 2 for too little memory on the GPU, and 304 for every further
 * restore of that process; 3 for a process that is no CUDA process. Errors that are guessed: 1 for a process that is not there, 101 for a
 * restore onto a GPU that the process cannot see, 999 when the process ends during the call.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "faults.h"
#include "standin.h"

typedef int cuda_error;

struct uuid {
    unsigned char bytes[16];
};

struct pair {
    struct uuid old;
    struct uuid new;
};

struct lock_arguments {
    unsigned timeout_ms;
    unsigned zero;
    uint64_t zeros[7];
};

struct restore_arguments {
    const struct pair *pairs;
    unsigned count;
    unsigned zero;
    uint64_t zeros[6];
};

struct no_arguments {
    uint64_t zeros[8];
};

#define EXPORT __attribute__((visibility("default")))

EXPORT cuda_error cuInit(unsigned flags);
EXPORT cuda_error cuDriverGetVersion(int *version);
EXPORT cuda_error cuGetErrorName(cuda_error error, const char **name);
EXPORT cuda_error cuGetErrorString(cuda_error error, const char **text);
EXPORT cuda_error cuCheckpointProcessGetRestoreThreadId(int pid, int *tid);
EXPORT cuda_error cuCheckpointProcessGetState(int pid, int *state);
EXPORT cuda_error cuCheckpointProcessLock(int pid, const struct lock_arguments *arguments);
EXPORT cuda_error cuCheckpointProcessCheckpoint(int pid, const struct no_arguments *arguments);
EXPORT cuda_error cuCheckpointProcessRestore(int pid, const struct restore_arguments *arguments);
EXPORT cuda_error cuCheckpointProcessUnlock(int pid, const struct no_arguments *arguments);

static const struct {
    cuda_error error;
    const char *name;
    const char *text;
} errors[] = {
    {CUDA_OK, "CUDA_SUCCESS", "no error"},
    {CUDA_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"},
    {CUDA_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {CUDA_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static bool initialised;

cuda_error cuInit(unsigned flags) {
    struct standin_gpu gpus[STANDIN_GPUS];
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    cuda_error error = make_faults("cuInit", &(struct subject){0}, false);
    if (error != CUDA_OK)
        return error;
    if (flags != 0)
        return CUDA_INVALID_VALUE;
    if (standin_gpus(gpus) == 0 || (visible != NULL && *visible == '\0'))
        return CUDA_NO_DEVICE;
    standin_prepare();
    initialised = true;
    return CUDA_OK;
}

cuda_error cuDriverGetVersion(int *version) {
    char text[STANDIN_TEXT];
    char *path = standin_path("api");
    cuda_error error = make_faults("cuDriverGetVersion", &(struct subject){0}, false);
    *version = standin_line(path, text, sizeof text) ? (int)strtol(text, NULL, 10) : 13000;
    free(path);
    return error;
}

cuda_error cuGetErrorName(cuda_error error, const char **name) {
    *name = NULL;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].error == error)
            *name = errors[i].name;
    return *name != NULL ? CUDA_OK : CUDA_INVALID_VALUE;
}

cuda_error cuGetErrorString(cuda_error error, const char **text) {
    *text = NULL;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].error == error)
            *text = errors[i].text;
    return *text != NULL ? CUDA_OK : CUDA_INVALID_VALUE;
}

/* What every call about a process needs: the driver started, the process there and a CUDA process. */
static cuda_error find_process(int pid, int *tid, enum standin_state *state) {
    if (!initialised)
        return CUDA_NOT_INITIALIZED;
    if (pid <= 0 || kill(pid, 0) != 0)
        return CUDA_INVALID_VALUE;
    *tid = standin_thread(pid, state);
    return *tid != 0 ? CUDA_OK : CUDA_NOT_INITIALIZED;
}

cuda_error cuCheckpointProcessGetRestoreThreadId(int pid, int *tid) {
    enum standin_state state;
    struct subject subject = {.pid = pid};
    cuda_error error = make_faults("cuCheckpointProcessGetRestoreThreadId", &subject, false);
    return error != CUDA_OK ? error : find_process(pid, tid, &state);
}

cuda_error cuCheckpointProcessGetState(int pid, int *state) {
    int tid;
    enum standin_state found = STANDIN_RUNNING;
    struct subject subject = {.pid = pid};
    cuda_error error = make_faults("cuCheckpointProcessGetState", &subject, false);
    if (error == CUDA_OK)
        error = find_process(pid, &tid, &found);
    *state = (int)found;
    return error;
}

static uint64_t milliseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* One command on its way to a worker. */
struct command {
    char *file;
    char *answer;
    uint64_t deadline; /* 0: none */
    bool taken;
};

/* Waits for the answer to a command. Gives up at its deadline if the worker has not taken it, and when the worker has ended. */
static cuda_error await_answer(int pid, struct command *command) {
    char text[STANDIN_FIELD];
    for (;; standin_sleep(1)) {
        enum standin_state state;
        if (standin_line(command->answer, text, sizeof text)) {
            unlink(command->answer);
            return (cuda_error)strtol(text, NULL, 10);
        }
        if (standin_thread(pid, &state) == 0) {
            unlink(command->file);
            return CUDA_UNKNOWN;
        }
        if (command->deadline != 0 && milliseconds() >= command->deadline && unlink(command->file) == 0)
            return CUDA_NOT_READY;
    }
}

/* Has the worker do something. */
static cuda_error ask_worker(int pid, const char *verb, const char *arguments, unsigned timeout_ms) {
    static atomic_uint count;
    char key[STANDIN_FIELD * 2];
    char sequence[STANDIN_FIELD * 2];
    char line[8192];
    if (!standin_key(pid, key, sizeof key))
        return CUDA_UNKNOWN;
    snprintf(sequence, sizeof sequence, "%d-%llu-%u", getpid(), (unsigned long long)milliseconds(), count++);
    snprintf(line, sizeof line, "%s %s %s\n", sequence, verb, arguments);
    struct command command = {.file = standin_path("commands/%s", key), .answer = standin_path("answers/%s", sequence)};
    if (timeout_ms != 0)
        command.deadline = milliseconds() + timeout_ms;
    cuda_error error = standin_write(command.file, line) ? await_answer(pid, &command) : CUDA_OPERATING_SYSTEM;
    free(command.file);
    free(command.answer);
    return error;
}

/* A call that changes the state of a process. */
static cuda_error change(const char *call, int pid, const char *verb, const char *arguments, unsigned timeout_ms) {
    int tid;
    enum standin_state state;
    struct subject subject = {.pid = pid, .timeout_ms = timeout_ms};
    cuda_error error = make_faults(call, &subject, false);
    if (error == CUDA_OK)
        error = find_process(pid, &tid, &state);
    if (error == CUDA_OK)
        error = ask_worker(pid, verb, arguments, timeout_ms);
    return error != CUDA_OK ? error : make_faults(call, &subject, true);
}

/* The driver wants zeros where it reserves something. */
static bool all_zero(const uint64_t *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (words[i] != 0)
            return false;
    return true;
}

cuda_error cuCheckpointProcessLock(int pid, const struct lock_arguments *arguments) {
    if (arguments != NULL && (arguments->zero != 0 || !all_zero(arguments->zeros, 7)))
        return CUDA_INVALID_VALUE;
    return change("cuCheckpointProcessLock", pid, "lock", "", arguments != NULL ? arguments->timeout_ms : 0);
}

cuda_error cuCheckpointProcessCheckpoint(int pid, const struct no_arguments *arguments) {
    if (arguments != NULL && !all_zero(arguments->zeros, 8))
        return CUDA_INVALID_VALUE;
    return change("cuCheckpointProcessCheckpoint", pid, "checkpoint", "", 0);
}

cuda_error cuCheckpointProcessUnlock(int pid, const struct no_arguments *arguments) {
    if (arguments != NULL && !all_zero(arguments->zeros, 8))
        return CUDA_INVALID_VALUE;
    return change("cuCheckpointProcessUnlock", pid, "unlock", "", 0);
}

static size_t print_uuid(const struct uuid *uuid, char *text, size_t size) {
    static const char *const separators[16] = {[4] = "-", [6] = "-", [8] = "-", [10] = "-"};
    size_t length = (size_t)snprintf(text, size, "GPU-");
    for (size_t i = 0; i < 16; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%02x", separators[i] != NULL ? separators[i] : "",
                                   uuid->bytes[i]);
    return length;
}

cuda_error cuCheckpointProcessRestore(int pid, const struct restore_arguments *arguments) {
    char map[STANDIN_GPUS * 2 * STANDIN_UUID] = "";
    size_t length = 0;
    unsigned count = arguments != NULL ? arguments->count : 0;
    if (arguments != NULL && (arguments->zero != 0 || !all_zero(arguments->zeros, 6)))
        return CUDA_INVALID_VALUE;
    if (count > STANDIN_GPUS || (count > 0 && arguments->pairs == NULL))
        return CUDA_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        if (i > 0)
            map[length++] = ',';
        length += print_uuid(&arguments->pairs[i].old, map + length, sizeof map - length);
        map[length++] = '=';
        length += print_uuid(&arguments->pairs[i].new, map + length, sizeof map - length);
    }
    return change("cuCheckpointProcessRestore", pid, "restore", map, 0);
}
