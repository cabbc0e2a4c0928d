#include "cuda-nvml.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    NVML_OK = 0,
    NVML_NOT_SUPPORTED = 3,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_LIBRARY_NOT_FOUND = 12,
    NVML_FUNCTION_NOT_FOUND = 13,
    NVML_OUT_OF_MEMORY = 20,
    MAX_PROCESSES = 1 << 16,
    TEXT_SIZE = 128,
};

static const struct symbol functions[] = {
    {"nvmlInit_v2", offsetof(struct nvml, init)},
    {"nvmlErrorString", offsetof(struct nvml, error_text)},
    {"nvmlSystemGetDriverVersion", offsetof(struct nvml, driver_version)},
    {"nvmlDeviceGetCount_v2", offsetof(struct nvml, count)},
    {"nvmlDeviceGetHandleByIndex_v2", offsetof(struct nvml, by_index)},
    {"nvmlDeviceGetUUID", offsetof(struct nvml, uuid)},
    {"nvmlDeviceGetName", offsetof(struct nvml, name)},
    {"nvmlDeviceGetMinorNumber", offsetof(struct nvml, minor)},
    {"nvmlDeviceGetPciInfo_v3", offsetof(struct nvml, pci)},
    {"nvmlDeviceGetMemoryInfo", offsetof(struct nvml, memory)},
    {"nvmlDeviceGetMigMode", offsetof(struct nvml, mig_mode)},
    {"nvmlDeviceGetVirtualizationMode", offsetof(struct nvml, virtualization)},
    {"nvmlDeviceGetComputeRunningProcesses_v3", offsetof(struct nvml, processes)},
    {"nvmlDeviceGetMPSComputeRunningProcesses_v3", offsetof(struct nvml, mps_processes)},
    {0},
};

static const struct {
    int error;
    const char *name;
} error_names[] = {
    {1, "UNINITIALIZED"},
    {2, "INVALID_ARGUMENT"},
    {NVML_NOT_SUPPORTED, "NOT_SUPPORTED"},
    {4, "NO_PERMISSION"},
    {6, "NOT_FOUND"},
    {NVML_INSUFFICIENT_SIZE, "INSUFFICIENT_SIZE"},
    {9, "DRIVER_NOT_LOADED"},
    {10, "TIMEOUT"},
    {11, "IRQ_ISSUE"},
    {NVML_LIBRARY_NOT_FOUND, "LIBRARY_NOT_FOUND"},
    {NVML_FUNCTION_NOT_FOUND, "FUNCTION_NOT_FOUND"},
    {15, "GPU_IS_LOST"},
    {16, "RESET_REQUIRED"},
    {17, "OPERATING_SYSTEM"},
    {18, "LIB_RM_VERSION_MISMATCH"},
    {19, "IN_USE"},
    {NVML_OUT_OF_MEMORY, "MEMORY"},
    {21, "NO_DATA"},
    {23, "INSUFFICIENT_RESOURCES"},
    {27, "NOT_READY"},
    {28, "GPU_NOT_FOUND"},
    {999, "UNKNOWN"},
};

void nvml_open(struct nvml *nvml, const struct option_list *candidates) {
    nvml->init_error = NVML_LIBRARY_NOT_FOUND;
    if (!library_open(&nvml->library, candidates, "libnvidia-ml.so.1"))
        return;
    library_resolve(&nvml->library, functions, nvml);
    nvml->init_error = nvml->init != NULL ? nvml->init() : NVML_FUNCTION_NOT_FOUND;
    nvml->ready = nvml->init_error == NVML_OK;
}

void nvml_print_driver(const struct nvml *nvml, FILE *out) {
    char version[TEXT_SIZE] = "";
    bool known = nvml->ready && nvml->driver_version != NULL &&
                 nvml->driver_version(version, sizeof version) == NVML_OK;
    version[sizeof version - 1] = '\0';
    json_string(out, known ? version : NULL);
}

