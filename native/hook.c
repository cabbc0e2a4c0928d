#include "common.h"
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Connects to the agent. Returns the descriptor or -1 after reporting. */
static int connect_agent(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return fail("connect", path, ENAMETOOLONG), -1;
    memcpy(address.sun_path, path, strlen(path));
    cleanup_close int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0)
        return fail("socket", path, errno), -1;
    if (connect(connection, (const struct sockaddr *)&address, sizeof address) != 0)
        return fail("connect", path, errno), -1;
    return take_descriptor(&connection);
}

/* Reads until the line ends. Returns false when the connection ended first, or the line is longer than any answer. */
static bool read_line(int connection, char *line, size_t size) {
    size_t length = 0;
    while (length < size - 1) {
        ssize_t got = read(connection, line + length, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        if (line[length] == '\n') {
            line[length] = '\0';
            return true;
        }
        length++;
    }
    return false;
}

/*
 * CRIU's action script. After the dump, while the tasks are frozen, the agent is asked: "ok" lets CRIU end them, anything else, also an
 * agent that died, makes CRIU resume them. Every other action passes at once.
 */
int run_hook(void) {
    static const char question[] = "post-dump\n";
    const char *action = getenv("CRTOOLS_SCRIPT_ACTION");
    if (action == NULL || strcmp(action, "post-dump") != 0)
        return 0;
    const char *path = getenv("SNAPSHOT_HOOK_SOCKET");
    if (path == NULL)
        return fail_code(NULL, "environment", "SNAPSHOT_HOOK_SOCKET", 0, "SNAPSHOT_HOOK_SOCKET is not set");
    cleanup_close int connection = connect_agent(path);
    if (connection < 0)
        return EXIT_FAILED;
    if (send(connection, question, strlen(question), MSG_NOSIGNAL) != (ssize_t)strlen(question))
        return fail("send", path, errno);
    char line[64];
    if (!read_line(connection, line, sizeof line))
        return fail_code(NULL, "read", path, 0, "no answer from the agent: %s", path);
    return strcmp(line, "ok") == 0 ? 0 : EXIT_FAILED;
}
