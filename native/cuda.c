/*
 * snapshot-cuda: asks the CUDA driver to lock, checkpoint, restore and unlock processes. It starts the driver once, which takes long,
 * and then answers requests, one after the other: a call that hangs costs this process and no other. A program of its own, because a
 * static one such as snapshot-helper cannot load libcuda.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common.h"
#include "cuda-driver.h"
#include "cuda-nvml.h"
#include "cuda-requests.h"

enum { EXIT_NOT_READY = 3, LINE_SIZE = 64 * 1024 };

static const char usage[] = "usage: snapshot-cuda [--libcuda PATH]… [--libnvml PATH]…\n"
                            "       snapshot-cuda --version | --help\n"
                            "Answers one request per line of standard input with one line of JSON.\n";

struct libraries {
    struct option_list cuda;
    struct option_list nvml;
};

static int wrong_usage(const char *what, const char *which) {
    fprintf(stderr, "snapshot-cuda: %s: %s\n%s", what, which, usage);
    return EXIT_USAGE;
}

static int parse_arguments(int argc, char **argv, struct libraries *libraries) {
    libraries->cuda.items = calloc((size_t)argc, sizeof *libraries->cuda.items);
    libraries->nvml.items = calloc((size_t)argc, sizeof *libraries->nvml.items);
    if (libraries->cuda.items == NULL || libraries->nvml.items == NULL)
        return fail("calloc", "arguments", errno);
    for (int at = 1; at < argc; at += 2) {
        struct option_list *list = strcmp(argv[at], "--libcuda") == 0   ? &libraries->cuda
                                   : strcmp(argv[at], "--libnvml") == 0 ? &libraries->nvml
                                                                        : NULL;
        if (list == NULL)
            return wrong_usage("unknown argument", argv[at]);
        if (at + 1 == argc || *argv[at + 1] == '\0')
            return wrong_usage("missing value", argv[at]);
        list->items[list->count++] = argv[at + 1];
    }
    return 0;
}

/* Settings of a CUDA process, which this is none of, could hide GPUs from it, send it to MPS, or load a tool into it. */
static void forget_cuda_settings(void) {
    static const char prefix[] = "CUDA_";
    for (char **setting = environ; *setting != NULL;) {
        char name[256];
        size_t length = strcspn(*setting, "=");
        if (strncmp(*setting, prefix, sizeof prefix - 1) != 0 || length >= sizeof name) {
            setting++;
            continue;
        }
        memcpy(name, *setting, length);
        name[length] = '\0';
        /* The rest moves up by one. */
        unsetenv(name);
    }
}

/*
 * Makes this process depend on its parent and on nothing else that it inherited. Libraries print what they like to standard output, so
 * answers go to a descriptor that only this program knows. Returns the stream, or NULL after reporting.
 */
static FILE *detach(pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return fail("prctl", "PR_SET_PDEATHSIG", errno), NULL;
    if (getppid() != parent)
        return fail_code(NULL, "prctl", "PR_SET_PDEATHSIG", 0, "the parent has ended"), NULL;
    forget_cuda_settings();
    if (close_range(3, ~0U, 0) != 0)
        return fail("close_range", "descriptors", errno), NULL;
    int answers = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    FILE *out = answers < 0 ? NULL : fdopen(answers, "w");
    if (out == NULL)
        return fail("dup", "stdout", errno), NULL;
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return fail("dup2", "stderr", errno), NULL;
    return out;
}

/* Reads the rest of a line. Returns false at the end of the input: what comes before it without a newline was not sent whole. */
static bool read_line(char *line, size_t size, bool *overlong, bool *has_nul) {
    size_t length = 0;
    int byte;
    *overlong = *has_nul = false;
    while ((byte = getc(stdin)) != '\n') {
        if (byte == EOF)
            return false;
        *has_nul |= byte == '\0';
        *overlong |= length == size - 1;
        if (length < size - 1)
            line[length++] = (char)byte;
    }
    line[length] = '\0';
    return true;
}

/* Answers requests until the end of the input. Returns the exit status. */
static int serve(const struct session *session) {
    static char line[LINE_SIZE + 1];
    bool overlong;
    bool has_nul;
    while (read_line(line, sizeof line, &overlong, &has_nul)) {
        if (overlong)
            answer_bad_request(session, "a request has at most %d bytes", LINE_SIZE);
        else if (has_nul)
            answer_bad_request(session, "a request has no zero byte");
        else
            answer_request(session, line);
        if (fflush(session->out) != 0)
            return fail("write", "answers", errno);
    }
    return ferror(stdin) ? fail("read", "requests", errno) : 0;
}

/* Says what was found, or why there is nothing to work with. Returns the exit status of the latter, or 0. */
static int say_hello(struct driver *driver, struct nvml *nvml, const struct libraries *libraries, FILE *out) {
    int version = 0;
    bool ready = driver_open(driver, &libraries->cuda, &version, out) == NULL;
    if (ready) {
        nvml_open(nvml, &libraries->nvml);
        fprintf(out, "{\"ready\":true,\"driverApi\":%d,\"driver\":", version);
        nvml_print_driver(nvml, out);
        fputs(",\"libcuda\":", out);
        json_string(out, driver->library.path);
        fprintf(out, ",\"nvml\":%s}\n", nvml->ready ? "true" : "false");
    }
    if (fflush(out) != 0)
        return fail("write", "answers", errno);
    return ready ? 0 : EXIT_NOT_READY;
}

int main(int argc, char **argv) {
    static struct driver driver;
    static struct nvml nvml;
    pid_t parent = getppid();
    struct libraries libraries = {0};
    current_verb = "snapshot-cuda";
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts("snapshot-cuda " VERSION), finish();
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage, stdout), finish();
    int rc = parse_arguments(argc, argv, &libraries);
    if (rc != 0)
        return rc;
    FILE *out = detach(parent);
    if (out == NULL)
        return EXIT_FAILED;
    rc = say_hello(&driver, &nvml, &libraries, out);
    if (rc == 0)
        rc = serve(&(struct session){.driver = &driver, .nvml = &nvml, .out = out});
    /* Not exit: what the driver does at the end of a process may hang, and the kernel takes back everything anyway. */
    _exit(rc);
}