/* Answers that CALL failed. */
static void answer_failure(const struct nvml *nvml, const char *call, int error, FILE *out) {
    char name[64];
    snprintf(name, sizeof name, "NVML_ERROR_%d", error);
    for (size_t i = 0; i < sizeof error_names / sizeof error_names[0]; i++)
        if (error_names[i].error == error)
            snprintf(name, sizeof name, "NVML_ERROR_%s", error_names[i].name);
    const char *text = error == NVML_LIBRARY_NOT_FOUND ? "NVML is not to be had on this node" : NULL;
    if (nvml->error_text != NULL)
        text = nvml->error_text(error);
    fprintf(out, "{\"ok\":false,\"error\":%d,\"name\":", error);
    json_string(out, name);
    fputs(",\"text\":", out);
    json_string(out, text != NULL ? text : "");
    fputs(",\"call\":", out);
    json_string(out, call);
    fputs("}\n", out);
}

/* One GPU, and what identifies it. */
struct gpu {
    struct nvml_device *device;
    char uuid[TEXT_SIZE];
};

/* Names the call that failed, with its error, or returns NULL. */
static const char *find_gpu(const struct nvml *nvml, unsigned index, struct gpu *gpu, int *error) {
    *error = NVML_FUNCTION_NOT_FOUND;
    if (nvml->by_index == NULL || (*error = nvml->by_index(index, &gpu->device)) != NVML_OK)
        return "nvmlDeviceGetHandleByIndex_v2";
    *error = NVML_FUNCTION_NOT_FOUND;
    if (nvml->uuid == NULL || (*error = nvml->uuid(gpu->device, gpu->uuid, sizeof gpu->uuid)) != NVML_OK)
        return "nvmlDeviceGetUUID";
    gpu->uuid[sizeof gpu->uuid - 1] = '\0';
    return NULL;
}

/* Names the call that failed, with its error, or returns NULL. */
static const char *count_gpus(const struct nvml *nvml, unsigned *count, int *error) {
    *error = nvml->init_error;
    if (!nvml->ready)
        return "nvmlInit_v2";
    *error = NVML_FUNCTION_NOT_FOUND;
    if (nvml->count == NULL || (*error = nvml->count(count)) != NVML_OK)
        return "nvmlDeviceGetCount_v2";
    return NULL;
}

static void print_number(FILE *out, const char *member, bool known, unsigned long long number) {
    if (known)
        fprintf(out, ",\"%s\":%llu", member, number);
    else
        fprintf(out, ",\"%s\":null", member);
}

static void print_truth(FILE *out, const char *member, bool known, bool truth) {
    fprintf(out, ",\"%s\":%s", member, !known ? "null" : truth ? "true" : "false");
}

/* A GPU that cannot have MIG does not have it. */
static void print_mig(const struct nvml *nvml, struct nvml_device *device, FILE *out) {
    unsigned current = 0;
    unsigned pending = 0;
    int error = nvml->mig_mode != NULL ? nvml->mig_mode(device, &current, &pending) : NVML_FUNCTION_NOT_FOUND;
    print_truth(out, "mig", error == NVML_OK || error == NVML_NOT_SUPPORTED, error == NVML_OK && current != 0);
}

/* MPS shows in the clients it has on the GPU. */
static void print_mps(const struct nvml *nvml, struct nvml_device *device, FILE *out) {
    unsigned count = 0;
    int error = nvml->mps_processes != NULL ? nvml->mps_processes(device, &count, NULL) : NVML_FUNCTION_NOT_FOUND;
    bool has_clients = error == NVML_INSUFFICIENT_SIZE || (error == NVML_OK && count > 0);
    print_truth(out, "mps", error == NVML_OK || has_clients, has_clients);
}

static void print_virtualization(const struct nvml *nvml, struct nvml_device *device, FILE *out) {
    static const char *const modes[] = {"none", "passthrough", "vgpu", "host-vgpu", "host-vsga"};
    unsigned mode = 0;
    fputs(",\"virtualization\":", out);
    if (nvml->virtualization == NULL || nvml->virtualization(device, &mode) != NVML_OK)
        fputs("null", out);
    else if (mode < sizeof modes / sizeof modes[0])
        json_string(out, modes[mode]);
    else
        fprintf(out, "\"mode-%u\"", mode);
}

static void print_text(FILE *out, const char *member, const char *text) {
    fprintf(out, ",\"%s\":", member);
    json_string(out, text);
}

