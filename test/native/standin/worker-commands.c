#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

enum { POLL_MS = 3 };

static void enter(struct worker *worker, enum standin_state state) {
    worker->state = state;
    prctl(PR_SET_NAME, standin_thread_name(state));
}

static int lock(struct worker *worker) {
    if (worker->state != STANDIN_RUNNING)
        return CUDA_ILLEGAL_STATE;
    pthread_mutex_lock(&worker->work);
    enter(worker, STANDIN_LOCKED);
    return CUDA_OK;
}

static int unlock(struct worker *worker) {
    if (worker->state != STANDIN_LOCKED)
        return CUDA_ILLEGAL_STATE;
    enter(worker, STANDIN_RUNNING);
    pthread_mutex_unlock(&worker->work);
    return CUDA_OK;
}

static int checkpoint(struct worker *worker) {
    if (worker->state != STANDIN_LOCKED)
        return CUDA_ILLEGAL_STATE;
    int error = worker_save(worker);
    enter(worker, error == CUDA_OK ? STANDIN_SAVED : STANDIN_FAILED);
    return error;
}

static int restore(struct worker *worker, char *map) {
    if (worker->state != STANDIN_SAVED)
        return CUDA_ILLEGAL_STATE;
    if (worker->out_of_memory)
        return CUDA_OPERATING_SYSTEM;
    if (worker->peer_access) {
        enter(worker, STANDIN_FAILED);
        return CUDA_INVALID_VALUE;
    }
    int error = worker_restore(worker, map);
    worker->out_of_memory = error == CUDA_OUT_OF_MEMORY;
    if (error == CUDA_OPERATING_SYSTEM)
        enter(worker, STANDIN_FAILED);
    else if (error == CUDA_OK)
        enter(worker, STANDIN_LOCKED);
    return error;
}

static int perform(struct worker *worker, const char *verb, char *arguments) {
    if (strcmp(verb, "lock") == 0)
        return lock(worker);
    if (strcmp(verb, "unlock") == 0)
        return unlock(worker);
    if (strcmp(verb, "checkpoint") == 0)
        return checkpoint(worker);
    return strcmp(verb, "restore") == 0 ? restore(worker, arguments) : CUDA_UNKNOWN;
}

/* Carries out the command in this file, which nobody else can take any more, and answers it. */
static void take_command(struct worker *worker, const char *file) {
    char line[8192];
    char error[STANDIN_FIELD];
    char *rest = line;
    bool has_line = standin_line(file, line, sizeof line);
    unlink(file);
    if (!has_line)
        return;
    const char *sequence = strsep(&rest, " ");
    const char *verb = strsep(&rest, " ");
    if (rest == NULL)
        return;
    snprintf(error, sizeof error, "%d\n", perform(worker, verb, rest));
    char *answer = standin_path("answers/%s", sequence);
    standin_write(answer, error);
    free(answer);
}

/*
 * Looks for a command for this process. It is named as the libraries name it, anew each time: restored by CRIU, the process may be in
 * another PID namespace. No file is open while there is none, so that a dump finds nothing of this.
 */
static void look_for_command(struct worker *worker) {
    struct stat namespace;
    struct stat status;
    if (stat("/proc/self/ns/pid", &namespace) != 0)
        return;
    char *file = standin_path("commands/%lu.%d", (unsigned long)namespace.st_ino, getpid());
    char *taken = standin_path("commands/%lu.%d.taken", (unsigned long)namespace.st_ino, getpid());
    if (stat(file, &status) == 0 && rename(file, taken) == 0)
        take_command(worker, taken);
    free(file);
    free(taken);
}

void *worker_serve(void *argument) {
    struct worker *worker = argument;
    enter(worker, STANDIN_RUNNING);
    sem_post(&worker->serving);
    for (;; standin_sleep(POLL_MS))
        look_for_command(worker);
    return NULL;
}
