#include "archive-remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Deeper than any path that can be named; each level costs a descriptor and a directory buffer. */
enum { MAX_DEPTH = 4096 };

static int remove_at(int directory, const char *name, int depth);

/* Takes the descriptor over. */
static int empty_directory(int directory, int depth) {
    DIR *stream = directory < 0 ? NULL : fdopendir(directory);
    if (stream == NULL) {
        int err = errno;
        if (directory >= 0)
            close(directory);
        errno = err;
        return -1;
    }
    const struct dirent *found;
    int result = 0;
    for (errno = 0; result == 0 && (found = readdir(stream)) != NULL; errno = 0)
        if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0)
            result = remove_at(dirfd(stream), found->d_name, depth);
    int err = errno;
    closedir(stream);
    errno = err;
    return err == 0 ? result : -1;
}

static int remove_at(int directory, const char *name, int depth) {
    /* Linux says EISDIR for a directory. A file that has just been replaced by one is met by going round once more. */
    for (int attempt = 0; attempt < 8; attempt++) {
        if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
            return 0;
        if (errno != EISDIR)
            return -1;
        if (depth >= MAX_DEPTH) {
            errno = ELOOP;
            return -1;
        }
        int opened = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (opened < 0 && (errno == ENOTDIR || errno == ELOOP || errno == ENOENT))
            continue;
        if (empty_directory(opened, depth + 1) != 0)
            return -1;
        if (unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
            return -1;
    }
    return -1;
}

int remove_tree(int directory, const char *name) {
    return remove_at(directory, name, 0);
}

int remove_content(int directory) {
    return empty_directory(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
}
