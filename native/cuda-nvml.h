/* The part of NVML that tells which GPUs a node has and who uses them. It is optional, and so is each of its functions. */
#ifndef SNAPSHOT_CUDA_NVML_H
#define SNAPSHOT_CUDA_NVML_H

#include <stdio.h>

#include "cuda-library.h"

struct nvml_device; /* opaque */

struct nvml_memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
};

struct nvml_pci {
    char legacy_bus_id[16];
    unsigned domain;
    unsigned bus;
    unsigned device;
    unsigned device_id;
    unsigned subsystem_id;
    char bus_id[32];
};

struct nvml_process {
    unsigned pid;
    unsigned long long used_memory;
    unsigned gpu_instance;
    unsigned compute_instance;
};

_Static_assert(sizeof(struct nvml_pci) == 68, "nvmlPciInfo_t");
_Static_assert(sizeof(struct nvml_process) == 24, "nvmlProcessInfo_v2_t");

/* What was found in libnvidia-ml; NULL where this version lacks it. Every function returns 0 or an error. */
struct nvml {
    struct library library;
    bool ready;
    int init_error;
    int (*init)(void);
    const char *(*error_text)(int error);
    int (*driver_version)(char *version, unsigned size);
    int (*count)(unsigned *count);
    int (*by_index)(unsigned index, struct nvml_device **device);
    int (*uuid)(struct nvml_device *device, char *uuid, unsigned size);
    int (*name)(struct nvml_device *device, char *name, unsigned size);
    int (*minor)(struct nvml_device *device, unsigned *minor);
    int (*pci)(struct nvml_device *device, struct nvml_pci *pci);
    int (*memory)(struct nvml_device *device, struct nvml_memory *memory);
    int (*mig_mode)(struct nvml_device *device, unsigned *current, unsigned *pending);
    int (*virtualization)(struct nvml_device *device, unsigned *mode);
    int (*processes)(struct nvml_device *device, unsigned *count, struct nvml_process *processes);
    int (*mps_processes)(struct nvml_device *device, unsigned *count, struct nvml_process *processes);
};

/* Opens and initialises NVML; `ready` says whether that went well. */
void nvml_open(struct nvml *nvml, const struct option_list *candidates);

/* Writes the driver's version as a JSON string, or null where it is not to be had. */
void nvml_print_driver(const struct nvml *nvml, FILE *out);

/* Answers the requests `gpus` and `processes` with one line each. */
void nvml_answer_gpus(const struct nvml *nvml, FILE *out);
void nvml_answer_processes(const struct nvml *nvml, FILE *out);

#endif
