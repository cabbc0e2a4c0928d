/* The stand-in for libnvidia-ml.so.1: what snapshot-cuda asks of NVML, out of the file `gpus` and of what workers have in use. */
#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faults.h"
#include "standin.h"

enum { NVML_OK = 0, NVML_INVALID_ARGUMENT = 2, NVML_NOT_SUPPORTED = 3, NVML_INSUFFICIENT_SIZE = 7 };

struct device; /* its index, and one */

struct memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
};

struct pci {
    char legacy_bus_id[16];
    unsigned numbers[5];
    char bus_id[32];
};

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance;
    unsigned compute_instance;
};

#define EXPORT __attribute__((visibility("default")))

EXPORT int nvmlInit_v2(void);
EXPORT const char *nvmlErrorString(int error);
EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned size);
EXPORT int nvmlDeviceGetCount_v2(unsigned *count);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device);
EXPORT int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned size);
EXPORT int nvmlDeviceGetName(struct device *device, char *name, unsigned size);
EXPORT int nvmlDeviceGetMinorNumber(struct device *device, unsigned *minor);
EXPORT int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci *pci);
EXPORT int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *memory);
EXPORT int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending);
EXPORT int nvmlDeviceGetVirtualizationMode(struct device *device, unsigned *mode);
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *count, struct process *processes);
EXPORT int nvmlDeviceGetMPSComputeRunningProcesses_v3(struct device *device, unsigned *count,
                                                      struct process *processes);

int nvmlInit_v2(void) {
    return make_faults("nvmlInit_v2", &(struct subject){0}, false);
}

const char *nvmlErrorString(int error) {
    return error == NVML_NOT_SUPPORTED ? "Not Supported" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    char *path = standin_path("driver");
    int error = make_faults("nvmlSystemGetDriverVersion", &(struct subject){0}, false);
    if (!standin_line(path, version, size))
        snprintf(version, size, "580.159.04");
    free(path);
    return error;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    struct standin_gpu gpus[STANDIN_GPUS];
    *count = (unsigned)standin_gpus(gpus);
    return make_faults("nvmlDeviceGetCount_v2", &(struct subject){0}, false);
}

/* Finds the GPU behind a handle, and makes the faults of a call about it. */
static int find(const char *call, const struct device *device, struct standin_gpu *gpu) {
    struct standin_gpu gpus[STANDIN_GPUS];
    uintptr_t number = (uintptr_t)device;
    if (number == 0 || number > standin_gpus(gpus))
        return NVML_INVALID_ARGUMENT;
    *gpu = gpus[number - 1];
    return make_faults(call, &(struct subject){.uuid = gpu->uuid}, false);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device) {
    struct standin_gpu gpu;
    /* A handle is opaque: nobody looks behind it. */
    *device = (struct device *)(uintptr_t)(index + 1);
    return find("nvmlDeviceGetHandleByIndex_v2", *device, &gpu);
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned size) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetUUID", device, &gpu);
    if (error == NVML_OK)
        snprintf(uuid, size, "%s", gpu.uuid);
    return error;
}

int nvmlDeviceGetName(struct device *device, char *name, unsigned size) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetName", device, &gpu);
    if (error == NVML_OK)
        snprintf(name, size, "%s", gpu.name);
    return error;
}

int nvmlDeviceGetMinorNumber(struct device *device, unsigned *minor) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetMinorNumber", device, &gpu);
    if (error == NVML_OK)
        *minor = gpu.minor;
    return error;
}

int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci *pci) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetPciInfo_v3", device, &gpu);
    if (error == NVML_OK)
        snprintf(pci->bus_id, sizeof pci->bus_id, "%s", gpu.bus_id);
    return error;
}

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *memory) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetMemoryInfo", device, &gpu);
    if (error != NVML_OK)
        return error;
    memory->total = gpu.bytes;
    memory->used = standin_used(gpu.uuid);
    memory->free = memory->used < gpu.bytes ? gpu.bytes - memory->used : 0;
    return NVML_OK;
}

/* A number out of the table, or "not supported" where it says "-". */
static int answer_field(const char *field, unsigned *number) {
    if (strcmp(field, "-") == 0)
        return NVML_NOT_SUPPORTED;
    *number = (unsigned)strtoul(field, NULL, 10);
    return NVML_OK;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetMigMode", device, &gpu);
    if (error == NVML_OK)
        error = answer_field(gpu.mig, current);
    *pending = *current;
    return error;
}

int nvmlDeviceGetVirtualizationMode(struct device *device, unsigned *mode) {
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetVirtualizationMode", device, &gpu);
    return error != NVML_OK ? error : answer_field(gpu.virtualization, mode);
}

/* Answers with a list, or, where there is no room for it, with its length. */
static int answer_processes(const struct process *found, unsigned length, unsigned *count, struct process *processes) {
    unsigned room = *count;
    *count = length;
    if (length > room || (length > 0 && processes == NULL))
        return NVML_INSUFFICIENT_SIZE;
    if (length > 0)
        memcpy(processes, found, length * sizeof *found);
    return NVML_OK;
}

/* The bytes that one line of `maps` maps of the memory of a GPU. The process may see that memory elsewhere, but its file by its name. */
static unsigned long long mapped_by_line(char *line, const char *uuid) {
    char wanted[2 * STANDIN_UUID];
    char *end;
    snprintf(wanted, sizeof wanted, "/memory/%s/", uuid);
    const char *name = strstr(line, wanted);
    line[strcspn(line, "\n")] = '\0';
    if (name == NULL)
        return 0;
    /* There may be other stand-ins, with other GPUs of the same name. */
    char *path = standin_path("memory/%s/%s", uuid, name + strlen(wanted));
    bool is_ours = access(path, F_OK) == 0;
    free(path);
    uintmax_t from = strtoumax(line, &end, 16);
    return is_ours && *end == '-' ? strtoumax(end + 1, NULL, 16) - from : 0;
}

/* The memory of a GPU that a process has mapped: this is how its device memory shows. */
static unsigned long long mapped_by(pid_t pid, const char *uuid) {
    char path[STANDIN_FIELD];
    char line[4096];
    unsigned long long bytes = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        bytes += mapped_by_line(line, uuid);
    if (file != NULL)
        fclose(file);
    return bytes;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *count, struct process *processes) {
    enum { MOST = 256 };
    struct process found[MOST];
    unsigned length = 0;
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetComputeRunningProcesses_v3", device, &gpu);
    DIR *proc = error == NVML_OK ? opendir("/proc") : NULL;
    for (const struct dirent *entry; proc != NULL && length < MOST && (entry = readdir(proc)) != NULL;) {
        enum standin_state state;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        unsigned long long used = pid > 0 && standin_thread(pid, &state) != 0 ? mapped_by(pid, gpu.uuid) : 0;
        if (used > 0)
            found[length++] = (struct process){.pid = (unsigned)pid, .used = used, .gpu_instance = UINT32_MAX};
    }
    if (proc != NULL)
        closedir(proc);
    return error != NVML_OK ? error : answer_processes(found, length, count, processes);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(struct device *device, unsigned *count, struct process *processes) {
    const struct process client = {.pid = 1, .used = 1 << 20};
    unsigned clients = 0;
    struct standin_gpu gpu;
    int error = find("nvmlDeviceGetMPSComputeRunningProcesses_v3", device, &gpu);
    if (error == NVML_OK)
        error = answer_field(gpu.mps, &clients);
    return error != NVML_OK ? error : answer_processes(&client, clients, count, processes);
}
