#include "standin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const thread_names[STANDIN_STATES] = {"standin:running", "standin:locked", "standin:saved",
                                                         "standin:failed"};

char *standin_path(const char *fmt, ...) {
    const char *directory = getenv("SNAPSHOT_STANDIN_DIR");
    char name[STANDIN_TEXT];
    char *path = NULL;
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    bool fits = length >= 0 && (size_t)length < sizeof name;
    if (directory == NULL || !fits || asprintf(&path, "%s/%s", directory, name) < 0) {
        fputs("stand-in: SNAPSHOT_STANDIN_DIR is not set, or a name is too long\n", stderr);
        abort();
    }
    return path;
}

bool standin_line(const char *path, char *line, size_t size) {
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool has_line = fgets(line, (int)size, file) != NULL;
    fclose(file);
    if (has_line)
        line[strcspn(line, "\n")] = '\0';
    return has_line;
}

bool standin_write(const char *path, const char *text) {
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.%d~", path, getpid()) < 0)
        return false;
    FILE *file = fopen(temporary, "we");
    bool written = file != NULL && fputs(text, file) >= 0;
    if (file != NULL)
        written = fclose(file) == 0 && written;
    written = written && rename(temporary, path) == 0;
    free(temporary);
    return written;
}

size_t standin_gpus(struct standin_gpu *gpus) {
    char *path = standin_path("gpus");
    FILE *file = fopen(path, "re");
    free(path);
    size_t count = 0;
    char line[2 * STANDIN_TEXT];
    while (file != NULL && count < STANDIN_GPUS && fgets(line, sizeof line, file) != NULL) {
        struct standin_gpu *gpu = &gpus[count++];
        char minor[STANDIN_FIELD];
        char bytes[STANDIN_FIELD];
        if (sscanf(line, "%63s %31s %31s %31s %31s %31s %31s %95[^\n]", gpu->uuid, minor, gpu->bus_id, bytes, gpu->mig,
                   gpu->mps, gpu->virtualization, gpu->name) != 8) {
            fprintf(stderr, "stand-in: not a GPU: %s", line);
            abort();
        }
        gpu->minor = (unsigned)strtoul(minor, NULL, 10);
        gpu->bytes = strtoull(bytes, NULL, 10);
    }
    if (file != NULL)
        fclose(file);
    return count;
}

void standin_prepare(void) {
    static const char *const directories[] = {"commands", "answers", "memory"};
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        char *path = standin_path("%s", directories[i]);
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            perror(path);
        free(path);
    }
}

/* The size of one piece of memory; 0 when the process that had it has ended: the lock on it ended with that process. */
static unsigned long long used_by(int directory, const char *name) {
    struct stat status;
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    bool used = flock(file, LOCK_SH | LOCK_NB) != 0 && fstat(file, &status) == 0;
    close(file);
    return used ? (unsigned long long)status.st_size : 0;
}

unsigned long long standin_used(const char *uuid) {
    char *path = standin_path("memory/%s", uuid);
    DIR *directory = opendir(path);
    free(path);
    unsigned long long used = 0;
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.')
            used += used_by(dirfd(directory), entry->d_name);
    if (directory != NULL)
        closedir(directory);
    return used;
}

const char *standin_thread_name(enum standin_state state) {
    return thread_names[state];
}

/* Whether this thread's name is that of a restore thread, and in which state. */
static bool is_restore_thread(const char *tasks, const char *tid, enum standin_state *state) {
    char path[2 * STANDIN_TEXT];
    char name[STANDIN_FIELD];
    snprintf(path, sizeof path, "%s/%s/comm", tasks, tid);
    if (!standin_line(path, name, sizeof name))
        return false;
    for (int i = 0; i < STANDIN_STATES; i++) {
        if (strcmp(name, thread_names[i]) == 0) {
            *state = (enum standin_state)i;
            return true;
        }
    }
    return false;
}

int standin_thread(pid_t pid, enum standin_state *state) {
    char tasks[STANDIN_FIELD];
    snprintf(tasks, sizeof tasks, "/proc/%d/task", pid);
    DIR *directory = opendir(tasks);
    int tid = 0;
    for (const struct dirent *entry; directory != NULL && tid == 0 && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && is_restore_thread(tasks, entry->d_name, state))
            tid = (int)strtol(entry->d_name, NULL, 10);
    if (directory != NULL)
        closedir(directory);
    return tid;
}

bool standin_key(pid_t pid, char *key, size_t size) {
    char path[STANDIN_FIELD];
    char line[STANDIN_TEXT];
    struct stat namespace;
    snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
    if (stat(path, &namespace) != 0)
        return false;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    const char *last = NULL;
    while (file != NULL && last == NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "NSpid:", 6) == 0)
            last = strrchr(line, '\t');
    }
    if (file != NULL)
        fclose(file);
    return last != NULL && snprintf(key, size, "%lu.%s", (unsigned long)namespace.st_ino, last + 1) < (int)size;
}

void standin_sleep(unsigned long long milliseconds) {
    struct timespec left = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    int rc;
    do
        rc = nanosleep(&left, &left);
    while (rc != 0 && errno == EINTR);
}
