#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What is to be joined, and where failures are told. */
struct joining {
    int root;
    const char *controller; /* the only one of v1 that is wanted; NULL: all */
    FILE *errors;
    size_t joined;
};

static int fail_joining(const struct joining *joining, const char *target, int err) {
    return report(joining->errors, NULL, "join cgroup", target, err, NULL);
}

/* Writes this process into the cgroup PATH of the hierarchy DIRECTORY ("" for the root itself). */
static int join_one(struct joining *joining, const char *directory, const char *path) {
    char procs[8192];
    if ((size_t)snprintf(procs, sizeof procs, "%s%s/cgroup.procs", directory, path) >= sizeof procs)
        return fail_joining(joining, path, ENAMETOOLONG);
    if (strstr(procs, "/../") != NULL) /* the target's cgroup namespace is not below the caller's */
        return report(joining->errors, NULL, "join cgroup", procs, 0, "%s lies outside of the caller's cgroup namespace",
                      path);
    cleanup_close int file = openat(joining->root, procs + strspn(procs, "/"), O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, "0", 1) != 1)
        return fail_joining(joining, procs, errno);
    joining->joined++;
    return 0;
}

/* Where ROOT is a cgroup v2 hierarchy itself, v1 hierarchies that the kernel still lists have no place below it: nobody uses them. */
static bool is_unified(int root) {
    struct statfs status;
    return fstatfs(root, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC;
}

/* Whether a list with commas has this element. */
static bool has_controller(const char *list, const char *wanted) {
    size_t length = strlen(wanted);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, wanted, length) == 0 && (at[length] == '\0' || at[length] == ','))
            return true;
    }
    return false;
}

/* One line of /proc/N/cgroup: "ID:CONTROLLERS:PATH". */
static int join_line(struct joining *joining, char *line) {
    char *controllers = strchr(line, ':');
    char *path = controllers == NULL ? NULL : strchr(++controllers, ':');
    if (path == NULL || path[1] != '/')
        return report(joining->errors, NULL, "join cgroup", line, 0, "not a line of /proc/N/cgroup: %s", line);
    *path++ = '\0';
    struct stat status;
    if (*controllers == '\0')
        return join_one(joining, fstatat(joining->root, "unified", &status, 0) == 0 ? "unified" : "", path);
    if (is_unified(joining->root))
        return 0;
    if (joining->controller != NULL && !has_controller(controllers, joining->controller))
        return 0;
    return join_one(joining, strncmp(controllers, "name=", 5) == 0 ? controllers + 5 : controllers, path);
}

static int join_all(const struct target *target, const char *root, struct joining joining) {
    static char text[65536];
    cleanup_close int directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return report(joining.errors, NULL, "open", root, errno, NULL);
    joining.root = directory;
    if (target_read(target, "cgroup", text, sizeof text) < 0)
        return report(joining.errors, NULL, "read", "cgroup", errno, NULL);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (*line != '\0' && join_line(&joining, line) != 0)
            return EXIT_FAILED;
    if (joining.controller != NULL && joining.joined == 0)
        return report(joining.errors, NULL, "join cgroup", root, 0, "no cgroup of the process has the controller %s",
                      joining.controller);
    return 0;
}

int join_cgroups(const struct target *target, const char *root) {
    return join_all(target, root, (struct joining){.errors = stderr});
}

int join_device_cgroups(const struct target *target, const char *root, FILE *errors) {
    return join_all(target, root, (struct joining){.controller = "devices", .errors = errors});
}
