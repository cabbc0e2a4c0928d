/* A pax archive being written: one call per file of a tree. */
#ifndef SNAPSHOT_ARCHIVE_WRITE_H
#define SNAPSHOT_ARCHIVE_WRITE_H

#include <archive.h>
#include <archive_entry.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "archive-links.h"
#include "archive-xattrs.h"

struct archive_writer {
    struct archive *tar;
    struct archive_entry *entry;
    struct link_table links;
    int descriptor;
    uint64_t entries;
    uint64_t bytes; /* of file content, without holes */
    struct write_buffers *buffers;
};

/* Creates FILE (which must not exist) and starts an archive in it. Returns 0, or 1 after reporting. */
int archive_writer_open(struct archive_writer *writer, const char *file);

/* Ends the archive and fsyncs it. Returns 0, or 1 after reporting. */
int archive_writer_finish(struct archive_writer *writer);

/* Frees everything; a file that was not finished stays as it is. */
void archive_writer_free(struct archive_writer *writer);

/*
 * Begins an entry with the file's owner, mode, time and extended attributes, without writing it. MARKS, when not NULL, receives what the overlay
 * keeps in trusted.overlay.*, none of which is stored. Returns 0, or 1 after reporting.
 */
int archive_begin(struct archive_writer *writer, const struct archive_file *file, struct overlay_marks *marks);

/* Writes the entry begun, with the file's content, link target or first hard link. Returns 0, or 1 after reporting. */
int archive_store(struct archive_writer *writer, const struct archive_file *file);

#endif
