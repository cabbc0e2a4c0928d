#include "common.h"
#include "target.h"
#include "verbs.h"

#include <errno.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

/* The kernel's calls want this union from the caller; glibc leaves it to us. */
union sem_argument {
    int value;
    struct seminfo *info;
};

/* `ipc-usage`: how many System V objects the target's IPC namespace holds. */
int verb_ipc_usage(int argc, char **argv) {
    struct target_options options = TARGET_OPTIONS_NONE;
    const struct option_spec specs[] = {TARGET_OPTIONS(options, true), {0}};
    int rc = parse_options(argc, argv, specs, NULL, NULL);
    if (rc != 0)
        return rc;
    cleanup_target struct target target = TARGET_NONE;
    if (target_open_options(&target, &options) != 0)
        return EXIT_FAILED;
    cleanup_close int namespace = target_namespace(&target, "ipc");
    if (namespace < 0 || target_alive(&target) != 0)
        return EXIT_FAILED;
    if (setns(namespace, CLONE_NEWIPC) != 0)
        return fail("setns", "ipc", errno);
    struct shm_info shm = {0};
    struct seminfo sem = {0};
    struct msginfo msg = {0};
    if (shmctl(0, SHM_INFO, (struct shmid_ds *)&shm) < 0)
        return fail("shmctl", "SHM_INFO", errno);
    if (semctl(0, 0, SEM_INFO, (union sem_argument){.info = &sem}) < 0)
        return fail("semctl", "SEM_INFO", errno);
    if (msgctl(0, MSG_INFO, (struct msqid_ds *)&msg) < 0)
        return fail("msgctl", "MSG_INFO", errno);
    /* semusz and msgpool: what these two calls put there is the number of sets and of queues (see semctl(2), msgctl(2)). */
    printf("{\"shm\":%d,\"sem\":%d,\"msg\":%d}\n", shm.used_ids, sem.semusz, msg.msgpool);
    return finish();
}
