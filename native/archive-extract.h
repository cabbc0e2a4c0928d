/* Extracting a tree's archive over what is there, and removing what it removed. */
#ifndef SNAPSHOT_ARCHIVE_EXTRACT_H
#define SNAPSHOT_ARCHIVE_EXTRACT_H

#include <stdint.h>

#include "common.h"

struct extract_counts {
    uint64_t entries;
    uint64_t skipped;
};

/*
 * Extracts the archive behind TAR into the directory ROOT. The archive is hostile: code BAD_PATH for a name that is not below the root, BAD_ARCHIVE for
 * what cannot be read. Each entry replaces whatever has its name, never following it; a directory over a directory keeps what is in it. Owner, mode,
 * extended attributes and modification time become the entry's; of a directory when the archive has left it, so that nothing inherits its default ACL
 * and no later file changes its time. What lies at or below a path of KEEP is skipped and counted, and nothing but a directory takes the place of what
 * leads to one: replacing a mount point's name would detach the container's mount. Returns 0, or 1 after reporting.
 */
int archive_extract(int tar, int root, const struct option_list *keep, struct extract_counts *counts);

#endif
