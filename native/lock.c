#include "common.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

/* Waits for the end of stdin: whoever holds its other end has let go, or died. */
static int hold(void) {
    char ignored[256];
    for (;;) {
        ssize_t got = read(STDIN_FILENO, ignored, sizeof ignored);
        if (got == 0)
            return 0;
        if (got < 0 && errno != EINTR)
            return fail("read", "stdin", errno);
    }
}

/* `lock`: holds an exclusive lock on a file for as long as its caller lives. Never waits for one that another holds. */
int verb_lock(int argc, char **argv) {
    const char *path = NULL;
    const struct option_spec specs[] = {{"file", OPTION_STRING, true, &path, "FILE"}, {0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    cleanup_close int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (file < 0)
        return fail("open", path, errno);
    bool is_ours = flock(file, LOCK_EX | LOCK_NB) == 0;
    if (!is_ours && errno != EWOULDBLOCK)
        return fail("flock", path, errno);
    printf("{\"locked\":%s}\n", is_ours ? "true" : "false");
    rc = finish();
    return is_ours && rc == 0 ? hold() : rc;
}
