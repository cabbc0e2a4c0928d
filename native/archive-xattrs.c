#include "archive-xattrs.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common.h"

/* Of one file. Readers refuse an extended header above 1 MiB, and base64 adds a third. */
enum { MAX_XATTR_BYTES = 512 * 1024 };

static bool begins(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

bool xattr_is_stored(const char *name) {
    if (begins(name, "trusted.overlay."))
        return false;
    return begins(name, "user.") || begins(name, "security.") || begins(name, "trusted.") ||
           strcmp(name, XATTR_ACL_ACCESS) == 0 || strcmp(name, XATTR_ACL_DEFAULT) == 0;
}

bool xattr_is_applied(const char *name) {
    return xattr_is_stored(name) && strcmp(name, "security.selinux") != 0 && strcmp(name, "security.evm") != 0 &&
           strcmp(name, "security.ima") != 0;
}

/* The value of one attribute, of the open file or of the name in the current directory. */
static ssize_t get_xattr(const struct archive_file *file, const char *name, char *value) {
    return file->descriptor >= 0 ? fgetxattr(file->descriptor, name, value, XATTR_SIZE_MAX)
                                 : lgetxattr(file->name, name, value, XATTR_SIZE_MAX);
}

static void note_overlay_mark(struct overlay_marks *marks, const char *name, const char *value, ssize_t length) {
    if (strcmp(name, "trusted.overlay.opaque") == 0 && length == 1 && value[0] == 'y')
        marks->opaque = true;
    if (strcmp(name, "trusted.overlay.redirect") == 0 || strcmp(name, "trusted.overlay.metacopy") == 0)
        marks->redirect = true;
}

int archive_add_xattrs(struct archive_entry *entry, const struct archive_file *file, struct overlay_marks *marks) {
    static char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
    /* There is no flistxattr for a symlink or a device, and no listxattrat before Linux 6.13: work from its directory. */
    if (file->descriptor < 0 && fchdir(file->directory) != 0)
        return fail("fchdir", file->path, errno);
    ssize_t length = file->descriptor >= 0 ? flistxattr(file->descriptor, names, sizeof names)
                                           : llistxattr(file->name, names, sizeof names);
    if (length < 0)
        return errno == EOPNOTSUPP ? 0 : fail("listxattr", file->path, errno);
    size_t total = 0;
    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        bool stored = xattr_is_stored(name);
        if (!stored && marks == NULL)
            continue;
        ssize_t got = get_xattr(file, name, value);
        if (got < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
            continue;
        if (got < 0)
            return fail("getxattr", file->path, errno);
        if (!stored) {
            note_overlay_mark(marks, name, value, got);
            continue;
        }
        total += strlen(name) + (size_t)got;
        if (total > MAX_XATTR_BYTES)
            return fail_code("XATTRS_TOO_LARGE", "getxattr", file->path, E2BIG,
                             "%s: more than %d bytes of extended attributes", file->path, MAX_XATTR_BYTES);
        archive_entry_xattr_add_entry(entry, name, value, (size_t)got);
    }
    return 0;
}
