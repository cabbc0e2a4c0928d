#include "bulk-plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bulk-text.h"
#include "common.h"

#define MAX_PLAN_BYTES ((size_t)256 << 20)

static int fail_line(const struct lines *lines, const char *what) {
    char where[48];
    snprintf(where, sizeof where, "line %llu", (unsigned long long)lines->number);
    return fail_code("BAD_PLAN", "parse", where, 0, "%s of the plan: %s", where, what);
}

/* `src I PATH` or `out J PATH`. */
static int add_file(const struct lines *lines, struct plan_file *files, char *fields, bool is_source) {
    uint64_t number;
    struct stat status;
    if (!take_number(&fields, false, &number) || *fields == '\0')
        return fail_line(lines, "a number and a path are expected");
    if (number >= MAX_FILES || files[number].descriptor >= 0)
        return fail_line(lines, "this file number is too large or already taken");
    struct plan_file *file = &files[number];
    file->descriptor = is_source ? open(fields, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
                                 : open(fields, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file->descriptor < 0)
        return fail(is_source ? "open" : "create", fields, errno);
    if (!is_source)
        return 0;
    if (fstat(file->descriptor, &status) != 0 || !S_ISREG(status.st_mode))
        return fail_line(lines, "the source is not a regular file");
    file->size = (uint64_t)status.st_size;
    posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

/* Whether the part lies inside of a source that was named, in whole pages. */
static bool part_valid(const struct plan *plan, uint64_t source, uint64_t offset, uint64_t length) {
    if (source >= MAX_FILES || plan->sources[source].descriptor < 0)
        return false;
    uint64_t size = plan->sources[source].size;
    return length > 0 && whole_pages(length) && whole_pages(offset) && offset <= size && length <= size - offset;
}

/* `keep J I OFFSET LENGTH`. */
static int add_keep(const struct lines *lines, struct plan *plan, char *fields) {
    uint64_t out, source, offset, length;
    if (!take_number(&fields, false, &out) || !take_number(&fields, false, &source) ||
        !take_number(&fields, false, &offset) || !take_number(&fields, true, &length))
        return fail_line(lines, "four numbers are expected");
    if (out >= MAX_FILES || plan->outs[out].descriptor < 0 || !part_valid(plan, source, offset, length))
        return fail_line(lines, "a file that was not named, or a part that is not whole pages of it");
    plan->keeps[plan->keep_count++] =
        (struct plan_keep){.out = (uint32_t)out, .source = (uint32_t)source, .offset = offset, .length = length};
    return 0;
}

/* `move PROC I OFFSET ADDRESS LENGTH`. */
static int add_move(const struct lines *lines, struct plan *plan, char *fields) {
    struct plan_move move;
    uint64_t source;
    if (!take_number(&fields, false, &move.process) || !take_number(&fields, false, &source) ||
        !take_number(&fields, false, &move.offset) || !take_number(&fields, false, &move.address) ||
        !take_number(&fields, true, &move.length))
        return fail_line(lines, "five numbers are expected");
    if (!part_valid(plan, source, move.offset, move.length))
        return fail_line(lines, "a file that was not named, or a part that is not whole pages of it");
    if (!whole_pages(move.address) || move.address > UINT64_MAX - move.length)
        return fail_line(lines, "the address is not a page's, or the range does not fit");
    move.source = (uint32_t)source;
    plan->moves[plan->move_count++] = move;
    return 0;
}

static int parse_line(const struct lines *lines, struct plan *plan, char *line) {
    if (strncmp(line, "src ", 4) == 0)
        return add_file(lines, plan->sources, line + 4, true);
    if (strncmp(line, "out ", 4) == 0)
        return add_file(lines, plan->outs, line + 4, false);
    if (strncmp(line, "keep ", 5) == 0)
        return add_keep(lines, plan, line + 5);
    if (strncmp(line, "move ", 5) == 0)
        return add_move(lines, plan, line + 5);
    return fail_line(lines, "an unknown operation");
}

static int by_address(const void *left, const void *right) {
    const struct plan_move *a = *(struct plan_move *const *)left, *b = *(struct plan_move *const *)right;
    if (a->process != b->process)
        return a->process < b->process ? -1 : 1;
    return a->address < b->address ? -1 : a->address > b->address;
}

/* Two moves of one process must not share memory: the later would overwrite the earlier, in no order. */
static int check_overlaps(const struct plan *plan) {
    if (plan->move_count < 2)
        return 0;
    cleanup_free const struct plan_move **sorted = calloc(plan->move_count, sizeof *sorted);
    if (sorted == NULL)
        return fail("malloc", "plan", ENOMEM);
    for (size_t i = 0; i < plan->move_count; i++)
        sorted[i] = &plan->moves[i];
    qsort(sorted, plan->move_count, sizeof *sorted, by_address);
    for (size_t i = 1; i < plan->move_count; i++)
        if (sorted[i]->process == sorted[i - 1]->process &&
            sorted[i]->address < sorted[i - 1]->address + sorted[i - 1]->length)
            return fail_code("BAD_PLAN", "parse", "move", 0, "two moves of process %llu overlap at address %llu",
                             (unsigned long long)sorted[i]->process, (unsigned long long)sorted[i]->address);
    return 0;
}

/* Room for as many operations as there are lines. */
static int allocate(struct plan *plan, const struct lines *lines) {
    size_t count = 1;
    for (const char *at = lines->text; (at = memchr(at, '\n', lines->length - (size_t)(at - lines->text))) != NULL; at++)
        count++;
    plan->keeps = calloc(count, sizeof *plan->keeps);
    plan->moves = calloc(count, sizeof *plan->moves);
    return plan->keeps != NULL && plan->moves != NULL ? 0 : fail("malloc", "plan", ENOMEM);
}

int plan_read(struct plan *plan, const char *path) {
    struct lines lines = {.text = NULL};
    bool malformed = false;
    char *line;
    *plan = (struct plan){.keeps = NULL};
    for (size_t i = 0; i < MAX_FILES; i++)
        plan->sources[i].descriptor = plan->outs[i].descriptor = -1;
    int result = lines_read(&lines, path, MAX_PLAN_BYTES, "BAD_PLAN");
    if (result == 0)
        result = allocate(plan, &lines);
    while (result == 0 && (line = lines_next(&lines, &malformed)) != NULL)
        result = parse_line(&lines, plan, line);
    if (result == 0 && malformed)
        result = fail_line(&lines, "the line does not end, or holds a zero byte");
    lines_free(&lines);
    return result == 0 ? check_overlaps(plan) : result;
}

void plan_free(struct plan *plan) {
    for (size_t i = 0; i < MAX_FILES; i++) {
        close_descriptor(&plan->sources[i].descriptor);
        close_descriptor(&plan->outs[i].descriptor);
    }
    free(plan->keeps);
    free(plan->moves);
}
