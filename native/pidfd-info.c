#include "pidfd-info.h"

#include <stdint.h>
#include <sys/ioctl.h>

/* As in <linux/pidfd.h> of Linux 6.15; the header here is older. The ioctl number carries the size of this version. */
struct pidfd_info {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};

#define PIDFD_INFO_EXIT (UINT64_C(1) << 3)
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)

bool pidfd_exit_status(int pidfd, int *status) {
    struct pidfd_info info = {.mask = PIDFD_INFO_EXIT};
    if (ioctl(pidfd, PIDFD_GET_INFO, &info) != 0 || (info.mask & PIDFD_INFO_EXIT) == 0)
        return false;
    *status = info.exit_code;
    return true;
}
