#include "common.h"
#include "control-dir.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONTENT_LIMIT = 64 * 1024, NAME_SIZE = 256 };

/* Reads stdin to its end into CONTENT, which has room for one byte more than is allowed. Returns the length or -1 after reporting. */
static ssize_t read_content(char *content) {
    size_t length = 0;
    while (length <= CONTENT_LIMIT) {
        ssize_t got = read(STDIN_FILENO, content + length, CONTENT_LIMIT + 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail("read", "stdin", errno), -1;
        if (got == 0)
            return (ssize_t)length;
        length += (size_t)got;
    }
    return fail_code(NULL, "read", "stdin", EFBIG, "content refused: more than %d bytes", CONTENT_LIMIT), -1;
}

/* Writes everything and syncs it. Returns 0 or -1 with errno. */
static int write_content(int file, const char *content, size_t length, mode_t mode) {
    while (length > 0) {
        ssize_t put = write(file, content, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        content += put;
        length -= (size_t)put;
    }
    /* The mode is set here because the umask is not the agent's business. */
    return fchmod(file, mode) != 0 || fsync(file) != 0 ? -1 : 0;
}

/* Makes the file under a name nobody can foresee, then gives it its own name, replacing what is there. Returns 0 or 1. */
static int replace_file(int directory, const char *name, const char *content, size_t length, mode_t mode) {
    uint64_t random;
    char temporary[NAME_SIZE];
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return fail("getrandom", name, errno);
    snprintf(temporary, sizeof temporary, ".%s.%016llx", name, (unsigned long long)random);
    cleanup_close int file =
        openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)0600);
    if (file < 0)
        return fail("create", temporary, errno);
    const char *step = "write";
    int rc = write_content(file, content, length, mode);
    if (rc == 0) {
        step = "rename";
        rc = renameat(directory, temporary, directory, name);
    }
    if (rc != 0) {
        int err = errno;
        unlinkat(directory, temporary, 0);
        return fail(step, name, err);
    }
    if (fsync(directory) != 0)
        return fail("fsync", name, errno);
    return 0;
}

/* Parses an octal mode of permission bits only. */
static bool parse_mode(const char *text, mode_t *mode) {
    char *end;
    if (*text < '0' || *text > '7')
        return false;
    unsigned long value = strtoul(text, &end, 8);
    *mode = (mode_t)value;
    return *end == '\0' && value <= 0777;
}

/* `put`: a file in a container, complete or not at all, never through a symlink. */
int verb_put(int argc, char **argv) {
    const char *mode_text = "0644";
    struct control_options options = CONTROL_OPTIONS_NONE;
    const struct option_spec specs[] = {
        CONTROL_OPTIONS(options),
        {"mode", OPTION_STRING, false, &mode_text, "OCTAL"},
        {0},
    };
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    mode_t mode;
    if (!is_file_name(options.name))
        return usage_error(specs, NULL, "malformed value: --name %s", options.name);
    if (!parse_mode(mode_text, &mode))
        return usage_error(specs, NULL, "malformed value: --mode %s", mode_text);
    static char content[CONTENT_LIMIT + 1];
    ssize_t length = read_content(content);
    if (length < 0)
        return EXIT_FAILED;
    cleanup_target struct target target = TARGET_NONE;
    cleanup_close int directory = -1;
    if (open_control_dir(&target, &options, &directory) != 0)
        return EXIT_FAILED;
    if (directory < 0)
        return fail_code("NO_CONTROL_DIR", "open", options.dir, ENOENT, "no control directory: %s", options.dir);
    if (replace_file(directory, options.name, content, (size_t)length, mode) != 0)
        return EXIT_FAILED;
    printf("{\"written\":%zd}\n", length);
    return finish();
}
