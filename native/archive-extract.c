#include "archive-extract.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "archive-metadata.h"
#include "archive-path.h"
#include "archive-remove.h"
#include "archive-xattrs.h"
#include "common.h"
#include "target.h"

enum { BLOCK = 1 << 20, MAX_LEVELS = PATH_MAX / 2 + 1 };

/* A directory on the way to the entry being extracted. */
struct level {
    int descriptor;
    size_t path_length;          /* of its own path */
    struct archive_entry *entry; /* its metadata, applied when it is left; NULL when the archive has no entry for it */
    bool inherits;               /* it has a default ACL, so what is made in it gets one */
};

struct extract {
    struct archive *tar;
    struct level levels[MAX_LEVELS];
    size_t depth;            /* levels in use; the root is the first */
    char path[PATH_MAX];     /* of the deepest level */
    char wanted[PATH_MAX];   /* of the entry */
    char link[PATH_MAX];     /* of the entry's hard link */
    const struct option_list *keep;
    struct extract_counts *counts;
};

static int fail_archive(const struct extract *extract, const char *step) {
    const char *why = archive_error_string(extract->tar);
    return fail_code("BAD_ARCHIVE", step, "tar", 0, "%s: %s", step, why != NULL ? why : "malformed");
}

static int fail_path(const char *path) {
    return fail_code("BAD_PATH", "extract", path, 0, "not a path below the root: %s", path);
}

/* Leaves the deepest directory: only now does it get its metadata. Returns 0, or 1 after reporting. */
static int leave(struct extract *extract) {
    struct level *level = &extract->levels[extract->depth - 1];
    const char *failed = level->entry == NULL ? NULL : apply_metadata(level->descriptor, NULL, level->entry, true);
    int result = failed == NULL ? 0 : fail(failed, extract->depth == 1 ? "." : extract->path, errno);
    if (level->entry != NULL)
        archive_entry_free(level->entry);
    if (extract->depth > 1) /* the root's descriptor is the caller's */
        close(level->descriptor);
    extract->depth--;
    extract->path[extract->depth > 0 ? extract->levels[extract->depth - 1].path_length : 0] = '\0';
    return result;
}

/*
 * Opens the directory NAME of the deepest level, making it or putting it in the place of what is no directory, and enters it. PATH_LENGTH is the length of its
 * path in `wanted`. Returns 0, or 1 after reporting.
 */
static int enter(struct extract *extract, const char *name, size_t path_length) {
    int parent = extract->levels[extract->depth - 1].descriptor;
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int opened = openat(parent, name, flags);
    if (opened < 0 && (errno == ENOTDIR || errno == ELOOP) && remove_tree(parent, name) != 0)
        return fail("remove", extract->wanted, errno);
    if (opened < 0) {
        if (mkdirat(parent, name, 0755) != 0)
            return fail("mkdir", extract->wanted, errno);
        opened = openat(parent, name, flags);
    }
    if (opened < 0)
        return fail("open directory", extract->wanted, errno);
    extract->levels[extract->depth++] = (struct level){
        .descriptor = opened,
        .path_length = path_length,
        .inherits = fgetxattr(opened, XATTR_ACL_DEFAULT, NULL, 0) > 0,
    };
    memcpy(extract->path, extract->wanted, path_length);
    extract->path[path_length] = '\0';
    return 0;
}

/* Whether the deepest level is the directory DIRECTORY (LENGTH bytes of `wanted`) or lies above it. */
static bool leads_to(const struct extract *extract, size_t length) {
    size_t have = extract->levels[extract->depth - 1].path_length;
    return have == 0 || (have <= length && memcmp(extract->path, extract->wanted, have) == 0 &&
                         (have == length || extract->wanted[have] == '/'));
}

