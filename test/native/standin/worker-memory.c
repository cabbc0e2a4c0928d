#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "worker.h"

enum { NODE_SIZE = 4096 };

/* A device node as the process finds it. */
struct node {
    char path[2 * STANDIN_TEXT];
    char uuid[STANDIN_UUID];
    bool is_device;
};

static int is_node(const struct dirent *entry) {
    return strncmp(entry->d_name, "nvidia", 6) == 0 && entry->d_name[6] >= '0' && entry->d_name[6] <= '9';
}

/* Tells which GPU a device node is: a file says so, a character device has its minor number. */
static bool identify(struct node *node) {
    struct stat status;
    if (stat(node->path, &status) != 0)
        return false;
    node->is_device = S_ISCHR(status.st_mode);
    if (!node->is_device)
        return standin_line(node->path, node->uuid, sizeof node->uuid);
    struct standin_gpu gpus[STANDIN_GPUS];
    size_t count = standin_gpus(gpus);
    for (size_t i = 0; i < count; i++)
        if (gpus[i].minor == minor(status.st_rdev))
            memcpy(node->uuid, gpus[i].uuid, sizeof node->uuid);
    return node->uuid[0] != '\0';
}

/* The device nodes, in the order of their names. */
static size_t find_nodes(struct node *nodes) {
    const char *elsewhere = getenv("SNAPSHOT_STANDIN_DEV");
    char *directory = elsewhere != NULL ? strdup(elsewhere) : standin_path("dev");
    struct dirent **entries = NULL;
    int found = scandir(directory, &entries, is_node, versionsort);
    size_t count = 0;
    for (int i = 0; i < found; i++) {
        struct node node = {0};
        snprintf(node.path, sizeof node.path, "%s/%s", directory, entries[i]->d_name);
        if (count < STANDIN_GPUS && identify(&node))
            nodes[count++] = node;
        free(entries[i]);
    }
    free(entries);
    free(directory);
    return count;
}

/* Opens and maps a device node; NUMBER is the descriptor it is to have, or -1 for any. */
static bool open_node(struct seen_gpu *gpu, const struct node *node, int number) {
    gpu->node = -1;
    gpu->mapping = NULL;
    if (node->is_device)
        return true;
    int file = open(node->path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    gpu->node = file;
    if (number >= 0) {
        gpu->node = dup3(file, number, O_CLOEXEC);
        close(file);
    }
    gpu->mapping = mmap(NULL, NODE_SIZE, PROT_READ, MAP_SHARED, gpu->node, 0);
    return gpu->mapping != MAP_FAILED;
}

void worker_find_gpus(struct worker *worker) {
    struct node nodes[STANDIN_GPUS];
    worker->seen_count = find_nodes(nodes);
    for (size_t i = 0; i < worker->seen_count; i++) {
        struct seen_gpu *gpu = &worker->seen[i];
        snprintf(gpu->uuid, sizeof gpu->uuid, "%s", nodes[i].uuid);
        snprintf(gpu->reported, sizeof gpu->reported, "%s", nodes[i].uuid);
        if (!open_node(gpu, &nodes[i], -1)) {
            perror(nodes[i].path);
            exit(1);
        }
    }
}

/* Whether so much more fits on a GPU. */
static int check_room(const char *uuid, unsigned long long bytes) {
    struct standin_gpu gpus[STANDIN_GPUS];
    size_t count = standin_gpus(gpus);
    for (size_t i = 0; i < count; i++)
        if (strcmp(gpus[i].uuid, uuid) == 0)
            return standin_used(uuid) + bytes <= gpus[i].bytes ? CUDA_OK : CUDA_OUT_OF_MEMORY;
    return CUDA_INVALID_DEVICE;
}

/* Takes memory on a GPU. The lock on the file says that it is in use, and ends with the process. */
static int take_memory(struct allocation *memory, const char *uuid) {
    char *directory = standin_path("memory/%s", uuid);
    if (mkdir(directory, 0755) != 0 && errno != EEXIST)
        perror(directory);
    free(directory);
    memory->path = standin_path("memory/%s/XXXXXX", uuid);
    memory->file = mkostemp(memory->path, O_CLOEXEC);
    if (memory->file < 0 || flock(memory->file, LOCK_EX) != 0 || ftruncate(memory->file, (off_t)memory->bytes) != 0)
        return CUDA_OPERATING_SYSTEM;
    memory->device = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->file, 0);
    return memory->device != MAP_FAILED ? CUDA_OK : CUDA_OPERATING_SYSTEM;
}

int worker_allocate(struct worker *worker, size_t gpu, size_t bytes) {
    if (gpu >= worker->seen_count || worker->allocation_count == STANDIN_GPUS)
        return CUDA_INVALID_DEVICE;
    struct allocation *memory = &worker->allocations[worker->allocation_count++];
    *memory = (struct allocation){.gpu = gpu, .bytes = bytes, .copy_file = -1};
    int error = check_room(worker->seen[gpu].uuid, bytes);
    return error != CUDA_OK ? error : take_memory(memory, worker->seen[gpu].uuid);
}

/* Makes room on the host for a copy of device memory, of the kind that is asked for. */
static bool make_copy(struct allocation *memory, enum host_copy kind) {
    if (kind == COPY_MEMFD) {
        memory->copy_file = memfd_create("standin", MFD_CLOEXEC);
        if (memory->copy_file < 0 || ftruncate(memory->copy_file, (off_t)memory->bytes) != 0)
            return false;
    }
    int flags = kind == COPY_PRIVATE  ? MAP_PRIVATE | MAP_ANONYMOUS
                : kind == COPY_SHARED ? MAP_SHARED | MAP_ANONYMOUS
                                      : MAP_SHARED;
    memory->copy = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, flags, memory->copy_file, 0);
    return memory->copy != MAP_FAILED;
}

