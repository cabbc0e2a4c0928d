/* The plan of bulk-write: which parts of which files go where. */
#ifndef SNAPSHOT_BULK_PLAN_H
#define SNAPSHOT_BULK_PLAN_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_FILES = 4096 };

struct plan_file {
    int descriptor; /* -1: not named by the plan */
    uint64_t size;  /* of a source */
};

/* `keep`: a part of a source that is appended to an output. */
struct plan_keep {
    uint32_t out;
    uint32_t source;
    uint64_t offset;
    uint64_t length;
};

/* `move`: a part of a source that is memory of a process. */
struct plan_move {
    uint64_t process;
    uint64_t address;
    uint64_t offset;
    uint64_t length;
    uint32_t source;
};

struct plan {
    struct plan_file sources[MAX_FILES];
    struct plan_file outs[MAX_FILES];
    struct plan_keep *keeps;
    size_t keep_count;
    struct plan_move *moves; /* in plan order */
    size_t move_count;
};

/*
 * Reads the plan, opens its sources and makes its outputs, which must not exist. Code BAD_PLAN, with the line, for anything that is not exactly as
 * the contract says, for parts outside of their source, and for moves that overlap in memory. Returns 0, or 1 after reporting;
 * plan_free is due in either case.
 */
int plan_read(struct plan *plan, const char *path);
void plan_free(struct plan *plan);

#endif
