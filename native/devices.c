#include "common.h"
#include "device-access.h"
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
enum { SEEN_LIMIT = 65536, FOUND_LIMIT = 4096, MAJOR_LIMIT = 4095, MINOR_LIMIT = 1048575 };

struct found {
    char path[2 * (NAME_MAX + 1)];
    mode_t mode;
    dev_t number;
    int trial; /* its place among the trials, or -1 */
};

/* What is looked for, and what came of it. */
struct search {
    const char *prefix;
    uint64_t *majors;
    size_t major_count;
    dev_t *opened; /* numbers of the devices that are to be opened */
    size_t opened_count;
    const char *cgroup_root;
    struct found *found; /* FOUND_LIMIT of them */
    size_t found_count;
    struct trial trials[TRIAL_LIMIT];
    size_t trial_count;
    size_t seen;
};

#define cleanup_search __attribute__((cleanup(end_search)))
static void end_search(const struct search *search) {
    for (size_t i = 0; i < search->trial_count; i++)
        close_descriptor(&search->trials[i].node);
    free(search->majors);
    free(search->opened);
    free(search->found);
}

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

/* Whether it is a device that is to be opened. */
static bool is_to_be_opened(const struct search *search, const struct stat *status) {
    if (!S_ISCHR(status->st_mode))
        return false;
    for (size_t i = 0; i < search->opened_count; i++)
        if (status->st_rdev == search->opened[i])
            return true;
    return false;
}

/* Notes what was found. PARENT is "" or ends with a slash. NODE is its descriptor where it is to be opened, else -1; taken over. */
static int note_found(struct search *search, const char *parent, const char *name, const struct stat *status, int node) {
    cleanup_close int own = node;
    if (search->found_count >= FOUND_LIMIT)
        return fail_code("TOO_MANY_DEVICES", "search", name, 0, "more than %d entries match", FOUND_LIMIT);
    if (node >= 0 && search->trial_count >= TRIAL_LIMIT)
        return fail_code("TOO_MANY_DEVICES", "search", name, 0, "more than %d nodes of devices that are to be opened",
                         TRIAL_LIMIT);
    struct found *found = &search->found[search->found_count++];
    *found = (struct found){.mode = status->st_mode, .number = status->st_rdev, .trial = -1};
    snprintf(found->path, sizeof found->path, "%s%s", parent, name);
    if (node < 0)
        return 0;
    found->trial = (int)search->trial_count;
    search->trials[search->trial_count++] =
        (struct trial){.node = take_descriptor(&own), .number = status->st_rdev, .outcome = NOT_TRIED};
    return 0;
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
    cleanup_close int node = -1;
    if (is_to_be_opened(search, &status)) {
        node = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        /* Meanwhile something else may lie there: what is held is what counts. */
        if (node < 0 || fstat(node, &status) != 0)
            return errno == ENOENT ? 0 : fail("open", name, errno);
    }
    if (S_ISDIR(status.st_mode) || (!is_wanted(search, &status) && !has_prefix(name, search->prefix)))
        return 0;
    return note_found(search, parent, name, &status, is_to_be_opened(search, &status) ? take_descriptor(&node) : -1);
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

/* Writes one element of the result. */
static void print_found(const struct search *search, const struct found *found) {
    fputs("{\"path\":", stdout);
    json_string(stdout, found->path);
    printf(",\"type\":\"%s\"", type_name(found->mode));
    if (S_ISCHR(found->mode) || S_ISBLK(found->mode))
        printf(",\"major\":%u,\"minor\":%u", major(found->number), minor(found->number));
    if (found->trial >= 0) {
        int outcome = search->trials[found->trial].outcome;
        bool is_refused = outcome == EPERM || outcome == EACCES;
        printf(",\"usable\":%s", outcome == 0 ? "true" : is_refused ? "false" : "null");
        if (outcome > 0)
            printf(",\"errno\":\"%s\"", strerrorname_np(outcome) != NULL ? strerrorname_np(outcome) : "");
    }
    putchar('}');
}

/* Prints the result. WHY is the error line that says why not all devices were tried, or NULL. */
static int print_result(const struct search *search, bool is_directory, const char *why) {
    printf("{\"dir\":%s,\"devices\":[", is_directory ? "true" : "false");
    for (size_t i = 0; i < search->found_count; i++) {
        if (i > 0)
            putchar(',');
        print_found(search, &search->found[i]);
    }
    putchar(']');
    if (why != NULL)
        printf(",\"untried\":%s", why);
    puts("}");
    return finish();
}

/* Searches the directory, tries what is to be opened, and prints the result. Takes the descriptor over; -1: there is no such directory. */
static int list_devices(struct search *search, const struct target *target, int directory) {
    const char *why = NULL;
    if (directory >= 0 && search_directory(search, directory, "") != 0)
        return EXIT_FAILED;
    if (search->trial_count > 0 &&
        try_devices(target, search->cgroup_root, search->trials, search->trial_count, &why) != 0)
        return EXIT_FAILED;
    /* Where the container ended meanwhile, its cgroups did too, and nothing can be said of it. */
    if (target_alive(target) != 0)
        return EXIT_FAILED;
    return print_result(search, directory >= 0, why);
}

/* Parses MAJOR:MINOR. */
static bool parse_device(const char *text, dev_t *number) {
    char digits[8];
    uint64_t parts[2];
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof digits)
        return false;
    snprintf(digits, sizeof digits, "%.*s", (int)(colon - text), text);
    if (!parse_number(digits, MAJOR_LIMIT, &parts[0]) || !parse_number(colon + 1, MINOR_LIMIT, &parts[1]))
        return false;
    *number = makedev((unsigned)parts[0], (unsigned)parts[1]);
    return true;
}

