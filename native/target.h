/* The pinned process, its namespaces and its root; opening paths that others control. */
#ifndef SNAPSHOT_TARGET_H
#define SNAPSHOT_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common.h"

/* A process that cannot be mistaken for another: pidfd and its directory in procfs, opened before anything was compared. */
struct target {
    pid_t pid;
    uint64_t start;
    int pidfd;
    int procdir;
};

#define TARGET_NONE ((struct target){.pidfd = -1, .procdir = -1})
#define cleanup_target __attribute__((cleanup(target_close)))

/* The options that name a target, and their table entries. */
struct target_options {
    uint64_t pid;
    uint64_t start;
    const char *proc;
};

#define START_ANY UINT64_MAX
#define TARGET_OPTIONS_NONE ((struct target_options){.pid = 0, .start = START_ANY, .proc = "/proc"})
#define TARGET_OPTIONS(options, is_required)                                                                           \
    {"pid", OPTION_NUMBER, is_required, &(options).pid, "N"},                                                          \
        {"start", OPTION_NUMBER, is_required, &(options).start, "TICKS"}, {                                            \
        "proc", OPTION_STRING, false, &(options).proc, "DIR"                                                           \
    }

/* Whether a target was named (for verbs where it is optional). */
bool target_named(const struct target_options *options);

/*
 * Opens the pidfd first and PROC/PID as a directory, then compares the start time (START_ANY: takes the one it has). Returns 0, or 1
 * after reporting, with code TARGET_GONE when the process is gone, ended, or another one.
 */
int target_open(struct target *target, const char *proc, pid_t pid, uint64_t start);

/* target_open from the options; a PID that cannot be one is TARGET_GONE. */
int target_open_options(struct target *target, const struct target_options *options);

/* Closes both descriptors; for cleanup_target. */
void target_close(const struct target *target);

/* Whether the process has not ended (a zombie has). Reports nothing. */
bool target_lives(const struct target *target);

/* Returns 0 when it lives, or 1 after reporting TARGET_GONE. To be asked directly before acting. */
int target_alive(const struct target *target);

/* Reads the file NAME of the process's procfs directory as text, cut at SIZE - 1 bytes. Returns its length or -1 with errno. */
ssize_t target_read(const struct target *target, const char *name, char *text, size_t size);

/* Reads the file at PATH below DIRECTORY as text, cut at SIZE - 1 bytes. Returns its length or -1 with errno. */
ssize_t read_text_at(int directory, const char *path, char *text, size_t size);

/* Start time of the process whose procfs directory this is (field 22 of stat). False with errno when it cannot be read. */
bool process_start(int procdir, uint64_t *start);

/* O_PATH descriptor of the process's root directory, or -1 after reporting. */
int target_root(const struct target *target);

/* Descriptor of its namespace ("mnt", "pid", …), or -1 after reporting. */
int target_namespace(const struct target *target, const char *name);

/*
 * Opens PATH below ROOT as if ROOT were "/", following no symlink and no magic link in any component. MODE is for O_CREAT. Returns a
 * close-on-exec descriptor or -1 with errno (ELOOP: a symlink was in the way); reports nothing.
 */
int open_in_root(int root, const char *path, int flags);

/* Reports that opening PATH failed: code SYMLINK_REFUSED for ELOOP. Returns 1. */
int fail_open(const char *step, const char *path, int err);

enum clone_flags {
    CLONE_TREE_RECURSIVE = 1, /* with everything mounted below */
    CLONE_TREE_VOLUME = 2,    /* refuse what lies on the mount of the container's "/": code NOT_A_VOLUME */
    CLONE_TREE_CREATE = 4,    /* make a missing last component, mode 0700 */
};

/*
 * A detached clone of the directory PATH inside the container (open_tree after joining its mount namespace, from which it returns with
 * root and working directory as before). TARGET NULL: PATH in the caller's own root and namespace. The calling process must have one
 * thread. Returns the descriptor or -1 after reporting.
 */
int clone_mount(const struct target *target, const char *path, int flags);

/* Mount id of the file behind the descriptor. Returns 0 or -1 with errno. */
int mount_id(int descriptor, uint64_t *id);

#endif
