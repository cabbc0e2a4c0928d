/* What every verb shares: error lines, options, descriptors that close themselves. */
#ifndef SNAPSHOT_COMMON_H
#define SNAPSHOT_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "json.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_BEFORE_PROGRAM = 125 };

/* The verb being run; set once by main, named in every error line. */
extern const char *current_verb;

/* Closes the descriptor when the variable leaves its scope; errno survives. */
#define cleanup_close __attribute__((cleanup(close_descriptor)))
void close_descriptor(const int *descriptor);

/* Takes the descriptor out of its variable, so that it outlives the variable's scope. */
int take_descriptor(int *descriptor);

/* fclose when the variable leaves its scope. */
#define cleanup_file __attribute__((cleanup(close_file)))
void close_file(FILE **file);

/* free when the variable leaves its scope; use on pointers. */
#define cleanup_free __attribute__((cleanup(free_memory)))
void free_memory(void *pointer);

/* Prints one error line on stderr for "STEP failed on TARGET with errno ERR" and returns 1. ERR 0: no errno. */
int fail(const char *step, const char *target, int err);

/* As fail, with a stable code (or NULL) and a message of its own (FMT NULL: as fail). Returns 1. */
int fail_code(const char *code, const char *step, const char *target, int err, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* As fail_code, on a stream of the caller's choice: for a verb that goes on after a failure. Returns 1. */
int report(FILE *out, const char *code, const char *step, const char *target, int err, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

/* Flushes the result written to stdout. Returns 0, or 1 after reporting that it could not be written. */
int finish(void);

enum option_kind {
    OPTION_STRING, /* value: const char ** */
    OPTION_NUMBER, /* value: uint64_t *; decimal only */
    OPTION_FLAG,   /* value: bool *; the argument must be 0 or 1 */
    OPTION_LIST,   /* value: struct option_list *; may be repeated */
};

/* The arguments of a repeated option, in order. `items` has room for every argument there is; it is never freed. */
struct option_list {
    const char **items;
    size_t count;
};

/* One option of a verb. A table ends with a zeroed entry. What is not given keeps the value it had. */
struct option_spec {
    const char *name; /* without the dashes */
    enum option_kind kind;
    bool required;
    void *value;
    const char *hint; /* for the usage text, e.g. "DIR" */
};

/* What follows the options: after `--`, or from the first argument that does not begin with a dash. */
struct operands {
    char **items;
    int count;
};

/*
 * Parses argv[1…] by the table. OPERANDS NULL: the verb takes none; else OPERANDS_HINT is shown in the usage and whether there are
 * enough of them is for the verb to say (usage_error). Returns 0, or 2 after printing what is wrong and the usage.
 */
int parse_options(int argc, char **argv, const struct option_spec *specs, struct operands *operands,
                  const char *operands_hint);

/* Prints what is wrong with the arguments and the usage of the verb; returns 2. */
int usage_error(const struct option_spec *specs, const char *operands_hint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Parses a decimal number of at most MAX; the whole text must be digits. */
bool parse_number(const char *text, uint64_t max, uint64_t *number);

/* Parses "PID:START" (decimal both, PID positive). */
bool parse_process(const char *text, uint64_t *pid, uint64_t *start);

#endif
