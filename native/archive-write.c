#include "archive-write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "archive-xattrs.h"
#include "common.h"

enum {
    BLOCK = 1 << 20,
    HOLE_STEP = 1 << 30,
    MAX_EXTENTS = 1 << 16, /* of one sparse file; holes after that are stored as zeros */
};

struct extent {
    off_t offset;
    off_t length;
};

struct write_buffers {
    char data[BLOCK];
    char target[PATH_MAX];
    struct extent extents[MAX_EXTENTS];
    size_t extent_count;
    char *zeros; /* HOLE_STEP bytes, never touched: the archive steps over a hole without reading it */
};

/* Reports what libarchive could not do. */
static int fail_archive(const struct archive_writer *writer, const char *step, const char *path) {
    int err = archive_errno(writer->tar);
    const char *why = archive_error_string(writer->tar);
    return fail_code(NULL, step, path, err > 0 ? err : 0, "%s %s: %s", step, path, why != NULL ? why : "?");
}

int archive_writer_open(struct archive_writer *writer, const char *file) {
    *writer = (struct archive_writer){.descriptor = -1};
    writer->descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (writer->descriptor < 0)
        return fail("create", file, errno);
    writer->tar = archive_write_new();
    writer->entry = archive_entry_new();
    writer->buffers = malloc(sizeof *writer->buffers);
    if (writer->tar == NULL || writer->entry == NULL || writer->buffers == NULL)
        return fail("malloc", file, ENOMEM);
    writer->buffers->zeros =
        mmap(NULL, HOLE_STEP, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (writer->buffers->zeros == MAP_FAILED)
        return fail("mmap", file, errno);
    /* BINARY: names are bytes, no character set is assumed. LIBARCHIVE: attribute names are quoted, so any name survives. */
    if (archive_write_set_format_pax(writer->tar) != ARCHIVE_OK ||
        archive_write_set_options(writer->tar, "pax:hdrcharset=BINARY,pax:xattrheader=LIBARCHIVE") != ARCHIVE_OK ||
        archive_write_add_filter_none(writer->tar) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(writer->tar, BLOCK) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(writer->tar, 1) != ARCHIVE_OK ||
        archive_write_open_fd(writer->tar, writer->descriptor) != ARCHIVE_OK)
        return fail_archive(writer, "start archive", file);
    return 0;
}

int archive_writer_finish(struct archive_writer *writer) {
    if (archive_write_close(writer->tar) != ARCHIVE_OK)
        return fail_archive(writer, "end archive", "tar");
    if (fsync(writer->descriptor) != 0)
        return fail("fsync", "tar", errno);
    return 0;
}

void archive_writer_free(struct archive_writer *writer) {
    if (writer->tar != NULL)
        archive_write_free(writer->tar);
    if (writer->entry != NULL)
        archive_entry_free(writer->entry);
    if (writer->buffers != NULL && writer->buffers->zeros != MAP_FAILED)
        munmap(writer->buffers->zeros, HOLE_STEP);
    free(writer->buffers);
    link_table_free(&writer->links);
    close_descriptor(&writer->descriptor);
}

int archive_begin(struct archive_writer *writer, const struct archive_file *file, struct overlay_marks *marks) {
    struct archive_entry *entry = archive_entry_clear(writer->entry);
    const struct stat *status = &file->status;
    archive_entry_copy_pathname(entry, file->path);
    archive_entry_set_mode(entry, status->st_mode);
    archive_entry_set_uid(entry, status->st_uid);
    archive_entry_set_gid(entry, status->st_gid);
    archive_entry_set_mtime(entry, status->st_mtim.tv_sec, status->st_mtim.tv_nsec);
    if (S_ISREG(status->st_mode))
        archive_entry_set_size(entry, status->st_size);
    if (S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode)) {
        archive_entry_set_rdevmajor(entry, major(status->st_rdev));
        archive_entry_set_rdevminor(entry, minor(status->st_rdev));
    }
    return archive_add_xattrs(entry, file, marks);
}

/* Finds the data of a file that occupies less than its size. Returns 0, or 1 after reporting. */
static int find_extents(struct write_buffers *buffers, const struct archive_file *file) {
    off_t size = file->status.st_size;
    off_t at = 0;
    buffers->extent_count = 0;
    while (at < size) {
        off_t start = lseek(file->descriptor, at, SEEK_DATA);
        if (start < 0 && errno == ENXIO)
            return 0;
        off_t end = start < 0 ? -1 : lseek(file->descriptor, start, SEEK_HOLE);
        if (end < 0)
            return fail("lseek", file->path, errno);
        if (end > size || buffers->extent_count == MAX_EXTENTS - 1)
            end = size;
        if (start >= size)
            return 0;
        buffers->extents[buffers->extent_count++] = (struct extent){.offset = start, .length = end - start};
        at = end;
    }
    return 0;
}

