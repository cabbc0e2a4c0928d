#include "restore-root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LEVELS = 33 }; /* PID namespaces nest 32 deep */

/* Reads the PIDs of a process, from the procfs's namespace inwards. Returns how many, or 0. */
static size_t read_nspid(int procdir, uint64_t *pids) {
    char status[16384];
    size_t count = 0;
    if (read_text_at(procdir, "status", status, sizeof status) < 0)
        return 0;
    char *line = strstr(status, "\nNSpid:\t");
    if (line == NULL)
        return 0;
    char *rest = line + strlen("\nNSpid:\t");
    rest[strcspn(rest, "\n")] = '\0';
    for (const char *field; (field = strsep(&rest, "\t")) != NULL && count < MAX_LEVELS; count++)
        if (!parse_number(field, INT32_MAX, &pids[count]))
            return 0;
    return count;
}

/* Whether the PID namespace of the process is a child of the one with the inode PARENT. */
static bool is_child_namespace(int procdir, ino_t parent) {
    struct stat own_status, parent_status;
    cleanup_close int own = openat(procdir, "ns/pid", O_RDONLY | O_CLOEXEC);
    cleanup_close int above = own < 0 ? -1 : ioctl(own, NS_GET_PARENT);
    return above >= 0 && fstat(own, &own_status) == 0 && fstat(above, &parent_status) == 0 &&
           parent_status.st_ino == parent && own_status.st_ino != parent;
}

/* Whether the process NAME is the one that was restored. */
static bool is_restored(int procfs, const char *name, size_t levels, ino_t pidns, struct restored_root *found) {
    uint64_t pids[MAX_LEVELS], pid;
    if (!parse_number(name, INT32_MAX, &pid))
        return false;
    cleanup_close int procdir = openat(procfs, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (procdir < 0 || read_nspid(procdir, pids) != levels + 1 || pids[levels - 1] != found->inner || pids[levels] != 1)
        return false;
    /* The procfs is the host's, whose numbers are the ones to give. */
    if (!is_child_namespace(procdir, pidns) || !process_start(procdir, &found->start))
        return false;
    found->pid = (pid_t)pid;
    return true;
}

static int read_pidfile(const char *path, uint64_t *pid) {
    char text[32];
    if (read_text_at(AT_FDCWD, path, text, sizeof text) < 0)
        return fail("read", path, errno);
    text[strcspn(text, "\n")] = '\0';
    return parse_number(text, INT32_MAX, pid) && *pid > 0 ? 0 : fail_code(NULL, "read", path, 0, "%s holds no PID", path);
}

int find_restored(int procfs, const struct target *placeholder, ino_t pidns, const char *pidfile,
                  struct restored_root *found) {
    uint64_t pids[MAX_LEVELS];
    if (read_pidfile(pidfile, &found->inner) != 0)
        return EXIT_FAILED;
    size_t levels = read_nspid(placeholder->procdir, pids);
    if (levels == 0 || levels >= MAX_LEVELS)
        return target_alive(placeholder) != 0 ? EXIT_FAILED : fail_code(NULL, "read", "status", 0, "no NSpid");
    int again = openat(procfs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = again < 0 ? NULL : fdopendir(again);
    if (stream == NULL) {
        fail("open", "procfs", errno);
        close_descriptor(&again);
        return EXIT_FAILED;
    }
    bool seen = false;
    for (const struct dirent *entry; !seen && (entry = readdir(stream)) != NULL;)
        seen = is_restored(procfs, entry->d_name, levels, pidns, found);
    closedir(stream);
    return seen ? 0
                : fail_code("ROOT_NOT_FOUND", "find restored process", pidfile, 0,
                            "no process is number %llu in the placeholder and first of a PID namespace below it",
                            (unsigned long long)found->inner);
}