/* Leaves and enters directories until the deepest is the one of LENGTH bytes of `wanted`. Returns 0, or 1 after reporting. */
static int go_to(struct extract *extract, size_t length) {
    char name[NAME_MAX + 1];
    while (!leads_to(extract, length))
        if (leave(extract) != 0)
            return 1;
    size_t at = extract->levels[extract->depth - 1].path_length;
    while (at < length) {
        const char *start = extract->wanted + at + (at > 0 ? 1 : 0);
        size_t component = strcspn(start, "/");
        memcpy(name, start, component);
        name[component] = '\0';
        at = (size_t)(start - extract->wanted) + component;
        if (enter(extract, name, at) != 0)
            return 1;
    }
    return 0;
}

static int extract_directory(struct extract *extract, struct archive_entry *entry) {
    if (go_to(extract, strlen(extract->wanted)) != 0)
        return 1;
    struct level *level = &extract->levels[extract->depth - 1];
    if (level->entry != NULL)
        archive_entry_free(level->entry);
    level->entry = archive_entry_clone(entry);
    return level->entry != NULL ? 0 : fail("malloc", extract->wanted, ENOMEM);
}

/* Copies the entry's data to its places, leaving the holes. Returns 0, or 1 after reporting. */
static int write_content(struct extract *extract, struct archive_entry *entry, int file) {
    const void *data;
    size_t size;
    la_int64_t offset, end = 0, whole = archive_entry_size(entry);
    int got;
    while ((got = archive_read_data_block(extract->tar, &data, &size, &offset)) == ARCHIVE_OK) {
        if (offset < end || offset > whole || (la_int64_t)size > whole - offset)
            return fail_code("BAD_ARCHIVE", "read data", extract->wanted, 0, "%s: data outside of the file", extract->wanted);
        for (const char *at = data; size > 0;) {
            ssize_t wrote = pwrite(file, at, size, offset);
            if (wrote < 0 && errno != EINTR)
                return fail("write", extract->wanted, errno);
            if (wrote > 0) {
                at += wrote;
                offset += wrote;
                size -= (size_t)wrote;
            }
        }
        end = offset;
    }
    if (got != ARCHIVE_EOF)
        return fail_archive(extract, "read data");
    if (end < whole && ftruncate(file, whole) != 0)
        return fail("truncate", extract->wanted, errno);
    return 0;
}

static int extract_file(struct extract *extract, struct archive_entry *entry, int parent, const char *name, bool inherits) {
    /* Never an existing file: it may have other names, in this layer or a lower one. */
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    cleanup_close int file = openat(parent, name, flags, 0600);
    if (file < 0 && errno == EEXIST) {
        if (remove_tree(parent, name) != 0)
            return fail("remove", extract->wanted, errno);
        file = openat(parent, name, flags, 0600);
    }
    if (file < 0)
        return fail("create", extract->wanted, errno);
    if (write_content(extract, entry, file) != 0)
        return 1;
    const char *failed = apply_metadata(file, NULL, entry, inherits);
    return failed == NULL ? 0 : fail(failed, extract->wanted, errno);
}

/* A further name of a file that an earlier entry made. */
static int extract_link(struct extract *extract, const char *first, int parent, const char *name) {
    if (!archive_path(first, extract->link, sizeof extract->link) || *extract->link == '\0')
        return fail_path(first);
    char *slash = strrchr(extract->link, '/');
    if (slash != NULL)
        *slash = '\0';
    cleanup_close int directory = open_in_root(extract->levels[0].descriptor, slash != NULL ? extract->link : ".",
                                               O_PATH | O_DIRECTORY);
    if (directory < 0)
        return fail_open("open", extract->link, errno);
    if (remove_tree(parent, name) != 0)
        return fail("remove", extract->wanted, errno);
    if (linkat(directory, slash != NULL ? slash + 1 : extract->link, parent, name, 0) != 0)
        return fail("link", extract->wanted, errno);
    return 0;
}

