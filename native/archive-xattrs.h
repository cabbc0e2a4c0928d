/* Which extended attributes travel with a file. */
#ifndef SNAPSHOT_ARCHIVE_XATTRS_H
#define SNAPSHOT_ARCHIVE_XATTRS_H

#include <stdbool.h>

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

#endif
