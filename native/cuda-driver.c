#include "cuda-driver.h"

#include <stdarg.h>
#include <stddef.h>

static const struct symbol functions[] = {
    {"cuInit", offsetof(struct driver, init)},
    {"cuDriverGetVersion", offsetof(struct driver, get_version)},
    {"cuGetErrorName", offsetof(struct driver, error_name)},
    {"cuGetErrorString", offsetof(struct driver, error_text)},
    {"cuCheckpointProcessGetRestoreThreadId", offsetof(struct driver, restore_thread)},
    {"cuCheckpointProcessGetState", offsetof(struct driver, state)},
    {"cuCheckpointProcessLock", offsetof(struct driver, lock)},
    {"cuCheckpointProcessCheckpoint", offsetof(struct driver, checkpoint)},
    {"cuCheckpointProcessRestore", offsetof(struct driver, restore)},
    {"cuCheckpointProcessUnlock", offsetof(struct driver, unlock)},
    {0},
};

/* The driver's name of an error, or one with its number where the driver does not know it. */
static void error_name(const struct driver *driver, int error, char *name, size_t size) {
    const char *known = NULL;
    if (driver->error_name(error, &known) == DRIVER_OK && known != NULL)
        snprintf(name, size, "%s", known);
    else
        snprintf(name, size, "CUDA_ERROR_%d", error);
}

/* Prints the line that says why there is no driver. Returns the reason. NAME is the driver's name of the error, or "". */
__attribute__((format(printf, 4, 5))) static const char *not_ready(FILE *out, const char *reason, const char *name,
                                                                   const char *fmt, ...) {
    char message[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    fputs("{\"ready\":false,\"reason\":", out);
    json_string(out, reason);
    fputs(",\"message\":", out);
    json_string(out, message);
    fputs(",\"name\":", out);
    json_string(out, name);
    fputs("}\n", out);
    return reason;
}

/* As not_ready, for a call that failed while the driver was being initialised. */
static const char *init_failed(const struct driver *driver, const char *call, int error, FILE *out) {
    char name[64];
    const char *text = NULL;
    error_name(driver, error, name, sizeof name);
    driver->error_text(error, &text);
    return not_ready(out, error == DRIVER_NO_DEVICE ? "NO_DEVICE" : "INIT_FAILED", name, "%s of %s failed: %s", call,
                     driver->library.path, text != NULL ? text : name);
}

const char *driver_open(struct driver *driver, const struct option_list *candidates, int *version, FILE *out) {
    if (!library_open(&driver->library, candidates, "libcuda.so.1"))
        return not_ready(out, "NO_LIBCUDA", "", "no libcuda could be opened: %s", driver->library.tried);
    const char *missing = library_resolve(&driver->library, functions, driver);
    if (missing != NULL)
        return not_ready(out, "TOO_OLD", "", "%.3072s has no %s: driver 580 or later is needed", driver->library.path,
                         missing);
    int error = driver->init(0);
    if (error != DRIVER_OK)
        return init_failed(driver, "cuInit", error, out);
    error = driver->get_version(version);
    if (error != DRIVER_OK)
        return init_failed(driver, "cuDriverGetVersion", error, out);
    return NULL;
}

void driver_print_error(const struct driver *driver, int error, FILE *out) {
    char name[64];
    const char *text = NULL;
    error_name(driver, error, name, sizeof name);
    driver->error_text(error, &text);
    fprintf(out, "\"error\":%d,\"name\":", error);
    json_string(out, name);
    fputs(",\"text\":", out);
    json_string(out, text != NULL ? text : "");
}
