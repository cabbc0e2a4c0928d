#include "common.h"
#include "target.h"
#include "verbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* A usual /dev has some hundred entries, that of a privileged container a few thousand. */
enum { SEEN_LIMIT = 65536, FOUND_LIMIT = 4096, MAJOR_LIMIT = 4095 };

/* What is looked for, and what came of it. */
struct search {
    const char *prefix;
    uint64_t *majors;
    size_t major_count;
    FILE *out; /* the elements of a JSON array */
    size_t seen;
    size_t found;
};

static bool has_prefix(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static const char *type_name(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFCHR:
        return "char";
    case S_IFBLK:
        return "block";
    case S_IFREG:
        return "file";
    case S_IFLNK:
        return "symlink";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    default:
        return "directory";
    }
}

/* Whether it is a character device with one of the numbers that are looked for. */
static bool is_wanted(const struct search *search, const struct stat *status) {
    if (!S_ISCHR(status->st_mode))
        return false;
    for (size_t i = 0; i < search->major_count; i++)
        if (major(status->st_rdev) == search->majors[i])
            return true;
    return false;
}

/* Writes one element. PARENT is "" or ends with a slash. */
static void print_found(struct search *search, const char *parent, const char *name, const struct stat *status) {
    char path[2 * (NAME_MAX + 1)];
    snprintf(path, sizeof path, "%s%s", parent, name);
    fputs(search->found++ > 0 ? ",{\"path\":" : "{\"path\":", search->out);
    json_string(search->out, path);
    fprintf(search->out, ",\"type\":\"%s\"", type_name(status->st_mode));
    if (S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode))
        fprintf(search->out, ",\"major\":%u,\"minor\":%u", major(status->st_rdev), minor(status->st_rdev));
    fputc('}', search->out);
}

static int search_directory(struct search *search, int directory, const char *parent);

/* Looks at one entry. Its status is asked for whatever readdir says: what a mount point is, only the mount on it tells. */
static int look_at(struct search *search, int directory, const char *parent, const char *name) {
    struct stat status;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0)
        return errno == ENOENT ? 0 : fail("stat", name, errno);
    if (S_ISDIR(status.st_mode)) {
        /* Other directories, such as /dev/shm, belong to the workload and may hold anything. */
        if (*parent != '\0' || !has_prefix(name, search->prefix))
            return 0;
        int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (below < 0)
            return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : fail("open", name, errno);
        char path[NAME_MAX + 2];
        snprintf(path, sizeof path, "%s/", name);
        return search_directory(search, below, path);
    }
    if (!is_wanted(search, &status) && !has_prefix(name, search->prefix))
        return 0;
    if (search->found >= FOUND_LIMIT)
        return fail_code("TOO_MANY_DEVICES", "search", name, 0, "more than %d entries match", FOUND_LIMIT);
    print_found(search, parent, name, &status);
    return 0;
}

/* Searches a directory; takes the descriptor over. PARENT is how it is called from where the search began, "" there. */
static int search_directory(struct search *search, int directory, const char *parent) {
    DIR *stream = fdopendir(directory);
    if (stream == NULL) {
        int err = errno;
        close(directory);
        return fail("opendir", parent, err);
    }
    int rc = 0;
    const struct dirent *entry;
    for (errno = 0; rc == 0 && (entry = readdir(stream)) != NULL; errno = 0) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        rc = ++search->seen > SEEN_LIMIT
                 ? fail_code("TOO_MANY_DEVICES", "search", parent, 0, "more than %d entries", SEEN_LIMIT)
                 : look_at(search, dirfd(stream), parent, entry->d_name);
    }
    if (rc == 0 && errno != 0)
        rc = fail("readdir", parent, errno);
    closedir(stream);
    return rc;
}

/* Searches, and prints the result. Takes the descriptor over; -1: there is no such directory. */
static int print_devices(struct search *search, int directory) {
    cleanup_free char *found = NULL;
    size_t length = 0;
    search->out = open_memstream(&found, &length);
    if (search->out == NULL) {
        int err = errno;
        close_descriptor(&directory);
        return fail("open_memstream", "result", err);
    }
    int rc = directory < 0 ? 0 : search_directory(search, directory, "");
    if (fclose(search->out) != 0 && rc == 0)
        rc = fail("fclose", "result", errno);
    if (rc != 0)
        return rc;
    printf("{\"dir\":%s,\"devices\":[%s]}\n", directory < 0 ? "false" : "true", found);
    return finish();
}

/* Reads the majors of the command line into the search. Returns 0, or 2 after printing what is wrong. */
static int parse_majors(struct search *search, const struct option_list *given, const struct option_spec *specs) {
    for (size_t i = 0; i < given->count; i++)
        if (!parse_number(given->items[i], MAJOR_LIMIT, &search->majors[i]))
            return usage_error(specs, NULL, "malformed value: --major %s", given->items[i]);
    search->major_count = given->count;
    return 0;
}

/* `devices`: device nodes of a directory inside a container, by number; and whatever there has a name like theirs. */
int verb_devices(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const char *dir = NULL;
    struct option_list given = {0};
    struct search search = {0};
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"dir", OPTION_STRING, true, &dir, "D"},
        {"prefix", OPTION_STRING, true, &search.prefix, "P"},
        {"major", OPTION_LIST, true, &given, "N"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    cleanup_free uint64_t *majors = calloc(given.count, sizeof *majors);
    if (majors == NULL)
        return fail("calloc", "majors", errno);
    search.majors = majors;
    rc = parse_majors(&search, &given, specs);
    if (rc != 0)
        return rc;
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    cleanup_close int root = target_root(&target);
    if (root < 0)
        return EXIT_FAILED;
    int directory = open_in_root(root, dir, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (directory < 0 && errno != ENOENT && errno != ENOTDIR)
        return fail_open("open", dir, errno);
    if (target_alive(&target) != 0) {
        close_descriptor(&directory);
        return EXIT_FAILED;
    }
    return print_devices(&search, directory);
}
