#include "common.h"
#include "verbs.h"

#include <errno.h>
#include <sys/mount.h>

/* `detach`: takes away what is attached at a directory of the caller's mount namespace; nothing there is not an error. */
int verb_detach(int argc, char **argv) {
    const char *at = NULL;
    const struct option_spec specs[] = {{"at", OPTION_STRING, true, &at, "DIR"}, {0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    /* EINVAL: the directory is there, but nothing is mounted on it. */
    bool detached = umount2(at, MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
    if (!detached && errno != EINVAL && errno != ENOENT)
        return fail("umount2", at, errno);
    printf("{\"detached\":%s}\n", detached ? "true" : "false");
    return finish();
}
