#include "bulk-text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

int lines_read(struct lines *lines, const char *path, size_t max, const char *code) {
    struct stat status;
    cleanup_close int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0)
        return fail("open", path, errno);
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > max)
        return fail_code(code, "open", path, 0, "%s is not a regular file of at most %zu bytes", path, max);
    *lines = (struct lines){.length = (size_t)status.st_size};
    /* Mapped rather than allocated, so that only what is read takes memory. */
    lines->text =
        mmap(NULL, lines->length + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (lines->text == MAP_FAILED)
        return fail("mmap", path, errno);
    for (size_t at = 0; at < lines->length;) {
        ssize_t got = read(file, lines->text + at, lines->length - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? fail("read", path, errno)
                           : fail_code(code, "read", path, 0, "%s became shorter while it was read", path);
        at += (size_t)got;
    }
    return 0;
}

void lines_free(struct lines *lines) {
    if (lines->text != NULL && lines->text != MAP_FAILED)
        munmap(lines->text, lines->length + 1);
}

char *lines_next(struct lines *lines, bool *malformed) {
    if (lines->at >= lines->length)
        return NULL;
    char *line = lines->text + lines->at;
    char *end = memchr(line, '\n', lines->length - lines->at);
    lines->number++;
    if (end == NULL || memchr(line, '\0', (size_t)(end - line)) != NULL) {
        *malformed = true;
        lines->at = lines->length;
        return NULL;
    }
    *end = '\0';
    lines->at = (size_t)(end - lines->text) + 1;
    return line;
}

bool take_number(char **text, bool last, uint64_t *number) {
    char *start = *text;
    char *end = start + strspn(start, "0123456789");
    if ((*start == '0' && end - start > 1) || *end != (last ? '\0' : ' '))
        return false;
    *end = '\0';
    *text = last ? end : end + 1;
    return parse_number(start, UINT64_MAX, number);
}

bool whole_pages(uint64_t bytes) {
    return bytes % PAGE_BYTES == 0;
}
