/*
 * capture: a tree, as a pax archive and a list of what the overlay removed.
 *
 * It runs while the workload is frozen, so it asks the kernel for each file once. The tree is the workload's: it may hold any name,
 * any depth, any number of files. Every directory is entered by descriptor, no symlink is followed, and what is kept in memory is bounded: the
 * names of the directories being walked (ARENA_BYTES), the paths of hard links (archive-links), the removed paths (REMOVED_BYTES).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "archive-path.h"
#include "archive-write.h"
#include "common.h"
#include "target.h"
#include "verbs.h"

#define ARENA_BYTES ((size_t)256 << 20)
#define ARENA_NAMES ((size_t)16 << 20)
#define REMOVED_BYTES ((long)64 << 20)

struct capture {
    struct archive_writer writer;
    struct option_list exclude;
    bool upper;
    char path[PATH_MAX]; /* of the file being looked at, relative to the root; "" for the root */
    size_t path_length;
    char *names; /* the names of every directory being walked, one after the other */
    size_t names_used;
    char **sorted;
    size_t sorted_used;
    FILE *removed;
    FILE *opaque; /* the second list, in memory until the first has ended */
    char *opaque_text;
    size_t opaque_size;
    uint64_t removed_count, opaque_count, skipped;
};

static int walk_directory(struct capture *capture, int directory);

/* A pattern that begins with `*` is a glob over the whole path; any other is a path, with all that is below it. */
static bool is_excluded(const struct capture *capture) {
    char path[PATH_MAX + 1] = "/";
    memcpy(path + 1, capture->path, capture->path_length + 1);
    for (size_t i = 0; i < capture->exclude.count; i++) {
        const char *pattern = capture->exclude.items[i];
        size_t length = strlen(pattern);
        if (*pattern == '*' ? fnmatch(pattern, path, 0) == 0
                            : strncmp(path, pattern, length) == 0 && (path[length] == '\0' || path[length] == '/'))
            return true;
    }
    return false;
}

/* Adds the current path to one of the two lists. Returns 0, or 1 after reporting. */
static int list_path(struct capture *capture, FILE *list, uint64_t *count) {
    if ((*count)++ > 0)
        fputc(',', list);
    removed_path_write(list, capture->path);
    if (ferror(list))
        return fail("write", "removed", errno);
    /* apply reads the list into memory, and refuses a larger one. */
    if (ftell(list) > REMOVED_BYTES / 2)
        return fail_code("TREE_TOO_LARGE", "list", capture->path, E2BIG, "too many removed paths");
    return 0;
}

/* Stores one opened or named file, and walks it if it is a directory. Returns 0, or 1 after reporting. */
static int store(struct capture *capture, struct archive_file *file) {
    struct overlay_marks marks = {.opaque = false};
    file->path = capture->path_length == 0 ? "." : capture->path;
    if (archive_begin(&capture->writer, file, capture->upper ? &marks : NULL) != 0)
        return 1;
    if (marks.redirect)
        return fail_code("OVERLAY_REDIRECT", "getxattr", capture->path, 0,
                         "%s: its content lies elsewhere (overlay redirect_dir or metacopy)", capture->path);
    if (marks.opaque && capture->path_length > 0 && list_path(capture, capture->opaque, &capture->opaque_count) != 0)
        return 1;
    if (archive_store(&capture->writer, file) != 0)
        return 1;
    return S_ISDIR(file->status.st_mode) ? walk_directory(capture, file->descriptor) : 0;
}

