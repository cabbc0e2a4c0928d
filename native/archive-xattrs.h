/* Which extended attributes travel with a file. */
#ifndef SNAPSHOT_ARCHIVE_XATTRS_H
#define SNAPSHOT_ARCHIVE_XATTRS_H

#include <archive_entry.h>
#include <stdbool.h>
#include <sys/stat.h>

/*
 * user.*, security.*, trusted.* and the two POSIX ACLs, which are stored as the attributes they are: that keeps every entry and needs no
 * names. Never trusted.overlay.*: it belongs to the overlay that made it. What else is in system.* is the filesystem's own.
 */
bool xattr_is_stored(const char *name);

/*
 * Of those stored, the ones that are set on the new file. Not the SELinux label, which is the new container's, and not the EVM and IMA
 * values, which sign one inode.
 */
bool xattr_is_applied(const char *name);

#define XATTR_ACL_ACCESS "system.posix_acl_access"
#define XATTR_ACL_DEFAULT "system.posix_acl_default"

/* One file of the tree. DESCRIPTOR: the file itself, opened, for regular files and directories; else -1. */
struct archive_file {
    int directory; /* of the directory it lies in */
    const char *name;
    int descriptor;
    const char *path; /* in the archive, "." for the root */
    struct stat status;
};

/* What the extended attributes say about a file of an overlay's upper directory. */
struct overlay_marks {
    bool opaque;
    bool redirect; /* or metacopy: content that lies elsewhere */
};

/*
 * Adds the file's attributes to the entry. MARKS, when not NULL, receives what the overlay keeps in trusted.overlay.*. Code
 * XATTRS_TOO_LARGE for more than a reader of the archive would take. Returns 0, or 1 after reporting.
 */
int archive_add_xattrs(struct archive_entry *entry, const struct archive_file *file, struct overlay_marks *marks);

#endif