static void print_gpu(const struct nvml *nvml, unsigned index, const struct gpu *gpu, FILE *out) {
    char name[TEXT_SIZE] = "";
    unsigned minor = 0;
    struct nvml_pci pci = {0};
    struct nvml_memory memory = {0};
    fprintf(out, "%s{\"index\":%u", index == 0 ? "" : ",", index);
    print_text(out, "uuid", gpu->uuid);
    bool known = nvml->name != NULL && nvml->name(gpu->device, name, sizeof name) == NVML_OK;
    name[sizeof name - 1] = '\0';
    print_text(out, "name", known ? name : NULL);
    known = nvml->minor != NULL && nvml->minor(gpu->device, &minor) == NVML_OK;
    print_number(out, "minor", known, minor);
    known = nvml->pci != NULL && nvml->pci(gpu->device, &pci) == NVML_OK;
    pci.bus_id[sizeof pci.bus_id - 1] = '\0';
    print_text(out, "busId", known ? pci.bus_id : NULL);
    known = nvml->memory != NULL && nvml->memory(gpu->device, &memory) == NVML_OK;
    print_number(out, "memoryBytes", known, memory.total);
    print_number(out, "freeBytes", known, memory.free);
    print_mig(nvml, gpu->device, out);
    print_mps(nvml, gpu->device, out);
    print_virtualization(nvml, gpu->device, out);
    fputc('}', out);
}

/*
 * Answers with a list, one GPU after the other. It is written to memory first: a GPU that fails makes the whole answer another one.
 * PRINT names the call that failed, with its error, or returns NULL.
 */
static void answer_list(const struct nvml *nvml, const char *member,
                        const char *(*print)(const struct nvml *, unsigned, FILE *, int *), FILE *out) {
    unsigned count = 0;
    int error = NVML_OUT_OF_MEMORY;
    cleanup_free char *text = NULL;
    size_t length = 0;
    FILE *list = open_memstream(&text, &length);
    const char *failed = list == NULL ? "open_memstream" : count_gpus(nvml, &count, &error);
    for (unsigned index = 0; failed == NULL && index < count; index++)
        failed = print(nvml, index, list, &error);
    if (list != NULL)
        fclose(list);
    if (failed != NULL)
        answer_failure(nvml, failed, error, out);
    else
        fprintf(out, "{\"ok\":true,\"%s\":[%s]}\n", member, text);
}

static const char *list_gpu(const struct nvml *nvml, unsigned index, FILE *list, int *error) {
    struct gpu gpu = {0};
    const char *failed = find_gpu(nvml, index, &gpu, error);
    if (failed == NULL)
        print_gpu(nvml, index, &gpu, list);
    return failed;
}

void nvml_answer_gpus(const struct nvml *nvml, FILE *out) {
    answer_list(nvml, "gpus", list_gpu, out);
}

/* Asks for the processes of a GPU, with more room each time there were too many. Returns NVML's error. */
static int get_processes(const struct nvml *nvml, struct nvml_device *device, struct nvml_process **processes,
                         unsigned *count) {
    int error = NVML_INSUFFICIENT_SIZE;
    for (unsigned room = 64; error == NVML_INSUFFICIENT_SIZE && room <= MAX_PROCESSES; room *= 4) {
        free(*processes);
        *processes = calloc(room, sizeof **processes);
        if (*processes == NULL)
            return NVML_OUT_OF_MEMORY;
        *count = room;
        error = nvml->processes(device, count, *processes);
        if (error == NVML_OK && *count > room)
            *count = room;
    }
    return error;
}

static const char *list_processes(const struct nvml *nvml, unsigned index, FILE *list, int *error) {
    struct gpu gpu = {0};
    cleanup_free struct nvml_process *processes = NULL;
    unsigned count = 0;
    const char *failed = find_gpu(nvml, index, &gpu, error);
    if (failed != NULL)
        return failed;
    *error = nvml->processes == NULL ? NVML_FUNCTION_NOT_FOUND
                                     : get_processes(nvml, gpu.device, &processes, &count);
    if (*error != NVML_OK)
        return "nvmlDeviceGetComputeRunningProcesses_v3";
    for (unsigned i = 0; i < count; i++) {
        /* NVML's own word for "not available". */
        bool known = processes[i].used_memory != UINT64_MAX;
        fprintf(list, "%s{\"pid\":%u", ftell(list) == 0 ? "" : ",", processes[i].pid);
        print_text(list, "gpu", gpu.uuid);
        print_number(list, "bytes", known, processes[i].used_memory);
        fputc('}', list);
    }
    return NULL;
}

void nvml_answer_processes(const struct nvml *nvml, FILE *out) {
    answer_list(nvml, "processes", list_processes, out);
}
