#include "archive-path.h"

#include <limits.h>
#include <string.h>

#include "common.h"

bool archive_path(const char *path, char *out, size_t size) {
    while (strncmp(path, "./", 2) == 0) {
        path += 2;
        if (*path == '\0')
            path = ".";
    }
    size_t length = strlen(path);
    if (length == 0 || *path == '/')
        return false;
    while (path[length - 1] == '/')
        length--;
    if (length >= size)
        return false;
    memcpy(out, path, length);
    out[length] = '\0';
    if (strcmp(out, ".") == 0) {
        *out = '\0';
        return true;
    }
    for (const char *at = out; at != NULL;) {
        size_t component = strcspn(at, "/");
        if (component == 0 || component > NAME_MAX || (component == 1 && at[0] == '.') ||
            (component == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at = at[component] == '/' ? at + component + 1 : NULL;
    }
    return true;
}

void removed_path_write(FILE *out, const char *path) {
    fputc('"', out);
    for (const unsigned char *at = (const unsigned char *)path; *at != '\0'; at++) {
        if (*at < 0x20 || *at > 0x7e || *at == '"' || *at == '\\' || *at == '%')
            fprintf(out, "%%%02X", *at);
        else
            fputc(*at, out);
    }
    fputc('"', out);
}

struct cursor {
    const char *at;
    const char *end;
};

static int fail_form(const char *what) {
    return fail_code("BAD_REMOVED", "parse", "removed", 0, "the list of removed paths is malformed: %s", what);
}

static void skip_space(struct cursor *text) {
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\t' || *text->at == '\r'))
        text->at++;
}

/* Takes TOKEN, after white space. */
static bool take(struct cursor *text, const char *token) {
    size_t length = strlen(token);
    skip_space(text);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, token, length) != 0)
        return false;
    text->at += length;
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Takes a string and decodes it into PATH (PATH_MAX bytes). JSON's own escapes never occur in what capture writes. */
static bool take_path(struct cursor *text, char *path) {
    size_t length = 0;
    if (!take(text, "\""))
        return false;
    for (; text->at < text->end && *text->at != '"'; text->at++) {
        unsigned char byte = (unsigned char)*text->at;
        if (byte < 0x20 || byte > 0x7e || byte == '\\' || length == PATH_MAX - 1)
            return false;
        if (byte == '%') {
            if (text->end - text->at < 3)
                return false;
            int high = hex_digit(text->at[1]), low = hex_digit(text->at[2]);
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return false;
            byte = (unsigned char)(high << 4 | low);
            text->at += 2;
        }
        path[length++] = (char)byte;
    }
    path[length] = '\0';
    return take(text, "\"");
}

/* Takes one array of paths. Returns 0, or 1 after reporting, or what VISIT returned. */
static int take_list(struct cursor *text, bool opaque, removed_visit visit, void *context) {
    char raw[PATH_MAX] = "", path[PATH_MAX];
    if (!take(text, "["))
        return fail_form("an array is expected");
    if (take(text, "]"))
        return 0;
    do {
        if (!take_path(text, raw))
            return fail_form("a path is expected");
        if (!archive_path(raw, path, sizeof path) || *path == '\0')
            return fail_code("BAD_PATH", "parse", raw, 0, "not a path below the root: %s", raw);
        int result = visit != NULL ? visit(context, opaque, path) : 0;
        if (result != 0)
            return result;
    } while (take(text, ","));
    return take(text, "]") ? 0 : fail_form("an array does not end");
}

static int parse_lists(const char *text, size_t length, removed_visit visit, void *context) {
    struct cursor cursor = {.at = text, .end = text + length};
    if (!take(&cursor, "{") || !take(&cursor, "\"removed\"") || !take(&cursor, ":"))
        return fail_form("\"removed\" is expected");
    int result = take_list(&cursor, false, visit, context);
    if (result != 0)
        return result;
    if (!take(&cursor, ",") || !take(&cursor, "\"opaque\"") || !take(&cursor, ":"))
        return fail_form("\"opaque\" is expected");
    result = take_list(&cursor, true, visit, context);
    if (result != 0)
        return result;
    if (!take(&cursor, "}"))
        return fail_form("the object does not end");
    skip_space(&cursor);
    return cursor.at == cursor.end ? 0 : fail_form("something follows the object");
}

int removed_parse(const char *text, size_t length, removed_visit visit, void *context) {
    int result = parse_lists(text, length, NULL, NULL);
    return result != 0 ? result : parse_lists(text, length, visit, context);
}

enum kept kept_relation(const struct option_list *keep, const char *path) {
    enum kept relation = KEPT_APART;
    size_t length = strlen(path);
    for (size_t i = 0; i < keep->count; i++) {
        const char *kept = keep->items[i] + strspn(keep->items[i], "/");
        size_t kept_length = strlen(kept);
        if (strncmp(path, kept, kept_length) == 0 && (path[kept_length] == '\0' || path[kept_length] == '/'))
            return KEPT_WITHIN;
        if (length == 0 || (strncmp(kept, path, length) == 0 && kept[length] == '/'))
            relation = KEPT_ABOVE;
    }
    return relation;
}
