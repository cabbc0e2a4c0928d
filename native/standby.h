/* What snapshot-standby and the helper's verb `arm` agree on. */
#ifndef SNAPSHOT_STANDBY_H
#define SNAPSHOT_STANDBY_H

/* Real-time signal of the kernel's numbering; the value sent with it is the restored process's PID in the container. */
#define ARMING_SIGNAL 40

/* The name by which a standby says that it is armed. */
#define ARMED_NAME "standby-armed"

#endif
