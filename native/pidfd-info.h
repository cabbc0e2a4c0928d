/* The wait status of an ended process through its pidfd. */
#ifndef SNAPSHOT_PIDFD_INFO_H
#define SNAPSHOT_PIDFD_INFO_H

#include <stdbool.h>

/* The wait status of a process that was reaped (PIDFD_GET_INFO, Linux 6.15). False where the kernel does not tell, or not yet. */
bool pidfd_exit_status(int pidfd, int *status);

#endif
