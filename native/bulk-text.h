/* Line-oriented text from outside: plans and indexes. */
#ifndef SNAPSHOT_BULK_TEXT_H
#define SNAPSHOT_BULK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096, BLOCK_BYTES = 1 << 20 };

/* A whole file in private memory, ended by a zero byte, walked line by line. */
struct lines {
    char *text;
    size_t length;
    size_t at;
    uint64_t number; /* of the line last taken, from 1 */
};

/* Reads a regular file of at most MAX bytes. Returns 0, or 1 after reporting (too large: with CODE). */
int lines_read(struct lines *lines, const char *path, size_t max, const char *code);
void lines_free(struct lines *lines);

/* Takes the next line, ended by a zero byte. NULL at the end. A line holds no zero byte: *MALFORMED is set for one, and for a last line without its end. */
char *lines_next(struct lines *lines, bool *malformed);

/* Takes a decimal number (no sign, no leading zero) and the one space after it, or, with LAST, the end of the text. */
bool take_number(char **text, bool last, uint64_t *number);

/* Whether BYTES is a multiple of the page size. */
bool whole_pages(uint64_t bytes);

#endif
