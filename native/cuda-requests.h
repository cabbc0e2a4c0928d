/* The requests that snapshot-cuda answers, one line each (docs/native.md). */
#ifndef SNAPSHOT_CUDA_REQUESTS_H
#define SNAPSHOT_CUDA_REQUESTS_H

#include "cuda-driver.h"
#include "cuda-nvml.h"

struct session {
    const struct driver *driver;
    const struct nvml *nvml;
    FILE *out;
};

/* Answers that a request is none. */
void answer_bad_request(const struct session *session, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Carries out one request, which is cut into its words, and answers it. */
void answer_request(const struct session *session, char *line);

#endif
