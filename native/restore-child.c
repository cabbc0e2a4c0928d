#include "restore-child.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common.h"

int die_with_parent(pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return fail("prctl", "PR_SET_PDEATHSIG", errno);
    if (getppid() != parent)
        return fail_code(NULL, "prctl", "PR_SET_PDEATHSIG", 0, "the parent has ended");
    return 0;
}

int keep_standard_only(void) {
    return close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0 ? 0 : fail("close_range", "descriptors", errno);
}

int execute(char **argv) {
    static const char *const directories[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
    if (strchr(argv[0], '/') != NULL) {
        execv(argv[0], argv);
        return fail("exec", argv[0], errno);
    }
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        char path[PATH_MAX];
        if ((size_t)snprintf(path, sizeof path, "%s/%s", directories[i], argv[0]) >= sizeof path)
            return fail("exec", argv[0], ENAMETOOLONG);
        execv(path, argv);
        if (errno != ENOENT && errno != ENOTDIR)
            return fail("exec", path, errno);
    }
    return fail("exec", argv[0], ENOENT);
}
