#include "json.h"

#include <string.h>

/* Length of the well-formed UTF-8 sequence at BYTES (no overlong form, no surrogate, at most U+10FFFF), or 0. */
static size_t utf8_length(const unsigned char *bytes, size_t left) {
    unsigned char first = bytes[0];
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && bytes[1] < 0xa0) || (first == 0xed && bytes[1] > 0x9f) ||
        (first == 0xf0 && bytes[1] < 0x90) || (first == 0xf4 && bytes[1] > 0x8f))
        return 0;
    return length;
}

void json_bytes(FILE *out, const char *bytes, size_t length) {
    const unsigned char *at = (const unsigned char *)bytes;
    fputc('"', out);
    while (length > 0) {
        size_t step = utf8_length(at, length);
        if (step == 0) {
            fputs("\\ufffd", out);
            step = 1;
        } else if (*at == '"' || *at == '\\') {
            fprintf(out, "\\%c", *at);
        } else if (*at == '\n') {
            fputs("\\n", out);
        } else if (*at < 0x20 || *at == 0x7f) {
            fprintf(out, "\\u%04x", *at);
        } else {
            fwrite(at, 1, step, out);
        }
        at += step;
        length -= step;
    }
    fputc('"', out);
}

void json_string(FILE *out, const char *text) {
    if (text == NULL)
        fputs("null", out);
    else
        json_bytes(out, text, strlen(text));
}
