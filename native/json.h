/* Writing JSON strings from bytes that nobody has vouched for. */
#ifndef SNAPSHOT_JSON_H
#define SNAPSHOT_JSON_H

#include <stddef.h>
#include <stdio.h>

/* Writes TEXT as a JSON string with its quotes; a null pointer becomes null. */
void json_string(FILE *out, const char *text);

/* Writes LENGTH bytes as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD, so the line stays valid JSON. */
void json_bytes(FILE *out, const char *bytes, size_t length);

#endif
