/* Giving a new file the owner, mode, extended attributes and time of its archive entry. */
#ifndef SNAPSHOT_ARCHIVE_METADATA_H
#define SNAPSHOT_ARCHIVE_METADATA_H

#include <archive_entry.h>
#include <stdbool.h>

/*
 * For an open file or directory (DESCRIPTOR), or, with DESCRIPTOR -1, for NAME of the current directory, not followed. REPLACED: the file existed
 * before or inherits an ACL, so attributes that the entry does not have are removed. Only what differs is written, so that a read-only
 * filesystem that already has it all is no failure. Returns NULL, or the name of the step that failed, with errno.
 */
const char *apply_metadata(int descriptor, const char *name, struct archive_entry *entry, bool replaced);

#endif
