#include "cuda-requests.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

enum { MAX_WORDS = 4, MAX_PAIRS = 128, UUID_LENGTH = 36 };

/* A request: its name and what follows it. `pid` is 0 for one that takes none. */
struct request {
    char *words[MAX_WORDS];
    int count;
    int pid;
};

void answer_bad_request(const struct session *session, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fputs("{\"ok\":false,\"error\":-1,\"name\":\"BAD_REQUEST\",\"text\":", session->out);
    json_string(session->out, text);
    fputs(",\"call\":\"\"}\n", session->out);
}

/* Answers that CALL failed. RESTORED: it was the unlock that failed, after a restore that did not. */
static void answer_failure(const struct session *session, const char *call, int error, bool restored) {
    fputs("{\"ok\":false,", session->out);
    driver_print_error(session->driver, error, session->out);
    fputs(",\"call\":", session->out);
    json_string(session->out, call);
    fputs(restored ? ",\"restored\":true}\n" : "}\n", session->out);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Answers a call that only succeeds or fails, and took the time since START. */
static void answer_call(const struct session *session, const char *call, int error, double start) {
    if (error != DRIVER_OK)
        answer_failure(session, call, error, false);
    else
        fprintf(session->out, "{\"ok\":true,\"seconds\":%.6f}\n", now() - start);
}

static void answer_state(const struct session *session, const struct request *request) {
    static const char *const names[STATE_COUNT] = {"running", "locked", "checkpointed", "failed"};
    int state = -1;
    int error = session->driver->state(request->pid, &state);
    if (error != DRIVER_OK)
        answer_failure(session, "cuCheckpointProcessGetState", error, false);
    else if (state < 0 || state >= STATE_COUNT)
        /* A later driver may have more of them. None of its names would be true. */
        fprintf(session->out,
                "{\"ok\":false,\"error\":-1,\"name\":\"UNKNOWN_STATE\",\"text\":\"the driver gives a state that is not known: "
                "%d\",\"call\":\"cuCheckpointProcessGetState\"}\n",
                state);
    else
        fprintf(session->out, "{\"ok\":true,\"state\":\"%s\"}\n", names[state]);
}

static void answer_restore_thread(const struct session *session, const struct request *request) {
    int tid = 0;
    int error = session->driver->restore_thread(request->pid, &tid);
    if (error != DRIVER_OK)
        answer_failure(session, "cuCheckpointProcessGetRestoreThreadId", error, false);
    else
        fprintf(session->out, "{\"ok\":true,\"tid\":%d}\n", tid);
}

static void answer_lock(const struct session *session, const struct request *request) {
    uint64_t timeout;
    if (!parse_number(request->words[2], UINT32_MAX, &timeout)) {
        answer_bad_request(session, "not a number of milliseconds: %s", request->words[2]);
        return;
    }
    struct lock_arguments arguments = {.timeout_ms = (unsigned)timeout};
    double start = now();
    answer_call(session, "cuCheckpointProcessLock", session->driver->lock(request->pid, &arguments), start);
}

static void answer_checkpoint(const struct session *session, const struct request *request) {
    struct no_arguments arguments = {0};
    double start = now();
    answer_call(session, "cuCheckpointProcessCheckpoint", session->driver->checkpoint(request->pid, &arguments), start);
}

static void answer_unlock(const struct session *session, const struct request *request) {
    struct no_arguments arguments = {0};
    double start = now();
    answer_call(session, "cuCheckpointProcessUnlock", session->driver->unlock(request->pid, &arguments), start);
}

static unsigned hex_digit(char digit) {
    return isdigit((unsigned char)digit) ? (unsigned)(digit - '0')
                                         : (unsigned)(tolower((unsigned char)digit) - 'a' + 10);
}

/* Parses the UUID of a GPU: 8-4-4-4-12 hex digits, with or without `GPU-` before them. */
static bool parse_uuid(const char *text, struct gpu_uuid *uuid) {
    if (strncmp(text, "GPU-", 4) == 0)
        text += 4;
    if (strlen(text) != UUID_LENGTH)
        return false;
    size_t digits = 0;
    for (size_t i = 0; i < UUID_LENGTH; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (is_dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            return false;
        if (is_dash)
            continue;
        unsigned char *byte = &uuid->bytes[digits / 2];
        *byte = (unsigned char)(*byte << 4 | hex_digit(text[i]));
        digits++;
    }
    return true;
}

/* Parses OLD=NEW,OLD=NEW…. Returns false after answering that it is none. */
static bool parse_pairs(const struct session *session, char *text, struct gpu_pair *pairs, unsigned *count) {
    for (char *next = text; next != NULL;) {
        char *pair = strsep(&next, ",");
        char *new = pair;
        const char *old = strsep(&new, "=");
        if (*count == MAX_PAIRS) {
            answer_bad_request(session, "more than %d pairs of GPUs", MAX_PAIRS);
            return false;
        }
        struct gpu_pair *parsed = &pairs[(*count)++];
        if (new == NULL) {
            answer_bad_request(session, "not a pair of GPUs: %s", old);
            return false;
        }
        if (!parse_uuid(old, &parsed->old) || !parse_uuid(new, &parsed->new)) {
            answer_bad_request(session, "not a pair of GPU UUIDs: %s=%s", old, new);
            return false;
        }
    }
    return true;
}

/* Restores, then unlocks if THEN_UNLOCK: nothing comes between the two. */
static void restore(const struct session *session, const struct request *request, bool then_unlock) {
    struct gpu_pair pairs[MAX_PAIRS] = {0};
    struct restore_arguments arguments = {0};
    if (request->count > 2) {
        if (!parse_pairs(session, request->words[2], pairs, &arguments.pair_count))
            return;
        arguments.pairs = pairs;
    }
    double start = now();
    int error = session->driver->restore(request->pid, &arguments);
    if (error != DRIVER_OK || !then_unlock) {
        answer_call(session, "cuCheckpointProcessRestore", error, start);
        return;
    }
    struct no_arguments none = {0};
    double restored = now();
    error = session->driver->unlock(request->pid, &none);
    if (error != DRIVER_OK)
        answer_failure(session, "cuCheckpointProcessUnlock", error, true);
    else
        fprintf(session->out, "{\"ok\":true,\"restoreSeconds\":%.6f,\"unlockSeconds\":%.6f}\n", restored - start,
                now() - restored);
}

static void answer_restore(const struct session *session, const struct request *request) {
    restore(session, request, false);
}

static void answer_restore_unlock(const struct session *session, const struct request *request) {
    restore(session, request, true);
}

static void answer_gpus(const struct session *session, const struct request *request) {
    (void)request;
    nvml_answer_gpus(session->nvml, session->out);
}

static void answer_processes(const struct session *session, const struct request *request) {
    (void)request;
    nvml_answer_processes(session->nvml, session->out);
}

static const struct {
    const char *name;
    int least; /* words, the name among them; from 2 on, the first operand is a PID */
    int most;
    void (*answer)(const struct session *session, const struct request *request);
    const char *usage;
} kinds[] = {
    {"state", 2, 2, answer_state, "PID"},
    {"restore-thread", 2, 2, answer_restore_thread, "PID"},
    {"lock", 3, 3, answer_lock, "PID TIMEOUT_MS"},
    {"checkpoint", 2, 2, answer_checkpoint, "PID"},
    {"restore", 2, 3, answer_restore, "PID [OLD=NEW,…]"},
    {"unlock", 2, 2, answer_unlock, "PID"},
    {"restore-unlock", 2, 3, answer_restore_unlock, "PID [OLD=NEW,…]"},
    {"gpus", 1, 1, answer_gpus, ""},
    {"processes", 1, 1, answer_processes, ""},
};

void answer_request(const struct session *session, char *line) {
    struct request request = {0};
    char *rest = line;
    do
        request.words[request.count++] = strsep(&rest, " ");
    while (rest != NULL && request.count < MAX_WORDS);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint64_t pid = 0;
        if (strcmp(kinds[i].name, request.words[0]) != 0)
            continue;
        if (rest != NULL || request.count < kinds[i].least || request.count > kinds[i].most)
            answer_bad_request(session, "usage: %s %s", kinds[i].name, kinds[i].usage);
        else if (kinds[i].least > 1 && (!parse_number(request.words[1], INT32_MAX, &pid) || pid == 0))
            answer_bad_request(session, "not a PID: %s", request.words[1]);
        else {
            request.pid = (int)pid;
            kinds[i].answer(session, &request);
        }
        return;
    }
    answer_bad_request(session, "unknown request: %s", request.words[0]);
}
