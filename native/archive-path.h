/* Paths relative to the root of a tree, as archives and removed.json name them. */
#ifndef SNAPSHOT_ARCHIVE_PATH_H
#define SNAPSHOT_ARCHIVE_PATH_H

#include "common.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/*
 * Copies PATH into OUT (SIZE bytes) without a leading "./" and trailing slashes; the root itself becomes "". Returns false for what is
 * absolute or empty, has a component that is "..", "." or empty, or does not fit: code BAD_PATH is for the caller to report.
 */
bool archive_path(const char *path, char *out, size_t size);

/* Writes PATH as a JSON string in which bytes outside printable ASCII and `"`, `\`, `%` are %XX. */
void removed_path_write(FILE *out, const char *path);

/* Calls VISIT for each path, lists in the order removed, opaque. VISIT returns 0 to go on, else it has reported the failure. */
typedef int (*removed_visit)(void *context, bool opaque, const char *path);

/*
 * Parses {"removed":[…],"opaque":[…]} (TEXT, LENGTH bytes). Visits nothing unless all of it is well formed. Returns 0, 1 after reporting
 * code BAD_PATH for a path or BAD_REMOVED for the form, or what VISIT returned.
 */
int removed_parse(const char *text, size_t length, removed_visit visit, void *context);

/* Where a path lies to the paths that must be kept: the target's own mount points. */
enum kept { KEPT_APART, KEPT_ABOVE, KEPT_WITHIN };

/* Compares PATH, relative to the root, with the absolute paths of KEEP: it is or lies below one of them, one lies below it, or neither. */
enum kept kept_relation(const struct option_list *keep, const char *path);

#endif
