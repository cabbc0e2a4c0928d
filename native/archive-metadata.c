#include "archive-metadata.h"

#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "archive-xattrs.h"

/* The value of the entry's attribute NAME, or NULL. */
static const void *entry_xattr(struct archive_entry *entry, const char *name, size_t *size) {
    const char *found;
    const void *value;
    archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &found, &value, size) == ARCHIVE_OK)
        if (strcmp(found, name) == 0)
            return value;
    return NULL;
}

static bool has_value(int descriptor, const char *name, const char *attribute, const void *value, size_t size) {
    static char current[XATTR_SIZE_MAX];
    ssize_t got = descriptor >= 0 ? fgetxattr(descriptor, attribute, current, sizeof current)
                                  : lgetxattr(name, attribute, current, sizeof current);
    return got >= 0 && (size_t)got == size && memcmp(current, value, size) == 0;
}

static int set_xattrs(int descriptor, const char *name, struct archive_entry *entry, bool replaced) {
    const char *attribute;
    const void *value;
    size_t size;
    archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &attribute, &value, &size) == ARCHIVE_OK) {
        if (attribute == NULL || !xattr_is_applied(attribute))
            continue;
        if (value == NULL)
            value = "";
        if (replaced && has_value(descriptor, name, attribute, value, size))
            continue;
        int failed = descriptor >= 0 ? fsetxattr(descriptor, attribute, value, size, 0)
                                     : lsetxattr(name, attribute, value, size, 0);
        if (failed != 0)
            return -1;
    }
    return 0;
}

/* Removes the attributes of an open file that the entry does not have. */
static int remove_other_xattrs(int descriptor, struct archive_entry *entry) {
    static char names[XATTR_LIST_MAX];
    ssize_t length = flistxattr(descriptor, names, sizeof names);
    if (length < 0)
        return errno == EOPNOTSUPP ? 0 : -1;
    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        size_t size;
        if (xattr_is_applied(name) && entry_xattr(entry, name, &size) == NULL && fremovexattr(descriptor, name) != 0 &&
            errno != ENODATA)
            return -1;
    }
    return 0;
}

/* Owner first: changing it clears set-ID bits and capabilities. Then the mode, then the ACL, whose mask is the mode's group. */
static const char *set_owner_and_mode(int descriptor, const char *name, struct archive_entry *entry, const struct stat *now) {
    uid_t uid = (uid_t)archive_entry_uid(entry);
    gid_t gid = (gid_t)archive_entry_gid(entry);
    mode_t mode = archive_entry_mode(entry) & 07777;
    bool chown_needed = now->st_uid != uid || now->st_gid != gid;
    if (chown_needed && (descriptor >= 0 ? fchown(descriptor, uid, gid)
                                         : fchownat(AT_FDCWD, name, uid, gid, AT_SYMLINK_NOFOLLOW)) != 0)
        return "chown";
    if (S_ISLNK(now->st_mode) || ((now->st_mode & 07777) == mode && !(chown_needed && (mode & 06000) != 0)))
        return NULL;
    if ((descriptor >= 0 ? fchmod(descriptor, mode) : fchmodat(AT_FDCWD, name, mode, 0)) != 0)
        return "chmod";
    return NULL;
}

const char *apply_metadata(int descriptor, const char *name, struct archive_entry *entry, bool replaced) {
    struct stat now;
    if ((descriptor >= 0 ? fstat(descriptor, &now) : fstatat(AT_FDCWD, name, &now, AT_SYMLINK_NOFOLLOW)) != 0)
        return "stat";
    if (replaced && descriptor >= 0 && remove_other_xattrs(descriptor, entry) != 0)
        return "removexattr";
    const char *failed = set_owner_and_mode(descriptor, name, entry, &now);
    if (failed != NULL)
        return failed;
    if (set_xattrs(descriptor, name, entry, replaced) != 0)
        return "setxattr";
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = archive_entry_mtime(entry), .tv_nsec = archive_entry_mtime_nsec(entry)}};
    if (!archive_entry_mtime_is_set(entry) ||
        (now.st_mtim.tv_sec == times[1].tv_sec && now.st_mtim.tv_nsec == times[1].tv_nsec))
        return NULL;
    if ((descriptor >= 0 ? futimens(descriptor, times) : utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW)) != 0)
        return "utimens";
    return NULL;
}
