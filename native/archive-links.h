/* Which inodes with several names have been archived, and under which path first. */
#ifndef SNAPSHOT_ARCHIVE_LINKS_H
#define SNAPSHOT_ARCHIVE_LINKS_H

#include <stddef.h>
#include <sys/stat.h>

/*
 * An open-addressed table of (device, inode) → first path. An inode stays in it for good, so its size is what the tree makes it:
 * LINKS_MAX bounds it, and with paths below PATH_MAX also its memory.
 */
enum { LINKS_MAX = 1 << 20 };

struct link_table {
    struct link_slot *slots;
    size_t size; /* a power of two, or 0 */
    size_t used;
};

/*
 * Looks for the inode of STATUS. Returns its first path, or, when it is new, NULL with errno 0 after remembering PATH; NULL with
 * errno ENOMEM or E2BIG (LINKS_MAX) when it cannot be remembered.
 */
const char *link_first_path(struct link_table *table, const struct stat *status, const char *path);

void link_table_free(struct link_table *table);

#endif
