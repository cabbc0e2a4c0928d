/*
 * bulk-fill: the blocks of a bulk file back into the memory of stopped processes.
 *
 * Each thread reads a block into a buffer of its own, verifies the tag there, and writes from there: what was verified is what is used,
 * whoever else can write to the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bulk-index.h"
#include "bulk-mac.h"
#include "bulk-text.h"
#include "bulk-work.h"
#include "common.h"
#include "target.h"
#include "verbs.h"

/* A process of the index and the one that it has become. */
struct mapping {
    uint64_t process;
    struct target target;
};

struct filler {
    struct block_index index;
    struct mapping *mappings;
    size_t mapping_count;
    bool verify_only;
    unsigned char key[KEY_BYTES];
    int bulk;
    _Atomic size_t next; /* block */
};

/* Parses "PROC=PID:START" and pins the process. Returns 0, 1 after reporting, or 2 when malformed. */
static int add_mapping(struct filler *filler, const char *text, const char *proc) {
    char number[24];
    uint64_t pid, start;
    struct mapping *mapping = &filler->mappings[filler->mapping_count];
    const char *equals = strchr(text, '=');
    if (equals == NULL || (size_t)(equals - text) >= sizeof number)
        return EXIT_USAGE;
    snprintf(number, sizeof number, "%.*s", (int)(equals - text), text);
    if (!parse_number(number, UINT64_MAX, &mapping->process) || !parse_process(equals + 1, &pid, &start))
        return EXIT_USAGE;
    for (size_t i = 0; i < filler->mapping_count; i++)
        if (filler->mappings[i].process == mapping->process)
            return EXIT_USAGE;
    mapping->target = TARGET_NONE;
    filler->mapping_count++;
    return target_open(&mapping->target, proc, (pid_t)pid, start);
}

static const struct target *find_target(const struct filler *filler, uint64_t process) {
    for (size_t i = 0; i < filler->mapping_count; i++)
        if (filler->mappings[i].process == process)
            return &filler->mappings[i].target;
    return NULL;
}

/* Every process of the index must have become one. Returns 0, or 1 after reporting. */
static int check_mappings(const struct filler *filler) {
    for (size_t i = 0; i < filler->index.count; i++) {
        uint64_t process = filler->index.blocks[i].process;
        if ((i == 0 || process != filler->index.blocks[i - 1].process) && find_target(filler, process) == NULL)
            return fail_code("BAD_INDEX", "map", "process", 0, "process %llu of the index has no PROC=PID:START",
                             (unsigned long long)process);
    }
    return 0;
}

/* Reports a block's failure if it is the first. Returns false. */
static bool block_failed(struct work *work, const struct block *block, const char *code, const char *step, int err,
                         const char *why) {
    char where[80];
    snprintf(where, sizeof where, "process %llu address %llu offset %llu", (unsigned long long)block->process,
             (unsigned long long)block->address, (unsigned long long)block->offset);
    if (work_fail(work))
        fail_code(code, step, where, err, "%s: %s", where, why);
    return false;
}