/* Looks at the file NAME of a directory; TYPE is what the directory says it is. Returns 0, or 1 after reporting. */
static int visit(struct capture *capture, int directory, const char *name, unsigned char type) {
    struct archive_file file = {.directory = directory, .name = name, .descriptor = -1};
    if (type == DT_UNKNOWN || (type != DT_REG && type != DT_DIR)) {
        if (fstatat(directory, name, &file.status, AT_SYMLINK_NOFOLLOW) != 0)
            return errno == ENOENT ? 0 : fail("stat", capture->path, errno);
        type = IFTODT(file.status.st_mode);
    }
    if (type == DT_SOCK) {
        capture->skipped++;
        return 0;
    }
    if (capture->upper && S_ISCHR(file.status.st_mode) && file.status.st_rdev == 0)
        return list_path(capture, capture->removed, &capture->removed_count);
    if (type != DT_REG && type != DT_DIR)
        return store(capture, &file);
    int flags = type == DT_DIR ? O_DIRECTORY : O_NONBLOCK | O_NOATIME;
    cleanup_close int opened = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | flags);
    if (opened < 0)
        return errno == ENOENT ? 0 : fail("open", capture->path, errno);
    file.descriptor = opened;
    if (fstat(opened, &file.status) != 0)
        return fail("stat", capture->path, errno);
    if (IFTODT(file.status.st_mode) != type)
        return fail_code("FILE_CHANGED", "open", capture->path, 0, "%s became another kind of file", capture->path);
    return store(capture, &file);
}

/* Byte order, so that the same tree makes the same archive. The byte before each name is its type. */
static int compare_names(const void *left, const void *right) {
    return strcmp(*(char *const *)left + 1, *(char *const *)right + 1);
}

/* Appends the names of a directory to the arena, sorted. Returns 0, or 1 after reporting. */
static int list_names(struct capture *capture, int directory) {
    size_t first = capture->sorted_used;
    int again = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = again < 0 ? NULL : fdopendir(again);
    if (stream == NULL) {
        int result = fail("open directory", capture->path, errno);
        close_descriptor(&again);
        return result;
    }
    const struct dirent *found;
    for (errno = 0; (found = readdir(stream)) != NULL; errno = 0) {
        size_t length = strlen(found->d_name);
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (capture->names_used + length + 2 > ARENA_BYTES || capture->sorted_used == ARENA_NAMES)
            break;
        char *name = capture->names + capture->names_used;
        name[0] = (char)found->d_type;
        memcpy(name + 1, found->d_name, length + 1);
        capture->names_used += length + 2;
        capture->sorted[capture->sorted_used++] = name;
    }
    int err = errno;
    closedir(stream);
    if (found != NULL)
        return fail_code("TREE_TOO_LARGE", "read directory", capture->path, E2BIG, "%s: too many names", capture->path);
    if (err != 0)
        return fail("read directory", capture->path, err);
    qsort(capture->sorted + first, capture->sorted_used - first, sizeof *capture->sorted, compare_names);
    return 0;
}

/* Stores everything in a directory, in byte order. Returns 0, or 1 after reporting. */
static int walk_directory(struct capture *capture, int directory) {
    size_t length = capture->path_length, first = capture->sorted_used, names = capture->names_used;
    if (list_names(capture, directory) != 0)
        return 1;
    for (size_t i = first; i < capture->sorted_used; i++) {
        const char *name = capture->sorted[i] + 1;
        int wrote = snprintf(capture->path + length, PATH_MAX - length, length == 0 ? "%s" : "/%s", name);
        if ((size_t)wrote >= PATH_MAX - length)
            return fail("walk", capture->path, ENAMETOOLONG);
        capture->path_length = length + (size_t)wrote;
        if (!is_excluded(capture) && visit(capture, directory, name, (unsigned char)capture->sorted[i][0]) != 0)
            return 1;
    }
    capture->path[length] = '\0';
    capture->path_length = length;
    capture->sorted_used = first;
    capture->names_used = names;
    return 0;
}

