/* The processes that the tests of the native programs act upon. `subject MODE [FILE]`; prints "ready" once it is what its mode says. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ready(void) {
    puts("ready");
    fflush(stdout);
}

static atomic_int running;

static void *spin(void *unused) {
    running++;
    for (;;)
        __asm__ volatile("" ::: "memory");
    return unused;
}

static void *sleep_on(void *unused) {
    running++;
    for (;;)
        pause();
    return unused;
}

/* Starts a thread and waits until it runs: until then, the library keeps every signal blocked in it. */
static void start_thread(void *(*body)(void *)) {
    pthread_t thread;
    int before = running;
    if (pthread_create(&thread, NULL, body, NULL) != 0)
        exit(99);
    while (running == before)
        sched_yield();
}

/* Adds a filter that refuses one system call with EPERM. */
static void refuse(unsigned number) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        exit(98);
}

/* Appends the number of every signal that arrives to FILE; SIGTERM also ends it, with 7. */
static void record(const char *path) {
    uint64_t all = UINT64_MAX;
    FILE *file = fopen(path, "a");
    if (file == NULL)
        exit(97);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
    ready();
    for (;;) {
        siginfo_t info;
        long number = syscall(SYS_rt_sigtimedwait, &all, &info, NULL, 8);
        fprintf(file, "%ld\n", number);
        fflush(file);
        if (number == SIGTERM)
            exit(7);
    }
}

/* Prints the name of every file of the directory that somebody opens, as often as it is opened. */
static void tell_opens(const char *directory) {
    _Alignas(struct inotify_event) char events[4096];
    int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, directory, IN_OPEN) < 0)
        exit(98);
    ready();
    for (;;) {
        ssize_t length = read(watch, events, sizeof events);
        for (ssize_t at = 0; at < length;) {
            const struct inotify_event *event = (const void *)(events + at);
            if (event->len > 0)
                puts(event->name);
            at += (ssize_t)(sizeof *event + event->len);
        }
        fflush(stdout);
    }
}

static void leave_namespace(int number) {
    (void)number;
    if (unshare(CLONE_NEWUTS) != 0)
        _exit(96);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "busy") == 0) {
        ready();
        spin(NULL);
    } else if (strcmp(mode, "threads") == 0) {
        for (int i = 0; i < 3; i++)
            start_thread(i == 0 ? spin : sleep_on);
        ready();
        sleep_on(NULL);
    } else if (strcmp(mode, "leaderless") == 0) {
        start_thread(sleep_on);
        ready();
        pthread_exit(NULL);
    } else if (strcmp(mode, "filters") == 0) {
        refuse(SYS_ptrace);
        refuse(SYS_mount);
        ready();
        sleep_on(NULL);
    } else if (strcmp(mode, "record") == 0 && argc > 2) {
        record(argv[2]);
    } else if (strcmp(mode, "tell-opens") == 0 && argc > 2) {
        tell_opens(argv[2]);
    } else if (strcmp(mode, "migrant") == 0) {
        signal(SIGUSR1, leave_namespace);
        ready();
        sleep_on(NULL);
    } else if (strcmp(mode, "ipc") == 0) {
        if (unshare(CLONE_NEWIPC) != 0 || shmget(IPC_PRIVATE, 4096, 0600) < 0 || shmget(IPC_PRIVATE, 4096, 0600) < 0 ||
            semget(IPC_PRIVATE, 3, 0600) < 0 || msgget(IPC_PRIVATE, 0600) < 0)
            exit(95);
        ready();
        sleep_on(NULL);
    }
    return 94;
}
