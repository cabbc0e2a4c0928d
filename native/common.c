#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *current_verb = "";

void close_descriptor(const int *descriptor) {
    int saved = errno;
    if (*descriptor >= 0)
        close(*descriptor);
    errno = saved;
}

int take_descriptor(int *descriptor) {
    int taken = *descriptor;
    *descriptor = -1;
    return taken;
}

void close_file(FILE **file) {
    int saved = errno;
    if (*file != NULL)
        fclose(*file);
    errno = saved;
}

void free_memory(void *pointer) {
    void *memory;
    memcpy(&memory, pointer, sizeof memory);
    free(memory);
}

/* Writes the error line; ARGS belongs to FMT. */
static void write_failure(FILE *out, const char *code, const char *step, const char *target, int err, const char *fmt,
                          va_list args) {
    char message[1024];
    if (fmt != NULL)
        vsnprintf(message, sizeof message, fmt, args);
    else if (err != 0)
        snprintf(message, sizeof message, "%s failed: %s: %s", step, target, strerror(err));
    else
        snprintf(message, sizeof message, "%s failed: %s", step, target);
    const char *name = err == 0 ? "" : strerrorname_np(err);
    fputs("{\"verb\":", out);
    json_string(out, current_verb);
    fputs(",\"step\":", out);
    json_string(out, step);
    fputs(",\"target\":", out);
    json_string(out, target);
    fputs(",\"errno\":", out);
    json_string(out, name != NULL ? name : "");
    if (code != NULL) {
        fputs(",\"code\":", out);
        json_string(out, code);
    }
    fputs(",\"message\":", out);
    json_string(out, message);
    fputs("}\n", out);
    fflush(out);
}

int report(FILE *out, const char *code, const char *step, const char *target, int err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    write_failure(out, code, step, target, err, fmt, args);
    va_end(args);
    return EXIT_FAILED;
}

int fail_code(const char *code, const char *step, const char *target, int err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    write_failure(stderr, code, step, target, err, fmt, args);
    va_end(args);
    return EXIT_FAILED;
}

int fail(const char *step, const char *target, int err) {
    return report(stderr, NULL, step, target, err, NULL);
}

int finish(void) {
    if (fflush(stdout) != 0 || ferror(stdout))
        return fail("write", "stdout", errno);
    return 0;
}

bool parse_number(const char *text, uint64_t max, uint64_t *number) {
    uint64_t value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    }
    *number = value;
    return value <= max;
}

bool parse_process(const char *text, uint64_t *pid, uint64_t *start) {
    char digits[24];
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof digits)
        return false;
    memcpy(digits, text, (size_t)(colon - text));
    digits[colon - text] = '\0';
    return parse_number(digits, INT32_MAX, pid) && *pid > 0 && parse_number(colon + 1, UINT64_MAX, start);
}

/* Prints the line that shows how the verb is called. */
static void print_usage(const struct option_spec *specs, const char *operands_hint) {
    fprintf(stderr, "usage: snapshot-helper %s", current_verb);
    for (const struct option_spec *spec = specs; spec->name != NULL; spec++)
        fprintf(stderr, spec->required ? " --%s %s%s" : " [--%s %s]%s", spec->name, spec->hint,
                spec->kind == OPTION_LIST ? "…" : "");
    if (operands_hint != NULL)
        fprintf(stderr, " %s", operands_hint);
    fputc('\n', stderr);
}

int usage_error(const struct option_spec *specs, const char *operands_hint, const char *fmt, ...) {
    va_list args;
    fprintf(stderr, "%s: ", current_verb);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    print_usage(specs, operands_hint);
    return EXIT_USAGE;
}

/* Stores ARGUMENT where the option keeps its value. Returns false when it is malformed or the memory ran out. */
static bool store_option(const struct option_spec *spec, const char *argument, int argc) {
    uint64_t number;
    struct option_list *list;
    switch (spec->kind) {
    case OPTION_STRING:
        *(const char **)spec->value = argument;
        return *argument != '\0';
    case OPTION_NUMBER:
        return parse_number(argument, UINT64_MAX, (uint64_t *)spec->value);
    case OPTION_FLAG:
        if (!parse_number(argument, 1, &number))
            return false;
        *(bool *)spec->value = number == 1;
        return true;
    case OPTION_LIST:
        list = spec->value;
        if (list->items == NULL)
            list->items = calloc((size_t)argc, sizeof *list->items);
        if (list->items == NULL)
            return false;
        list->items[list->count++] = argument;
        return *argument != '\0';
    }
    return false;
}

int parse_options(int argc, char **argv, const struct option_spec *specs, struct operands *operands,
                  const char *operands_hint) {
    uint64_t given = 0;
    int at = 1;
    while (at < argc && strncmp(argv[at], "--", 2) == 0 && argv[at][2] != '\0') {
        const char *name = argv[at] + 2;
        const struct option_spec *spec = specs;
        while (spec->name != NULL && strcmp(spec->name, name) != 0)
            spec++;
        if (spec->name == NULL)
            return usage_error(specs, operands_hint, "unknown option: --%s", name);
        if (at + 1 >= argc)
            return usage_error(specs, operands_hint, "missing value: --%s", name);
        uint64_t bit = UINT64_C(1) << (spec - specs);
        if ((given & bit) != 0 && spec->kind != OPTION_LIST)
            return usage_error(specs, operands_hint, "given twice: --%s", name);
        given |= bit;
        if (!store_option(spec, argv[at + 1], argc))
            return usage_error(specs, operands_hint, "malformed value: --%s %s", name, argv[at + 1]);
        at += 2;
    }
    for (const struct option_spec *spec = specs; spec->name != NULL; spec++)
        if (spec->required && (given & (UINT64_C(1) << (spec - specs))) == 0)
            return usage_error(specs, operands_hint, "missing option: --%s", spec->name);
    if (at < argc && strcmp(argv[at], "--") == 0)
        at++;
    if (operands == NULL && at < argc)
        return usage_error(specs, operands_hint, "unexpected argument: %s", argv[at]);
    if (operands != NULL)
        *operands = (struct operands){.items = argv + at, .count = argc - at};
    return 0;
}