/* Opens the outputs and reserves the arenas (address space only, until names are there). Returns 0, or 1 after reporting. */
static int prepare(struct capture *capture, const char *tar, const char *removed) {
    /* One descriptor per level of depth; a path below PATH_MAX has at most 2048. */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    capture->names = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    capture->sorted = mmap(NULL, ARENA_NAMES * sizeof *capture->sorted, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (capture->names == MAP_FAILED || capture->sorted == MAP_FAILED)
        return fail("mmap", "names", errno);
    int list = open(removed, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (list < 0)
        return fail("create", removed, errno);
    capture->removed = fdopen(list, "w");
    capture->opaque = open_memstream(&capture->opaque_text, &capture->opaque_size);
    if (capture->removed == NULL || capture->opaque == NULL)
        return fail("open", removed, errno);
    fputs("{\"removed\":[", capture->removed);
    return archive_writer_open(&capture->writer, tar);
}

/* Ends both outputs and fsyncs them. Returns 0, or 1 after reporting. */
static int complete(struct capture *capture, const char *removed) {
    if (archive_writer_finish(&capture->writer) != 0)
        return 1;
    if (fflush(capture->opaque) != 0)
        return fail("write", "opaque", errno);
    fprintf(capture->removed, "],\"opaque\":[%s]}\n", capture->opaque_text);
    if (fflush(capture->removed) != 0 || ferror(capture->removed) || fsync(fileno(capture->removed)) != 0)
        return fail("write", removed, errno);
    return 0;
}

static void release(struct capture *capture) {
    if (capture->removed != NULL)
        fclose(capture->removed);
    if (capture->opaque != NULL)
        fclose(capture->opaque);
    free(capture->opaque_text);
    archive_writer_free(&capture->writer);
}

/* Opens the root of the tree: an upper directory, or a clone of a mount of the target. Returns -1 after reporting. */
static int open_root(const char *upper, const struct target_options *from, const char *mount) {
    cleanup_target struct target target = TARGET_NONE;
    cleanup_close int clone = -1;
    if (upper == NULL && (target_open_options(&target, from) != 0 || (clone = clone_mount(&target, mount, 0)) < 0))
        return -1;
    int root = upper != NULL ? open(upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                             : openat(clone, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        fail("open", upper != NULL ? upper : mount, errno);
    return root;
}

int verb_capture(int argc, char **argv) {
    static struct capture capture;
    struct target_options from = TARGET_OPTIONS_NONE;
    const char *upper = NULL, *mount = NULL, *tar = NULL, *removed = NULL;
    const struct option_spec specs[] = {
        TARGET_OPTIONS(from, false),
        {"upper", OPTION_STRING, false, &upper, "DIR"},
        {"mount", OPTION_STRING, false, &mount, "M"},
        {"tar", OPTION_STRING, true, &tar, "FILE"},
        {"removed", OPTION_STRING, true, &removed, "FILE"},
        {"exclude", OPTION_LIST, false, &capture.exclude, "PATTERN"},
        {0},
    };
    int result = parse_options(argc, argv, specs, NULL, NULL);
    if (result != 0)
        return result;
    if ((upper == NULL) == (mount == NULL) || (mount != NULL) != target_named(&from))
        return usage_error(specs, NULL, "either --upper, or --pid, --start and --mount");
    capture.upper = upper != NULL;
    capture.writer.descriptor = -1;
    struct archive_file root = {.name = ".", .directory = -1};
    cleanup_close int opened = open_root(upper, &from, mount);
    if (opened < 0)
        return EXIT_FAILED;
    root.descriptor = opened;
    if (fstat(opened, &root.status) != 0)
        return fail("stat", "root", errno);
    result = prepare(&capture, tar, removed) != 0 || store(&capture, &root) != 0 || complete(&capture, removed) != 0;
    if (result == 0) {
        printf("{\"entries\":%llu,\"bytes\":%llu,\"removed\":%llu,\"opaque\":%llu,\"skipped\":%llu}\n",
               (unsigned long long)capture.writer.entries, (unsigned long long)capture.writer.bytes,
               (unsigned long long)capture.removed_count, (unsigned long long)capture.opaque_count,
               (unsigned long long)capture.skipped);
        result = finish();
    }
    release(&capture);
    return result;
}
