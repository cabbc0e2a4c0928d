/* prefetch: has files read into the page cache, from N threads, so that storage sees many requests at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bulk-work.h"
#include "common.h"
#include "verbs.h"

/* The kernel silently cuts a request to what the device takes at once; this much every device takes. */
enum { PIECE_BYTES = 4 << 20, REQUEST_BYTES = 128 << 10 };

struct prefetch_file {
    const char *path;
    int descriptor;
    uint64_t size;
};

struct prefetch {
    struct prefetch_file *files;
    size_t count;
    size_t file; /* where the next piece is; under the work's lock */
    uint64_t offset;
};

/* Takes the next piece. False when there is none. */
static bool next_piece(struct work *work, const struct prefetch_file **file, uint64_t *offset) {
    struct prefetch *prefetch = work->context;
    pthread_mutex_lock(&work->lock);
    while (prefetch->file < prefetch->count && prefetch->offset >= prefetch->files[prefetch->file].size) {
        prefetch->file++;
        prefetch->offset = 0;
    }
    bool found = prefetch->file < prefetch->count;
    if (found) {
        *file = &prefetch->files[prefetch->file];
        *offset = prefetch->offset;
        prefetch->offset += PIECE_BYTES;
    }
    pthread_mutex_unlock(&work->lock);
    return found;
}

/* Asks for one piece. What is in the page cache already costs a look-up, no copy: a fill beside this needs the CPUs itself. */
static bool request_piece(const struct prefetch_file *file, uint64_t offset, uint64_t end) {
    for (; offset < end; offset += REQUEST_BYTES)
        if (readahead(file->descriptor, (off64_t)offset, REQUEST_BYTES) != 0)
            return false;
    return true;
}

static void request_pieces(struct work *work, size_t thread) {
    (void)thread;
    const struct prefetch_file *file;
    uint64_t offset;
    while (!work_failed(work) && next_piece(work, &file, &offset)) {
        uint64_t end = offset + PIECE_BYTES < file->size ? offset + PIECE_BYTES : file->size;
        if (request_piece(file, offset, end))
            work->done_bytes += end - offset;
        else if (work_fail(work))
            fail("readahead", file->path, errno);
    }
}

/* Opens every file, without following or blocking. Returns 0, or 1 after reporting. */
static int open_files(struct prefetch *prefetch, const struct operands *paths) {
    for (int i = 0; i < paths->count; i++) {
        struct prefetch_file *file = &prefetch->files[i];
        struct stat status;
        *file = (struct prefetch_file){.path = paths->items[i]};
        file->descriptor = open(file->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (file->descriptor < 0)
            return fail("open", file->path, errno);
        prefetch->count++;
        if (fstat(file->descriptor, &status) != 0 || !S_ISREG(status.st_mode))
            return fail_code(NULL, "open", file->path, 0, "%s is not a regular file", file->path);
        file->size = (uint64_t)status.st_size;
    }
    return 0;
}

int verb_prefetch(int argc, char **argv) {
    static struct work work;
    uint64_t threads = 4;
    struct operands paths;
    const struct option_spec specs[] = {{"threads", OPTION_NUMBER, false, &threads, "N"}, {0}};
    int result = parse_options(argc, argv, specs, &paths, "FILE…");
    if (result != 0)
        return result;
    if (paths.count == 0 || !work_threads_valid(threads))
        return usage_error(specs, "FILE…", "needs files, and 1 to %d threads", MAX_THREADS);
    struct prefetch prefetch = {.files = calloc((size_t)paths.count, sizeof *prefetch.files)};
    if (prefetch.files == NULL)
        return fail("malloc", "files", ENOMEM);
    result = open_files(&prefetch, &paths);
    if (result == 0) {
        result = work_start(&work, threads, request_pieces, &prefetch);
        result |= work_wait(&work, false);
    }
    if (result == 0) {
        printf("{\"bytes\":%llu}\n", (unsigned long long)work.done_bytes);
        result = finish();
    }
    for (size_t i = 0; i < prefetch.count; i++)
        close(prefetch.files[i].descriptor);
    free(prefetch.files);
    return result;
}
