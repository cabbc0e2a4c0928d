/*
 * bulk-write: the large ranges out of CRIU's page images into one dense file.
 *
 * N threads take blocks in plan order; a block that is not all zero gets the next place in the bulk file and, because its tag's nonce is that
 * place, its tag after that. Meanwhile the first thread copies what stays in the images.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bulk-index.h"
#include "bulk-mac.h"
#include "bulk-plan.h"
#include "bulk-text.h"
#include "bulk-work.h"
#include "common.h"
#include "verbs.h"

struct writer {
    struct plan plan;
    unsigned char key[KEY_BYTES];
    int bulk;
    size_t move; /* where the next block is; under the work's lock */
    uint64_t moved;
    struct block_index index; /* under the work's lock */
    size_t room;
    _Atomic uint64_t end; /* of the bulk file */
    _Atomic uint64_t zero_bytes;
};

/* Whether all of it is zero. Most blocks that are not show it in their first page. */
static bool is_zero(const void *data, size_t length) {
    for (const uint64_t *at = data, *end = at + length / sizeof *at; at < end; at += 8)
        if ((at[0] | at[1] | at[2] | at[3] | at[4] | at[5] | at[6] | at[7]) != 0)
            return false;
    return true;
}

/* Takes the next block; cut where addresses are multiples of its size, so that no block has part of two huge pages. */
static bool next_block(struct work *work, struct block *block, uint32_t *source, uint64_t *offset) {
    struct writer *writer = work->context;
    pthread_mutex_lock(&work->lock);
    bool found = writer->move < writer->plan.move_count;
    if (found) {
        const struct plan_move *move = &writer->plan.moves[writer->move];
        uint64_t address = move->address + writer->moved;
        uint64_t length = BLOCK_BYTES - address % BLOCK_BYTES;
        if (length > move->length - writer->moved)
            length = move->length - writer->moved;
        *block = (struct block){.process = move->process, .address = address, .length = (uint32_t)length};
        *source = move->source;
        *offset = move->offset + writer->moved;
        writer->moved += length;
        if (writer->moved == move->length) {
            writer->moved = 0;
            writer->move++;
        }
    }
    pthread_mutex_unlock(&work->lock);
    return found;
}

/* Makes room for one more block. False when there is no memory. */
static bool make_room(struct writer *writer) {
    if (writer->index.count < writer->room)
        return true;
    size_t room = writer->room == 0 ? 1024 : writer->room * 2;
    struct block *larger = reallocarray(writer->index.blocks, room, sizeof *larger);
    if (larger == NULL)
        return false;
    writer->index.blocks = larger;
    writer->room = room;
    return true;
}

/* Adds a block that was written to the index. False when there is no memory. */
static bool remember(struct work *work, const struct block *block) {
    struct writer *writer = work->context;
    pthread_mutex_lock(&work->lock);
    bool ok = make_room(writer);
    if (ok)
        writer->index.blocks[writer->index.count++] = *block;
    pthread_mutex_unlock(&work->lock);
    return ok;
}

/* Reads or writes all of LENGTH bytes. Returns 0 or -1 with errno (EIO: the file ended). */
static int transfer(bool out, int file, char *data, size_t length, uint64_t offset) {
    while (length > 0) {
        ssize_t did = out ? pwrite(file, data, length, (off_t)offset) : pread(file, data, length, (off_t)offset);
        if (did < 0 && errno == EINTR)
            continue;
        if (did <= 0) {
            errno = did < 0 ? errno : EIO;
            return -1;
        }
        data += did;
        length -= (size_t)did;
        offset += (uint64_t)did;
    }
    return 0;
}

/* Moves one block. Returns NULL, or the step that failed, with errno. */
static const char *move_block(struct work *work, struct bulk_mac *mac, char *buffer, struct block *block,
                              uint32_t source, uint64_t offset) {
    struct writer *writer = work->context;
    if (transfer(false, writer->plan.sources[source].descriptor, buffer, block->length, offset) != 0)
        return "read source";
    if (is_zero(buffer, block->length)) {
        writer->zero_bytes += block->length;
        return NULL;
    }
    block->offset = atomic_fetch_add(&writer->end, block->length);
    errno = 0;
    if (!bulk_mac_tag(mac, block->offset, buffer, block->length, block->tag))
        return "tag";
    if (transfer(true, writer->bulk, buffer, block->length, block->offset) != 0)
        return "write bulk";
    errno = ENOMEM;
    return remember(work, block) ? NULL : "malloc";
}

