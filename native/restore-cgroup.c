#include "restore-cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Writes this process into the cgroup PATH of the hierarchy DIRECTORY of ROOT ("" for ROOT itself). */
static int join_one(int root, const char *directory, const char *path) {
    char procs[8192];
    if ((size_t)snprintf(procs, sizeof procs, "%s%s/cgroup.procs", directory, path) >= sizeof procs)
        return fail("join cgroup", path, ENAMETOOLONG);
    if (strstr(procs, "/../") != NULL) /* the target's cgroup namespace is not below the caller's */
        return fail_code(NULL, "join cgroup", procs, 0, "%s lies outside of the caller's cgroup namespace", path);
    cleanup_close int file = openat(root, procs + strspn(procs, "/"), O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, "0", 1) != 1)
        return fail("join cgroup", procs, errno);
    return 0;
}

/* Where ROOT is a cgroup v2 hierarchy itself, v1 hierarchies that the kernel still lists have no place below it: nobody uses them. */
static bool is_unified(int root) {
    struct statfs status;
    return fstatfs(root, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC;
}

/* One line of /proc/N/cgroup: "ID:CONTROLLERS:PATH". */
static int join_line(int root, char *line) {
    char *controllers = strchr(line, ':');
    char *path = controllers == NULL ? NULL : strchr(++controllers, ':');
    if (path == NULL || path[1] != '/')
        return fail_code(NULL, "join cgroup", line, 0, "not a line of /proc/N/cgroup: %s", line);
    *path++ = '\0';
    struct stat status;
    if (*controllers != '\0' && is_unified(root))
        return 0;
    if (*controllers == '\0')
        return join_one(root, fstatat(root, "unified", &status, 0) == 0 ? "unified" : "", path);
    return join_one(root, strncmp(controllers, "name=", 5) == 0 ? controllers + 5 : controllers, path);
}

int join_cgroups(const struct target *target, const char *root) {
    static char text[65536];
    cleanup_close int directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return fail("open", root, errno);
    if (target_read(target, "cgroup", text, sizeof text) < 0)
        return fail("read", "cgroup", errno);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (*line != '\0' && join_line(directory, line) != 0)
            return EXIT_FAILED;
    return 0;
}
