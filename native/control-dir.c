#include "control-dir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

bool is_file_name(const char *name) {
    return *name != '\0' && strlen(name) <= 200 && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

int open_control_dir(struct target *target, const struct control_options *options, int *directory) {
    *directory = -1;
    if (target_open_options(target, &options->target) != 0)
        return EXIT_FAILED;
    cleanup_close int root = target_root(target);
    if (root < 0)
        return EXIT_FAILED;
    int opened = open_in_root(root, options->dir, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (opened < 0 && errno != ENOENT && errno != ENOTDIR)
        return fail_open("open", options->dir, errno);
    if (target_alive(target) != 0) {
        close_descriptor(&opened);
        return EXIT_FAILED;
    }
    *directory = opened;
    return 0;
}
