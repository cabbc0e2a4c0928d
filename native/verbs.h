/* The verbs, one per file. argv[0] is the verb's name; the return value is the exit status of the program. */
#ifndef SNAPSHOT_VERBS_H
#define SNAPSHOT_VERBS_H

int verb_probe(int argc, char **argv);
int verb_lock(int argc, char **argv);
int verb_pin(int argc, char **argv);
int verb_signal(int argc, char **argv);
int verb_private_tmpfs(int argc, char **argv);
int verb_attach(int argc, char **argv);
int verb_detach(int argc, char **argv);
int verb_put(int argc, char **argv);
int verb_look(int argc, char **argv);
int verb_remove(int argc, char **argv);
int verb_devices(int argc, char **argv);
int verb_graft(int argc, char **argv);
int verb_ipc_usage(int argc, char **argv);
int verb_seccomp(int argc, char **argv);
int verb_block_signal(int argc, char **argv);
int verb_inject_exit(int argc, char **argv);
int verb_arm(int argc, char **argv);
int verb_capture(int argc, char **argv);
int verb_apply(int argc, char **argv);
int verb_dump(int argc, char **argv);
int verb_restore(int argc, char **argv);
int verb_bulk_write(int argc, char **argv);
int verb_bulk_fill(int argc, char **argv);
int verb_prefetch(int argc, char **argv);

/* CRIU's action script; see hook.c. */
int run_hook(void);

#endif