/* A symlink or a fifo: made, then given its metadata by name, for neither can be opened. */
static int extract_special(struct extract *extract, struct archive_entry *entry, int parent, const char *name) {
    const char *target = archive_entry_symlink(entry);
    bool is_link = archive_entry_filetype(entry) == AE_IFLNK;
    if (is_link && target == NULL)
        return fail_code("BAD_ARCHIVE", "symlink", extract->wanted, 0, "%s: a symlink without a target", extract->wanted);
    if (remove_tree(parent, name) != 0)
        return fail("remove", extract->wanted, errno);
    if ((is_link ? symlinkat(target, parent, name) : mkfifoat(parent, name, 0600)) != 0)
        return fail(is_link ? "symlink" : "mkfifo", extract->wanted, errno);
    if (fchdir(parent) != 0)
        return fail("fchdir", extract->wanted, errno);
    if (!is_link)
        lremovexattr(name, XATTR_ACL_ACCESS); /* inherited, if there is one */
    const char *failed = apply_metadata(-1, name, entry, false);
    return failed == NULL ? 0 : fail(failed, extract->wanted, errno);
}

/* Extracts one entry over what has its name. Returns 0, or 1 after reporting. */
static int extract_entry(struct extract *extract, struct archive_entry *entry) {
    const char *path = archive_entry_pathname(entry);
    const char *first = archive_entry_hardlink(entry);
    mode_t type = archive_entry_filetype(entry);
    if (path == NULL || !archive_path(path, extract->wanted, sizeof extract->wanted))
        return fail_path(path != NULL ? path : "");
    enum kept kept = kept_relation(extract->keep, extract->wanted);
    bool is_directory = first == NULL && type == AE_IFDIR;
    bool must_stay = kept == KEPT_WITHIN || (kept == KEPT_ABOVE && !is_directory);
    if (must_stay || (first == NULL && type != AE_IFDIR && type != AE_IFREG && type != AE_IFLNK && type != AE_IFIFO)) {
        extract->counts->skipped++;
        return 0;
    }
    extract->counts->entries++;
    if (is_directory)
        return extract_directory(extract, entry);
    if (*extract->wanted == '\0')
        return fail_path(path);
    const char *slash = strrchr(extract->wanted, '/');
    const char *name = slash != NULL ? slash + 1 : extract->wanted;
    if (go_to(extract, slash != NULL ? (size_t)(slash - extract->wanted) : 0) != 0)
        return 1;
    struct level level = extract->levels[extract->depth - 1];
    if (first != NULL)
        return extract_link(extract, first, level.descriptor, name);
    if (type == AE_IFREG)
        return extract_file(extract, entry, level.descriptor, name, level.inherits);
    return extract_special(extract, entry, level.descriptor, name);
}

static int extract_all(struct extract *extract) {
    struct archive_entry *entry;
    int got;
    while ((got = archive_read_next_header(extract->tar, &entry)) == ARCHIVE_OK)
        if (extract_entry(extract, entry) != 0)
            return 1;
    if (got != ARCHIVE_EOF)
        return fail_archive(extract, "read header");
    while (extract->depth > 0)
        if (leave(extract) != 0)
            return 1;
    return 0;
}

int archive_extract(int tar, int root, const struct option_list *keep, struct extract_counts *counts) {
    static struct extract extract;
    extract.keep = keep;
    extract.counts = counts;
    extract.levels[0] = (struct level){.descriptor = root, .inherits = fgetxattr(root, XATTR_ACL_DEFAULT, NULL, 0) > 0};
    extract.depth = 1;
    extract.tar = archive_read_new();
    if (extract.tar == NULL)
        return fail("malloc", "tar", ENOMEM);
    int result;
    if (archive_read_support_format_tar(extract.tar) != ARCHIVE_OK ||
        archive_read_support_format_empty(extract.tar) != ARCHIVE_OK ||
        archive_read_open_fd(extract.tar, tar, BLOCK) != ARCHIVE_OK)
        result = fail_archive(&extract, "open");
    else
        result = extract_all(&extract);
    archive_read_free(extract.tar);
    for (; extract.depth > 0; extract.depth--)
        if (extract.levels[extract.depth - 1].entry != NULL)
            archive_entry_free(extract.levels[extract.depth - 1].entry);
    return result;
}
