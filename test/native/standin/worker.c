/*
 * standin-worker: a process that stands for a CUDA process, real in everything but its GPU (standin.h). It has memory on GPUs, fills it
 * with content of its own, and works on it: every so often it counts on, in that memory, and says so on standard output,
 *
 *   {"beat":12,"hash":"0123456789abcdef","reported":["GPU-…"],"on":["GPU-…"]}
 *
 * where `hash` is that of all its device memory but the counter, and so the same for as long as the process lives, restored or not;
 * `reported` are the GPUs that it saw when it started, and `on` those that its memory lies on. The first line says that it is ready. Locked,
 * it stops working. Checkpointed, it has no device node and no device memory open or mapped, only a copy in host memory, so that CRIU can
 * dump it. SIGUSR2 makes it start another one (with the name `spawned`), SIGTERM ends it.
 *
 *   --name NAME             for faults to find it by, and nothing else
 *   --gpu N                 has memory on the Nth GPU that it sees; may be repeated; 0 without it
 *   --bytes N               of memory on each of them; 1 MiB without it
 *   --host-copy KIND        of device memory while checkpointed: private (as measured for driver 580), shared, or memfd
 *   --every MS              one beat, 50 ms without it
 *   --report FILE           also writes each line to this file, in the place of the last one
 *   --peer-access           can be locked and checkpointed, but its restore fails and the process is lost
 *   --forked-child          has a child by fork that only waits, and inherits the mappings without being a CUDA process
 *   --no-restore-thread     is itself none: holds device mappings, and no call knows it
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "worker.h"

struct options {
    size_t gpus[STANDIN_GPUS];
    size_t gpu_count;
    size_t bytes;
    unsigned every_ms;
    char *report;
    bool forked_child;
    bool no_restore_thread;
};

static struct worker worker = {.work = PTHREAD_MUTEX_INITIALIZER};
static struct options options = {.bytes = 1 << 20, .every_ms = 50};

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "standin-worker: %s\n", what);
    exit(1);
}

static enum host_copy parse_copy(const char *kind) {
    if (strcmp(kind, "private") == 0)
        return COPY_PRIVATE;
    if (strcmp(kind, "shared") == 0)
        return COPY_SHARED;
    if (strcmp(kind, "memfd") == 0)
        return COPY_MEMFD;
    die("--host-copy private|shared|memfd");
}

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"name", required_argument, NULL, 'n'},     {"gpu", required_argument, NULL, 'g'},
        {"bytes", required_argument, NULL, 'b'},    {"host-copy", required_argument, NULL, 'c'},
        {"every", required_argument, NULL, 'e'},    {"report", required_argument, NULL, 'r'},
        {"peer-access", no_argument, NULL, 'p'},    {"forked-child", no_argument, NULL, 'f'},
        {"no-restore-thread", no_argument, NULL, 't'}, {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'g' && options.gpu_count < STANDIN_GPUS)
            options.gpus[options.gpu_count++] = strtoul(optarg, NULL, 10);
        else if (option == 'b')
            options.bytes = strtoul(optarg, NULL, 10);
        else if (option == 'c')
            worker.host_copy = parse_copy(optarg);
        else if (option == 'e')
            options.every_ms = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'r')
            options.report = optarg;
        else if (option == 'p')
            worker.peer_access = true;
        else if (option == 'f')
            options.forked_child = true;
        else if (option == 't')
            options.no_restore_thread = true;
        else if (option != 'n')
            die("see the head of worker.c for its options");
    }
    if (options.gpu_count == 0)
        options.gpu_count = 1;
}

/* Fills device memory with what no other process has. The first word of the first piece is the counter. */
static void fill(void) {
    uint64_t word;
    if (getrandom(&word, sizeof word, 0) != sizeof word)
        die("getrandom");
    for (size_t i = 0; i < worker.allocation_count; i++)
        for (size_t at = 0; at < worker.allocations[i].bytes / sizeof word; at++)
            worker.allocations[i].device[at] = word = word * 6364136223846793005ULL + 1442695040888963407ULL;
    worker.allocations[0].device[0] = 0;
}

static uint64_t hash_memory(void) {
    uint64_t hash = 14695981039346656037ULL;
    for (size_t i = 0; i < worker.allocation_count; i++)
        for (size_t at = i == 0 ? 1 : 0; at < worker.allocations[i].bytes / sizeof hash; at++)
            hash = (hash ^ worker.allocations[i].device[at]) * 1099511628211ULL;
    return hash;
}

/* Counts on, and says so. */
static void beat(void) {
    char line[2048];
    size_t length = (size_t)snprintf(line, sizeof line, "{\"beat\":%llu,\"hash\":\"%016llx\",\"reported\":[",
                                     (unsigned long long)++worker.allocations[0].device[0],
                                     (unsigned long long)hash_memory());
    for (size_t i = 0; i < worker.seen_count; i++)
        length += (size_t)snprintf(line + length, sizeof line - length, "%s\"%s\"", i == 0 ? "" : ",",
                                   worker.seen[i].reported);
    length += (size_t)snprintf(line + length, sizeof line - length, "],\"on\":[");
    for (size_t i = 0; i < worker.allocation_count; i++)
        length += (size_t)snprintf(line + length, sizeof line - length, "%s\"%s\"", i == 0 ? "" : ",",
                                   worker.seen[worker.allocations[i].gpu].uuid);
    snprintf(line + length, sizeof line - length, "]}\n");
    fputs(line, stdout);
    fflush(stdout);
    if (options.report != NULL)
        standin_write(options.report, line);
}

static void *work(void *unused) {
    for (;; standin_sleep(options.every_ms)) {
        pthread_mutex_lock(&worker.work);
        beat();
        pthread_mutex_unlock(&worker.work);
    }
    return unused;
}

/* Starts another process; it ends with this one. */
static void start_another(const char *program, bool is_cuda) {
    if (fork() != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (is_cuda) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execl("/proc/self/exe", program, "--name", "spawned", NULL);
        _exit(1);
    }
    for (;;)
        pause();
}

static void start_thread(void *(*body)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, &worker) != 0)
        die("pthread_create");
}

int main(int argc, char **argv) {
    sigset_t signals;
    parse_options(argc, argv);
    /* As runtimes make the first process of a container. CRIU wants the session inside of what it dumps. */
    setsid();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR2);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    standin_prepare();
    worker_find_gpus(&worker);
    for (size_t i = 0; i < options.gpu_count; i++)
        if (worker_allocate(&worker, options.gpus[i], options.bytes) != CUDA_OK)
            die("no such GPU, or not so much memory on it");
    fill();
    if (options.forked_child)
        start_another(argv[0], false);
    if (!options.no_restore_thread) {
        sem_init(&worker.serving, 0, 0);
        start_thread(worker_serve);
        /* Whoever has read a beat may call. */
        sem_wait(&worker.serving);
    }
    start_thread(work);
    for (;;) {
        int number = 0;
        sigwait(&signals, &number);
        if (number == SIGTERM)
            return 0;
        if (number == SIGUSR2)
            start_another(argv[0], true);
    }
}
