#include "restore-context.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"

static const char default_directory[] = "/snapshot-control";
static const char file_name[] = "restore-context.json";

/* The environment that a worker reads again after its restore. */
static const char *const names[] = {
    "DYN_NAMESPACE",
    "DYN_COMPONENT",
    "DYN_PARENT_DGD_K8S_NAME",
    "DYN_PARENT_DGD_K8S_NAMESPACE",
    "POD_NAME",
    "POD_NAMESPACE",
    "POD_UID",
    "DYN_NAMESPACE_WORKER_SUFFIX",
    "DYN_DISCOVERY_BACKEND",
    "DYN_REQUEST_PLANE",
    "DYN_EVENT_PLANE",
    "NATS_SERVER",
    "ETCD_ENDPOINTS",
    "DYN_SYSTEM_PORT",
    "CONTAINER_NAME",
    "ENGINE_ID",
    "MODEL_EXPRESS_URL",
    "PROMETHEUS_ENDPOINT",
};

/* Writes the content and syncs it; takes over the descriptor. Returns false with errno. */
static bool write_context(int descriptor) {
    FILE *file = fdopen(descriptor, "w");
    if (file == NULL) {
        close(descriptor);
        return false;
    }
    fputs("{\"env\":{", file);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (i > 0)
            fputc(',', file);
        json_string(file, names[i]);
        fputc(':', file);
        json_string(file, getenv(names[i]));
    }
    fputs("}}\n", file);
    bool written = fflush(file) == 0 && !ferror(file) && fchmod(fileno(file), 0644) == 0 && fsync(fileno(file)) == 0;
    int saved = errno;
    fclose(file);
    errno = saved;
    return written;
}

/* Makes the file under a temporary name in the directory, then renames it. Returns false with errno. */
static bool replace_context(int directory) {
    uint64_t random;
    char temporary[64];
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    snprintf(temporary, sizeof temporary, ".%s.%016llx", file_name, (unsigned long long)random);
    int file = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)0600);
    if (file < 0)
        return false;
    if (write_context(file) && renameat(directory, temporary, directory, file_name) == 0)
        return true;
    int saved = errno;
    unlinkat(directory, temporary, 0);
    errno = saved;
    return false;
}

void write_restore_context(void) {
    const char *path = getenv("DYN_SNAPSHOT_CONTROL_DIR");
    if (path == NULL || *path == '\0')
        path = default_directory;
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 && errno == ENOENT)
        return;
    if (directory < 0 || !replace_context(directory))
        fprintf(stderr, "snapshot-standby: writing %s/%s failed: %s\n", path, file_name, strerror(errno));
    if (directory >= 0)
        close(directory);
}
