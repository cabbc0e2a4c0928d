#include "common.h"
#include "control-dir.h"
#include "verbs.h"

#include <errno.h>
#include <unistd.h>

/* `remove`: takes a file, or a symlink itself, out of a container; nothing there is not an error. */
int verb_remove(int argc, char **argv) {
    struct control_options options = CONTROL_OPTIONS_NONE;
    const struct option_spec specs[] = {CONTROL_OPTIONS(options), {0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    if (!is_file_name(options.name))
        return usage_error(specs, NULL, "malformed value: --name %s", options.name);
    cleanup_target struct target target = TARGET_NONE;
    cleanup_close int directory = -1;
    if (open_control_dir(&target, &options, &directory) != 0)
        return EXIT_FAILED;
    bool removed = directory >= 0 && unlinkat(directory, options.name, 0) == 0;
    if (directory >= 0 && !removed && errno != ENOENT)
        return fail("unlink", options.name, errno);
    printf("{\"removed\":%s}\n", removed ? "true" : "false");
    return finish();
}
