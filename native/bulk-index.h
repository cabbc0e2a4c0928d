/* The index of a bulk file. */
#ifndef SNAPSHOT_BULK_INDEX_H
#define SNAPSHOT_BULK_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "bulk-mac.h"

struct block {
    uint64_t process;
    uint64_t address;
    uint64_t offset; /* in the bulk file */
    uint32_t length; /* at most BLOCK_BYTES */
    unsigned char tag[TAG_BYTES];
};

struct block_index {
    struct block *blocks; /* sorted by (process, address) */
    size_t count;
};

/* Sorts the blocks and writes them to PATH, which must not exist; fsyncs it. Returns 0, or 1 after reporting. */
int index_write(struct block_index *index, const char *path);

/*
 * Reads an index that belongs to a bulk file of BULK_SIZE bytes. Code BAD_INDEX for anything that index_write would not have written: other forms of
 * numbers, another order, blocks that overlap in memory or in the file, or that reach out of it. Returns 0, or 1 after reporting.
 */
int index_read(struct block_index *index, const char *path, uint64_t bulk_size);

void index_free(struct block_index *index);

#endif