/* Writes the bytes of one stretch of data. Returns 0, or 1 after reporting. */
static int store_data(struct archive_writer *writer, const struct archive_file *file, struct extent extent) {
    while (extent.length > 0) {
        size_t want = extent.length < BLOCK ? (size_t)extent.length : BLOCK;
        ssize_t got = pread(file->descriptor, writer->buffers->data, want, extent.offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail("read", file->path, errno);
        if (got == 0)
            return fail_code("FILE_CHANGED", "read", file->path, 0, "%s became shorter while it was read", file->path);
        if (archive_write_data(writer->tar, writer->buffers->data, (size_t)got) != got)
            return fail_archive(writer, "write", file->path);
        extent.offset += got;
        extent.length -= got;
        writer->bytes += (uint64_t)got;
    }
    return 0;
}

/* Steps over a hole: the archive counts positions of the file, and writes nothing there. */
static int store_hole(struct archive_writer *writer, const char *path, off_t length) {
    while (length > 0) {
        size_t step = length < HOLE_STEP ? (size_t)length : HOLE_STEP;
        if (archive_write_data(writer->tar, writer->buffers->zeros, step) != (la_ssize_t)step)
            return fail_archive(writer, "write", path);
        length -= (off_t)step;
    }
    return 0;
}

static int store_file(struct archive_writer *writer, const struct archive_file *file) {
    struct write_buffers *buffers = writer->buffers;
    off_t size = file->status.st_size;
    bool sparse = file->status.st_blocks * 512 < size;
    if (sparse && find_extents(buffers, file) != 0)
        return 1;
    if (!sparse) {
        buffers->extents[0] = (struct extent){.offset = 0, .length = size};
        buffers->extent_count = size > 0 ? 1 : 0;
    }
    bool whole = buffers->extent_count == 1 && buffers->extents[0].offset == 0 && buffers->extents[0].length == size;
    if (sparse && !whole) {
        for (size_t i = 0; i < buffers->extent_count; i++)
            archive_entry_sparse_add_entry(writer->entry, buffers->extents[i].offset, buffers->extents[i].length);
        if (buffers->extent_count == 0)
            archive_entry_sparse_add_entry(writer->entry, size, 0);
    }
    if (archive_write_header(writer->tar, writer->entry) != ARCHIVE_OK)
        return fail_archive(writer, "write header", file->path);
    /* The map of the holes goes out with the first data, so a file that is one hole needs a write of nothing. */
    if (archive_write_data(writer->tar, buffers->data, 0) != 0)
        return fail_archive(writer, "write", file->path);
    off_t at = 0;
    for (size_t i = 0; i < buffers->extent_count; i++) {
        if (store_hole(writer, file->path, buffers->extents[i].offset - at) != 0 ||
            store_data(writer, file, buffers->extents[i]) != 0)
            return 1;
        at = buffers->extents[i].offset + buffers->extents[i].length;
    }
    return 0;
}

/* Whether this is a further name of a file that is already in the archive: then the entry becomes a hard link. */
static int link_to_first(struct archive_writer *writer, const struct archive_file *file, bool *linked) {
    mode_t mode = file->status.st_mode;
    *linked = false;
    if (file->status.st_nlink < 2 || S_ISDIR(mode) || S_ISCHR(mode) || S_ISBLK(mode))
        return 0;
    const char *first = link_first_path(&writer->links, &file->status, file->path);
    if (first == NULL)
        return errno == 0 ? 0 : fail("remember hard link", file->path, errno);
    archive_entry_copy_hardlink(writer->entry, first);
    archive_entry_unset_size(writer->entry);
    *linked = true;
    return 0;
}

int archive_store(struct archive_writer *writer, const struct archive_file *file) {
    bool linked;
    if (link_to_first(writer, file, &linked) != 0)
        return 1;
    writer->entries++;
    if (!linked && S_ISREG(file->status.st_mode)) {
        if (store_file(writer, file) != 0)
            return 1;
    } else {
        if (!linked && S_ISLNK(file->status.st_mode)) {
            ssize_t length = readlinkat(file->directory, file->name, writer->buffers->target, PATH_MAX);
            if (length < 0 || length >= PATH_MAX)
                return fail("readlink", file->path, length < 0 ? errno : ENAMETOOLONG);
            writer->buffers->target[length] = '\0';
            archive_entry_copy_symlink(writer->entry, writer->buffers->target);
        }
        if (archive_write_header(writer->tar, writer->entry) != ARCHIVE_OK)
            return fail_archive(writer, "write header", file->path);
    }
    if (archive_write_finish_entry(writer->tar) != ARCHIVE_OK)
        return fail_archive(writer, "write", file->path);
    return 0;
}
