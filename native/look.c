#include "common.h"
#include "control-dir.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTENT_LIMIT = 4096 };

/* The word for a kind of file. */
static const char *type_name(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "directory";
    case S_IFLNK:
        return "symlink";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    default:
        return "device";
    }
}

/*
 * Reads the regular file behind the O_PATH descriptor. It is opened again through that descriptor: another file cannot have
 * taken its place, and what is a device or a FIFO is never opened at all. Returns the length or -1 with errno.
 */
static ssize_t read_content(int found, char *content) {
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", found);
    cleanup_close int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return -1;
    size_t length = 0;
    while (length < CONTENT_LIMIT) {
        ssize_t got = read(file, content + length, CONTENT_LIMIT - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

/* Prints what lies under the name. Returns 0, or 1 after reporting. */
static int print_file(int directory, const char *name) {
    cleanup_close int found = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (found < 0 && errno == ENOENT) {
        puts("{\"dir\":true,\"exists\":false}");
        return finish();
    }
    struct stat status;
    if (found < 0 || fstat(found, &status) != 0)
        return fail("open", name, errno);
    char content[CONTENT_LIMIT];
    ssize_t length = -1;
    if (S_ISREG(status.st_mode) && status.st_size <= CONTENT_LIMIT) {
        length = read_content(found, content);
        if (length < 0)
            return fail("read", name, errno);
    }
    printf("{\"dir\":true,\"exists\":true,\"type\":\"%s\",\"size\":%lld", type_name(status.st_mode),
           (long long)status.st_size);
    if (length >= 0) {
        fputs(",\"content\":", stdout);
        json_bytes(stdout, content, (size_t)length);
    }
    puts("}");
    return finish();
}

/* `look`: whether a file is in a container, and what a small one says. */
int verb_look(int argc, char **argv) {
    struct control_options options = CONTROL_OPTIONS_NONE;
    const struct option_spec specs[] = {CONTROL_OPTIONS(options), {0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    if (!is_file_name(options.name))
        return usage_error(specs, NULL, "malformed value: --name %s", options.name);
    cleanup_target struct target target = TARGET_NONE;
    cleanup_close int directory = -1;
    if (open_control_dir(&target, &options, &directory) != 0)
        return EXIT_FAILED;
    if (directory >= 0)
        return print_file(directory, options.name);
    puts("{\"dir\":false,\"exists\":false}");
    return finish();
}
