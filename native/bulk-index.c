#include "bulk-index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bulk-text.h"
#include "common.h"

/* Some ten million blocks: more memory than one machine has. */
#define MAX_INDEX_BYTES ((size_t)1 << 30)

static int by_address(const void *left, const void *right) {
    const struct block *a = left, *b = right;
    if (a->process != b->process)
        return a->process < b->process ? -1 : 1;
    return a->address < b->address ? -1 : a->address > b->address;
}

static int by_offset(const void *left, const void *right) {
    const struct block *a = *(struct block *const *)left, *b = *(struct block *const *)right;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

int index_write(struct block_index *index, const char *path) {
    if (index->count > 1) /* none at all: no array either */
        qsort(index->blocks, index->count, sizeof *index->blocks, by_address);
    int created = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (created < 0)
        return fail("create", path, errno);
    cleanup_file FILE *out = fdopen(created, "w");
    if (out == NULL) {
        close(created);
        return fail("open", path, ENOMEM);
    }
    for (size_t i = 0; i < index->count; i++) {
        const struct block *block = &index->blocks[i];
        fprintf(out, "%llu %llu %u %llu ", (unsigned long long)block->process, (unsigned long long)block->address,
                block->length, (unsigned long long)block->offset);
        for (size_t j = 0; j < TAG_BYTES; j++)
            fprintf(out, "%02x", block->tag[j]);
        fputc('\n', out);
    }
    if (fflush(out) != 0 || ferror(out) || fsync(fileno(out)) != 0)
        return fail("write", path, errno);
    return 0;
}

static int fail_line(const struct lines *lines, const char *what) {
    char where[48];
    snprintf(where, sizeof where, "line %llu", (unsigned long long)lines->number);
    return fail_code("BAD_INDEX", "parse", where, 0, "%s of the index: %s", where, what);
}

/* The tag, in the one form in which it is written. */
static bool take_tag(const char *text, unsigned char tag[TAG_BYTES]) {
    if (strlen(text) != TAG_BYTES * 2 || strspn(text, "0123456789abcdef") != TAG_BYTES * 2)
        return false;
    for (size_t i = 0; i < TAG_BYTES; i++)
        tag[i] = (unsigned char)hex_byte(text + 2 * i);
    return true;
}

/* PREVIOUS: the block before, or NULL. Returns 0, or 1 after reporting. */
static int parse_line(const struct lines *lines, char *line, uint64_t bulk_size, const struct block *previous,
                      struct block *block) {
    uint64_t length;
    if (!take_number(&line, false, &block->process) || !take_number(&line, false, &block->address) ||
        !take_number(&line, false, &length) || !take_number(&line, false, &block->offset) ||
        !take_tag(line, block->tag))
        return fail_line(lines, "four numbers and a tag are expected");
    if (length == 0 || length > BLOCK_BYTES || !whole_pages(length) || !whole_pages(block->address) ||
        !whole_pages(block->offset) || block->address > UINT64_MAX - length)
        return fail_line(lines, "not whole pages, or more than a block");
    if (block->offset > bulk_size || length > bulk_size - block->offset)
        return fail_line(lines, "the block reaches out of the bulk file");
    block->length = (uint32_t)length;
    if (previous != NULL && (block->process < previous->process ||
                             (block->process == previous->process &&
                              block->address < previous->address + previous->length)))
        return fail_line(lines, "blocks overlap or are not in order");
    return 0;
}

/* No two blocks share bytes of the file: each has its own nonce. */
static int check_offsets(const struct block_index *index) {
    if (index->count < 2)
        return 0;
    cleanup_free const struct block **sorted = calloc(index->count, sizeof *sorted);
    if (sorted == NULL)
        return fail("malloc", "index", ENOMEM);
    for (size_t i = 0; i < index->count; i++)
        sorted[i] = &index->blocks[i];
    qsort(sorted, index->count, sizeof *sorted, by_offset);
    for (size_t i = 1; i < index->count; i++)
        if (sorted[i]->offset < sorted[i - 1]->offset + sorted[i - 1]->length)
            return fail_code("BAD_INDEX", "parse", "offset", 0, "two blocks overlap at offset %llu of the bulk file",
                             (unsigned long long)sorted[i]->offset);
    return 0;
}

int index_read(struct block_index *index, const char *path, uint64_t bulk_size) {
    /* What the shortest line takes: four numbers of one digit, the tag, spaces and the end. It bounds the blocks by the file's size. */
    enum { MIN_LINE = 41 };
    struct lines lines = {.text = NULL};
    bool malformed = false;
    char *line;
    *index = (struct block_index){.blocks = NULL};
    int result = lines_read(&lines, path, MAX_INDEX_BYTES, "BAD_INDEX");
    size_t room = lines.length / MIN_LINE + 1;
    index->blocks = malloc(room * sizeof *index->blocks);
    if (index->blocks == NULL) {
        lines_free(&lines);
        return fail("malloc", path, ENOMEM);
    }
    while (result == 0 && (line = lines_next(&lines, &malformed)) != NULL) {
        if (strlen(line) < MIN_LINE - 1 || index->count == room)
            result = fail_line(&lines, "too short");
        else
            result = parse_line(&lines, line, bulk_size, index->count > 0 ? &index->blocks[index->count - 1] : NULL,
                                &index->blocks[index->count]);
        index->count++;
    }
    if (result == 0 && malformed)
        result = fail_line(&lines, "the line does not end, or holds a zero byte");
    lines_free(&lines);
    return result == 0 ? check_offsets(index) : result;
}

void index_free(struct block_index *index) {
    free(index->blocks);
    *index = (struct block_index){.blocks = NULL};
}