static bool read_block(struct work *work, const struct block *block, char *buffer) {
    const struct filler *filler = work->context;
    for (size_t have = 0; have < block->length;) {
        ssize_t got = pread(filler->bulk, buffer + have, block->length - have, (off_t)(block->offset + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return block_failed(work, block, NULL, "read", errno, strerror(errno));
        if (got == 0)
            return block_failed(work, block, "DIGEST_MISMATCH", "read", 0, "the bulk file ends before the block does");
        have += (size_t)got;
    }
    return true;
}

static bool write_block(struct work *work, const struct block *block, char *buffer) {
    const struct target *target = find_target(work->context, block->process);
    /* The number is the process's as long as the pidfd says that it lives; it is stopped, so nothing but a kill ends it. */
    if (target == NULL || !target_lives(target))
        return block_failed(work, block, "TARGET_GONE", "process_vm_writev", 0, "the process has ended");
    struct iovec from = {.iov_base = buffer, .iov_len = block->length};
    struct iovec to = {.iov_base = (void *)(uintptr_t)block->address, .iov_len = block->length};
    ssize_t wrote = process_vm_writev(target->pid, &from, 1, &to, 1, 0);
    if (wrote == (ssize_t)block->length)
        return true;
    int err = wrote < 0 ? errno : 0;
    if (err == ESRCH)
        return block_failed(work, block, "TARGET_GONE", "process_vm_writev", err, "the process has ended");
    return block_failed(work, block, "FILL_SHORT", "process_vm_writev", err,
                        "not all of the block could be written into the process");
}

static void fill_blocks(struct work *work, size_t thread) {
    (void)thread;
    struct filler *filler = work->context;
    unsigned char tag[TAG_BYTES];
    struct bulk_mac *mac = bulk_mac_new(filler->key);
    char *buffer = mmap(NULL, BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool good = mac != NULL && buffer != MAP_FAILED;
    if (!good && work_fail(work))
        fail("start thread", "bulk", ENOMEM);
    while (good && !work_failed(work)) {
        size_t at = filler->next++;
        if (at >= filler->index.count)
            break;
        const struct block *block = &filler->index.blocks[at];
        good = read_block(work, block, buffer);
        if (good && !bulk_mac_tag(mac, block->offset, buffer, block->length, tag))
            good = block_failed(work, block, NULL, "tag", 0, "the tag could not be computed");
        if (good && !bulk_tag_equal(tag, block->tag))
            good = block_failed(work, block, "DIGEST_MISMATCH", "verify", 0, "the block is not the one that was written");
        if (good && !filler->verify_only)
            good = write_block(work, block, buffer);
        if (good)
            work->done_bytes += block->length;
    }
    if (buffer != MAP_FAILED)
        munmap(buffer, BLOCK_BYTES);
    bulk_mac_free(mac);
}

/* Opens the bulk file and reads its index. Returns 0, or 1 after reporting. */
static int open_bulk(struct filler *filler, const char *bulk, const char *index) {
    struct stat status;
    filler->bulk = open(bulk, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (filler->bulk < 0 || fstat(filler->bulk, &status) != 0)
        return fail("open", bulk, errno);
    if (!S_ISREG(status.st_mode))
        return fail_code(NULL, "open", bulk, 0, "%s is not a regular file", bulk);
    if (index_read(&filler->index, index, (uint64_t)status.st_size) != 0)
        return EXIT_FAILED;
    return filler->verify_only ? 0 : check_mappings(filler);
}

static int fill(struct filler *filler, size_t threads) {
    static struct work work;
    int result = work_start(&work, threads, fill_blocks, filler);
    result |= work_wait(&work, true);
    if (result != 0)
        return EXIT_FAILED;
    printf("{\"blocks\":%zu,\"bytes\":%llu}\n", filler->index.count, (unsigned long long)work.done_bytes);
    return finish();
}

int verb_bulk_fill(int argc, char **argv) {
    static struct filler filler;
    struct operands processes;
    uint64_t threads = 4, key = 0;
    const char *bulk = NULL, *index = NULL, *proc = "/proc";
    const struct option_spec specs[] = {
        {"bulk", OPTION_STRING, true, &bulk, "FILE"},     {"index", OPTION_STRING, true, &index, "FILE"},
        {"key-fd", OPTION_NUMBER, true, &key, "FD"},      {"threads", OPTION_NUMBER, false, &threads, "N"},
        {"verify-only", OPTION_FLAG, false, &filler.verify_only, "0|1"},
        {"proc", OPTION_STRING, false, &proc, "DIR"},     {0},
    };
    const char *hint = "[PROC=PID:START…]";
    int result = parse_options(argc, argv, specs, &processes, hint);
    if (result != 0)
        return result;
    if (!work_threads_valid(threads))
        return usage_error(specs, hint, "1 to %d threads", MAX_THREADS);
    filler.mappings = calloc((size_t)processes.count + 1, sizeof *filler.mappings);
    if (filler.mappings == NULL)
        return fail("malloc", "processes", ENOMEM);
    for (int i = 0; result == 0 && i < processes.count; i++)
        if ((result = add_mapping(&filler, processes.items[i], proc)) == EXIT_USAGE)
            usage_error(specs, hint, "malformed or given twice: %s", processes.items[i]);
    if (result == 0)
        result = bulk_key_read(key, filler.key);
    if (result == 0)
        result = open_bulk(&filler, bulk, index);
    if (result == 0)
        result = fill(&filler, threads);
    for (size_t i = 0; i < filler.mapping_count; i++)
        target_close(&filler.mappings[i].target);
    free(filler.mappings);
    index_free(&filler.index);
    explicit_bzero(filler.key, sizeof filler.key);
    return result;
}