/* What of the command line is not read yet when its options are. */
struct lists {
    struct option_list majors;
    struct option_list opened;
};

#define cleanup_lists __attribute__((cleanup(free_lists)))
static void free_lists(const struct lists *lists) {
    free(lists->majors.items);
    free(lists->opened.items);
}

/* Reads the numbers of the command line into the search. Returns 0, or an exit status after printing what is wrong. */
static int parse_lists(struct search *search, const struct lists *given, const struct option_spec *specs) {
    search->majors = calloc(given->majors.count, sizeof *search->majors);
    search->opened = calloc(given->opened.count + 1, sizeof *search->opened);
    search->found = calloc(FOUND_LIMIT, sizeof *search->found);
    if (search->majors == NULL || search->opened == NULL || search->found == NULL)
        return fail("calloc", "search", errno);
    for (size_t i = 0; i < given->majors.count; i++)
        if (!parse_number(given->majors.items[i], MAJOR_LIMIT, &search->majors[i]))
            return usage_error(specs, NULL, "malformed value: --major %s", given->majors.items[i]);
    for (size_t i = 0; i < given->opened.count; i++)
        if (!parse_device(given->opened.items[i], &search->opened[i]))
            return usage_error(specs, NULL, "malformed value: --open %s", given->opened.items[i]);
    search->major_count = given->majors.count;
    search->opened_count = given->opened.count;
    if (search->opened_count > 0 && search->cgroup_root == NULL)
        return usage_error(specs, NULL, "missing option: --cgroup-root, for --open");
    return 0;
}

/*
 * `devices`: device nodes of a directory inside a container, by number, and whatever there has a name like theirs; and whether the container may
 * open those that the caller names. No other is ever opened: a container can make itself a node of any device.
 */
int verb_devices(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const char *dir = NULL;
    cleanup_lists struct lists given = {0};
    cleanup_search struct search search = {0};
    const struct option_spec specs[] = {
        TARGET_OPTIONS(options, true),
        {"dir", OPTION_STRING, true, &dir, "D"},
        {"prefix", OPTION_STRING, true, &search.prefix, "P"},
        {"major", OPTION_LIST, true, &given.majors, "N"},
        {"open", OPTION_LIST, false, &given.opened, "MAJOR:MINOR"},
        {"cgroup-root", OPTION_STRING, false, &search.cgroup_root, "DIR"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc == 0)
        rc = parse_lists(&search, &given, specs);
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
    return list_devices(&search, &target, directory);
}
