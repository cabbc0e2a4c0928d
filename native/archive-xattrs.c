#include "archive-xattrs.h"

#include <string.h>

static bool begins(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

bool xattr_is_stored(const char *name) {
    if (begins(name, "trusted.overlay."))
        return false;
    return begins(name, "user.") || begins(name, "security.") || begins(name, "trusted.") ||
           strcmp(name, XATTR_ACL_ACCESS) == 0 || strcmp(name, XATTR_ACL_DEFAULT) == 0;
}

bool xattr_is_applied(const char *name) {
    return xattr_is_stored(name) && strcmp(name, "security.selinux") != 0 && strcmp(name, "security.evm") != 0 &&
           strcmp(name, "security.ima") != 0;
}