static void write_blocks(struct work *work, size_t thread) {
    (void)thread;
    struct writer *writer = work->context;
    struct block block;
    uint32_t source;
    uint64_t offset;
    const char *failed = NULL;
    struct bulk_mac *mac = bulk_mac_new(writer->key);
    char *buffer = mmap(NULL, BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mac == NULL || buffer == MAP_FAILED) {
        failed = "start thread";
        errno = ENOMEM;
    }
    while (failed == NULL && !work_failed(work) && next_block(work, &block, &source, &offset))
        failed = move_block(work, mac, buffer, &block, source, offset);
    if (failed != NULL) {
        int err = errno;
        if (work_fail(work))
            fail(failed, "bulk", err);
    }
    if (buffer != MAP_FAILED)
        munmap(buffer, BLOCK_BYTES);
    bulk_mac_free(mac);
}

/* Appends one part of a source to an output. Returns 0 or -1 with errno. */
static int copy_part(int from, int to, uint64_t offset, uint64_t length) {
    static char buffer[BLOCK_BYTES];
    bool in_kernel = true;
    while (length > 0) {
        loff_t at = (loff_t)offset;
        size_t want = length < BLOCK_BYTES ? (size_t)length : BLOCK_BYTES;
        ssize_t did = in_kernel ? copy_file_range(from, &at, to, NULL, length, 0) : pread(from, buffer, want, at);
        if (did < 0 && errno == EINTR)
            continue;
        if (in_kernel && did <= 0) { /* not between these filesystems */
            in_kernel = false;
            continue;
        }
        if (did <= 0) {
            errno = did < 0 ? errno : EIO;
            return -1;
        }
        for (ssize_t wrote = 0; !in_kernel && wrote < did;) {
            ssize_t step = write(to, buffer + wrote, (size_t)(did - wrote));
            if (step < 0 && errno != EINTR)
                return -1;
            wrote += step > 0 ? step : 0;
        }
        offset += (uint64_t)did;
        length -= (uint64_t)did;
    }
    return 0;
}

/* Copies what stays, in plan order, and fsyncs the outputs. Returns 0, or 1 after reporting unless a thread has failed first. */
static int keep_parts(struct work *work, const struct plan *plan, uint64_t *kept) {
    for (size_t i = 0; i < plan->keep_count && !work_failed(work); i++) {
        const struct plan_keep *keep = &plan->keeps[i];
        if (copy_part(plan->sources[keep->source].descriptor, plan->outs[keep->out].descriptor, keep->offset,
                      keep->length) != 0) {
            int err = errno;
            return work_fail(work) ? fail("keep", "out", err) : EXIT_FAILED;
        }
        *kept += keep->length;
    }
    for (size_t i = 0; i < MAX_FILES; i++)
        if (plan->outs[i].descriptor >= 0 && fsync(plan->outs[i].descriptor) != 0) {
            int err = errno;
            return work_fail(work) ? fail("fsync", "out", err) : EXIT_FAILED;
        }
    return 0;
}

int verb_bulk_write(int argc, char **argv) {
    static struct writer writer;
    static struct work work;
    uint64_t threads = 4, key = 0, kept = 0;
    const char *plan = NULL, *bulk = NULL, *index = NULL;
    const struct option_spec specs[] = {
        {"plan", OPTION_STRING, true, &plan, "FILE"},    {"bulk", OPTION_STRING, true, &bulk, "FILE"},
        {"index", OPTION_STRING, true, &index, "FILE"},  {"key-fd", OPTION_NUMBER, true, &key, "FD"},
        {"threads", OPTION_NUMBER, false, &threads, "N"}, {0},
    };
    int result = parse_options(argc, argv, specs, NULL, NULL);
    if (result != 0)
        return result;
    if (!work_threads_valid(threads))
        return usage_error(specs, NULL, "1 to %d threads", MAX_THREADS);
    if (bulk_key_read(key, writer.key) != 0)
        return EXIT_FAILED;
    result = plan_read(&writer.plan, plan);
    if (result == 0) {
        writer.bulk = open(bulk, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (writer.bulk < 0)
            result = fail("create", bulk, errno);
    }
    if (result == 0) {
        result = work_start(&work, threads, write_blocks, &writer);
        if (result == 0)
            result = keep_parts(&work, &writer.plan, &kept);
        result |= work_wait(&work, false);
    }
    if (result == 0 && fsync(writer.bulk) != 0)
        result = fail("fsync", bulk, errno);
    if (result == 0)
        result = index_write(&writer.index, index);
    if (result == 0) {
        printf("{\"blocks\":%zu,\"bytes\":%llu,\"zeroBytes\":%llu,\"keptBytes\":%llu}\n", writer.index.count,
               (unsigned long long)writer.end, (unsigned long long)writer.zero_bytes, (unsigned long long)kept);
        result = finish();
    }
    plan_free(&writer.plan);
    index_free(&writer.index);
    explicit_bzero(writer.key, sizeof writer.key);
    return result;
}
