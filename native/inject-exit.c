#include "common.h"
#include "target.h"
#include "trace.h"
#include "verbs.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#ifndef __x86_64__
#error "inject-exit knows the registers of x86_64 only"
#endif

enum { STOP_LIMIT_MS = 500, EXIT_LIMIT_MS = 2000, TRY_LIMIT = 8, SCAN_LIMIT = 64 * 1024 * 1024, USER_CODE_64 = 0x33 };

static const unsigned char syscall_instruction[] = {0x0f, 0x05};

/* Looks for a syscall instruction in [BEGIN, END) of the memory file. Returns its address or 0. */
static uint64_t scan_range(int memory, uint64_t begin, uint64_t end, size_t *budget) {
    static unsigned char page[64 * 1024];
    while (begin < end && *budget > 0) {
        size_t want = end - begin < sizeof page ? (size_t)(end - begin) : sizeof page;
        ssize_t got = pread(memory, page, want, (off_t)begin);
        if (got <= (ssize_t)sizeof syscall_instruction)
            return 0;
        *budget -= (size_t)got < *budget ? (size_t)got : *budget;
        const unsigned char *found = memmem(page, (size_t)got, syscall_instruction, sizeof syscall_instruction);
        if (found != NULL)
            return begin + (uint64_t)(found - page);
        /* One byte again, so that an instruction across the border is seen. */
        begin += (uint64_t)got - (got == (ssize_t)want && begin + (uint64_t)got < end ? 1 : 0);
    }
    return 0;
}

/* Opens the memory or the maps of one thread: those of the process are empty once its main thread has ended. */
static int open_of_thread(const struct target *target, pid_t thread, const char *name) {
    char path[48];
    snprintf(path, sizeof path, "task/%d/%s", thread, name);
    return openat(target->procdir, path, O_RDONLY | O_CLOEXEC);
}

/*
 * The address of some syscall instruction that the target may execute, or 0. Any two such bytes will do, even inside another
 * instruction, because exit_group does not come back. Nothing is written into its memory. Takes over MAPS_DESCRIPTOR.
 */
static uint64_t find_syscall(int memory, int maps_descriptor) {
    cleanup_file FILE *maps = maps_descriptor < 0 ? NULL : fdopen(maps_descriptor, "r");
    if (maps == NULL)
        return 0;
    cleanup_free char *line = NULL;
    size_t size = 0, budget = SCAN_LIMIT;
    while (budget > 0 && getline(&line, &size, maps) > 0) {
        char *at = line;
        uint64_t begin = strtoull(at, &at, 16);
        uint64_t end = *at == '-' ? strtoull(at + 1, &at, 16) : 0;
        if (strncmp(at, " r-x", 4) != 0 && strncmp(at, " rwx", 4) != 0)
            continue;
        if (strstr(line, "[vsyscall]") != NULL)
            continue;
        uint64_t found = scan_range(memory, begin, end, &budget);
        if (found != 0)
            return found;
    }
    return 0;
}

/* The instruction before the stopped thread's next one, when it is a syscall; else any other of the target. 0: none. */
static uint64_t choose_instruction(const struct target *target, pid_t thread, uint64_t rip) {
    unsigned char before[2];
    cleanup_close int memory = open_of_thread(target, thread, "mem");
    if (memory < 0)
        return 0;
    if (pread(memory, before, sizeof before, (off_t)(rip - 2)) == (ssize_t)sizeof before &&
        memcmp(before, syscall_instruction, sizeof before) == 0)
        return rip - 2;
    return find_syscall(memory, open_of_thread(target, thread, "maps"));
}

/* Points the stopped thread at exit_group(CODE). Returns 0 or -1 with errno; on failure its registers are untouched. */
static int redirect(const struct target *target, pid_t thread, int code) {
    struct user_regs_struct registers;
    struct iovec vector = {.iov_base = &registers, .iov_len = sizeof registers};
    if (ptrace(PTRACE_GETREGSET, thread, (void *)NT_PRSTATUS, &vector) != 0)
        return -1;
    errno = EOPNOTSUPP; /* a 32-bit program: other registers, other numbers */
    if (vector.iov_len != sizeof registers || registers.cs != USER_CODE_64)
        return -1;
    uint64_t instruction = choose_instruction(target, thread, registers.rip);
    errno = ENOEXEC;
    if (instruction == 0)
        return -1;
    registers.rip = instruction;
    registers.rax = SYS_exit_group;
    registers.rdi = (unsigned long long)code;
    /* Not in a syscall any more: else the kernel would restart the interrupted one, at two bytes less. */
    registers.orig_rax = UINT64_MAX;
    vector.iov_len = sizeof registers;
    return (int)ptrace(PTRACE_SETREGSET, thread, (void *)NT_PRSTATUS, &vector);
}

/*
 * Lets the redirected thread run until it is about to end, and compares the status it ends with. Signals that come first are held
 * back, and stops passed over: the process is to end. Returns 0, or -1 with errno.
 */
static int await_exit(pid_t thread, int code) {
    long deadline = monotonic_ms() + EXIT_LIMIT_MS;
    int status;
    unsigned long message = 0;
    do {
        if (ptrace(PTRACE_CONT, thread, NULL, NULL) != 0 || trace_wait(thread, deadline, &status) != 0)
            return -1;
    } while (status >> 16 != PTRACE_EVENT_EXIT);
    if (ptrace(PTRACE_GETEVENTMSG, thread, NULL, &message) != 0)
        return -1;
    trace_release(thread);
    errno = ECANCELED; /* it ended, but of something else, e.g. SIGKILL */
    return message == (unsigned long)code << 8 ? 0 : -1;
}

/* `inject-exit`: makes the target call exit_group, in whichever of its threads can be stopped. */
int verb_inject_exit(int argc, char **argv) {
    uint64_t code = 0;
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"code", OPTION_NUMBER, true, &code, "N"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    if (code > 255)
        return usage_error(specs, NULL, "malformed value: --code must be at most 255");
    cleanup_target struct target target = TARGET_NONE;
    cleanup_free pid_t *threads = NULL;
    if (target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    ssize_t count = list_threads(&target, &threads);
    if (count < 0 || target_alive(&target) != 0)
        return EXIT_FAILED;
    /* A thread that has ended or sleeps uninterruptibly cannot be used; another one serves as well. */
    errno = ESRCH;
    for (ssize_t i = 0; i < count && i < TRY_LIMIT; i++) {
        if (trace_stop(threads[i], PTRACE_O_TRACEEXIT, STOP_LIMIT_MS) != 0)
            continue;
        if (redirect(&target, threads[i], (int)code) != 0) {
            trace_release(threads[i]);
            continue;
        }
        if (await_exit(threads[i], (int)code) != 0)
            return fail("exit_group", "exit status", errno);
        printf("{\"injected\":%llu}\n", (unsigned long long)code);
        return finish();
    }
    return fail("ptrace", "threads", errno);
}