static int save_memory(struct allocation *memory, enum host_copy kind) {
    if (!make_copy(memory, kind))
        return CUDA_OUT_OF_MEMORY;
    memcpy(memory->copy, memory->device, memory->bytes);
    munmap(memory->device, memory->bytes);
    unlink(memory->path);
    close(memory->file);
    free(memory->path);
    memory->device = NULL;
    memory->path = NULL;
    memory->file = -1;
    return CUDA_OK;
}

/* As the driver does: in the place of the device node, under the same number, there is an eventfd while the process is checkpointed. */
static int release_node(struct seen_gpu *gpu) {
    if (gpu->node < 0)
        return CUDA_OK;
    munmap(gpu->mapping, NODE_SIZE);
    gpu->mapping = NULL;
    int event = eventfd(0, EFD_CLOEXEC);
    bool replaced = event >= 0 && dup3(event, gpu->node, O_CLOEXEC) >= 0;
    if (event >= 0)
        close(event);
    return replaced ? CUDA_OK : CUDA_OPERATING_SYSTEM;
}

int worker_save(struct worker *worker) {
    int error = CUDA_OK;
    for (size_t i = 0; i < worker->allocation_count && error == CUDA_OK; i++)
        error = save_memory(&worker->allocations[i], worker->host_copy);
    for (size_t i = 0; i < worker->seen_count && error == CUDA_OK; i++)
        error = release_node(&worker->seen[i]);
    return error;
}

/* Where every GPU that is seen goes: index for index. */
struct plan {
    char to[STANDIN_GPUS][STANDIN_UUID];
};

/* Reads the map, which must name every GPU that the process sees, once, and no other. Without a map, every GPU stays the one it was. */
static int plan_targets(const struct worker *worker, char *map, struct plan *plan) {
    size_t pairs = 0;
    for (size_t i = 0; i < worker->seen_count; i++)
        snprintf(plan->to[i], sizeof plan->to[i], "%s", *map == '\0' ? worker->seen[i].uuid : "");
    if (*map == '\0')
        return CUDA_OK;
    for (char *next = map; next != NULL; pairs++) {
        char *new = strsep(&next, ",");
        const char *old = strsep(&new, "=");
        size_t gpu = 0;
        while (gpu < worker->seen_count && strcmp(worker->seen[gpu].uuid, old) != 0)
            gpu++;
        if (gpu == worker->seen_count || new == NULL || plan->to[gpu][0] != '\0')
            return CUDA_INVALID_VALUE;
        for (size_t i = 0; i < worker->seen_count; i++)
            if (strcmp(plan->to[i], new) == 0)
                return CUDA_INVALID_VALUE;
        snprintf(plan->to[gpu], sizeof plan->to[gpu], "%s", new);
    }
    return pairs == worker->seen_count ? CUDA_OK : CUDA_INVALID_VALUE;
}

/* The device node of a GPU, or NULL where the process sees none. */
static const struct node *node_of(const struct node *nodes, size_t count, const char *uuid) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(nodes[i].uuid, uuid) == 0)
            return &nodes[i];
    return NULL;
}

/* Checks that all memory of this process fits where it goes. */
static int check_targets(const struct worker *worker, const struct plan *plan) {
    for (size_t gpu = 0; gpu < worker->seen_count; gpu++) {
        unsigned long long bytes = 0;
        for (size_t i = 0; i < worker->allocation_count; i++)
            bytes += worker->allocations[i].gpu == gpu ? worker->allocations[i].bytes : 0;
        int error = check_room(plan->to[gpu], bytes);
        if (error != CUDA_OK)
            return error;
    }
    return CUDA_OK;
}

static int restore_memory(struct allocation *memory, const char *uuid) {
    int error = take_memory(memory, uuid);
    if (error != CUDA_OK)
        return error;
    memcpy(memory->device, memory->copy, memory->bytes);
    munmap(memory->copy, memory->bytes);
    if (memory->copy_file >= 0)
        close(memory->copy_file);
    memory->copy = NULL;
    memory->copy_file = -1;
    return CUDA_OK;
}

int worker_restore(struct worker *worker, char *map) {
    struct node nodes[STANDIN_GPUS];
    struct plan plan;
    size_t count = find_nodes(nodes);
    int error = plan_targets(worker, map, &plan);
    for (size_t i = 0; i < worker->seen_count && error == CUDA_OK; i++)
        if (node_of(nodes, count, plan.to[i]) == NULL)
            error = CUDA_INVALID_DEVICE;
    if (error == CUDA_OK)
        error = check_targets(worker, &plan);
    for (size_t i = 0; i < worker->seen_count && error == CUDA_OK; i++) {
        snprintf(worker->seen[i].uuid, sizeof worker->seen[i].uuid, "%s", plan.to[i]);
        if (!open_node(&worker->seen[i], node_of(nodes, count, plan.to[i]), worker->seen[i].node))
            error = CUDA_OPERATING_SYSTEM;
    }
    for (size_t i = 0; i < worker->allocation_count && error == CUDA_OK; i++)
        error = restore_memory(&worker->allocations[i], worker->seen[worker->allocations[i].gpu].uuid);
    return error;
}
