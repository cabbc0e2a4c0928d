#include "faults.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "standin.h"

struct fault {
    char call[STANDIN_TEXT];
    char selector[STANDIN_TEXT];
    char action[STANDIN_FIELD];
    unsigned long long argument;
    bool after;
    bool once;
};

/* Takes a fault apart. Returns false for what is none: a file that is being written. */
static bool parse_fault(char *line, struct fault *fault) {
    char *rest;
    const char *call = strtok_r(line, " ", &rest);
    const char *selector = strtok_r(NULL, " ", &rest);
    const char *action = strtok_r(NULL, " ", &rest);
    if (action == NULL)
        return false;
    snprintf(fault->call, sizeof fault->call, "%s", call);
    snprintf(fault->selector, sizeof fault->selector, "%s", selector);
    snprintf(fault->action, sizeof fault->action, "%s", action);
    for (const char *word; (word = strtok_r(NULL, " ", &rest)) != NULL;) {
        if (strcmp(word, "after") == 0)
            fault->after = true;
        else if (strcmp(word, "once") == 0)
            fault->once = true;
        else
            fault->argument = strtoull(word, NULL, 10);
    }
    return true;
}

/* Whether the process was started with this argument. */
static bool has_argument(pid_t pid, const char *wanted) {
    char path[STANDIN_FIELD];
    char argument[STANDIN_TEXT];
    size_t length = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    FILE *file = fopen(path, "re");
    for (int byte; file != NULL && !found && (byte = getc(file)) != EOF;) {
        if (length < sizeof argument)
            argument[length++] = (char)byte;
        if (byte == '\0') {
            found = argument[length - 1] == '\0' && strcmp(argument, wanted) == 0;
            length = 0;
        }
    }
    if (file != NULL)
        fclose(file);
    return found;
}

static bool is_selected(const char *selector, const struct subject *subject) {
    char pid[STANDIN_FIELD];
    snprintf(pid, sizeof pid, "%d", subject->pid);
    if (strcmp(selector, "*") == 0)
        return true;
    if (subject->uuid != NULL)
        return strcmp(selector, subject->uuid) == 0;
    return subject->pid != 0 && (strcmp(selector, pid) == 0 || has_argument(subject->pid, selector));
}

/* How many of the children of a process are CUDA processes. */
static int cuda_children(pid_t pid) {
    char path[2 * STANDIN_FIELD];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    for (const struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
        char file[2 * STANDIN_TEXT];
        char line[4096];
        char *rest = line;
        enum standin_state state;
        snprintf(file, sizeof file, "%s/%s/children", path, task->d_name);
        if (task->d_name[0] == '.' || !standin_line(file, line, sizeof line))
            continue;
        for (const char *child; (child = strsep(&rest, " ")) != NULL;)
            count += *child != '\0' && standin_thread((pid_t)strtol(child, NULL, 10), &state) != 0;
    }
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

static void spawn(pid_t pid) {
    int before = cuda_children(pid);
    kill(pid, SIGUSR2);
    while (kill(pid, 0) == 0 && cuda_children(pid) <= before)
        standin_sleep(2);
}

__attribute__((noreturn)) static void hang(void) {
    for (;;)
        pause();
}

static int make_fault(const struct fault *fault, const struct subject *subject) {
    if (strcmp(fault->action, "error") == 0)
        return (int)fault->argument;
    if (strcmp(fault->action, "hang") == 0)
        hang();
    if (strcmp(fault->action, "abort") == 0)
        abort();
    if (strcmp(fault->action, "timeout") == 0) {
        if (subject->timeout_ms == 0)
            hang();
        standin_sleep(subject->timeout_ms);
        return CUDA_NOT_READY;
    }
    if (strcmp(fault->action, "delay") == 0)
        standin_sleep(fault->argument);
    else if (strcmp(fault->action, "signal") == 0)
        kill(subject->pid, (int)fault->argument);
    else if (strcmp(fault->action, "spawn") == 0)
        spawn(subject->pid);
    else
        fprintf(stderr, "stand-in: no such fault: %s\n", fault->action);
    return 0;
}

static int is_fault(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

int make_faults(const char *call, const struct subject *subject, bool after) {
    char *directory = standin_path("faults");
    struct dirent **entries = NULL;
    int count = scandir(directory, &entries, is_fault, alphasort);
    int error = 0;
    for (int i = 0; i < count; i++) {
        struct fault fault = {0};
        char line[2 * STANDIN_TEXT];
        char *path = standin_path("faults/%s", entries[i]->d_name);
        /* A fault for once is made by the one that removes its file. */
        if (error == 0 && standin_line(path, line, sizeof line) && parse_fault(line, &fault) && fault.after == after &&
            strcmp(fault.call, call) == 0 && is_selected(fault.selector, subject) && (!fault.once || unlink(path) == 0))
            error = make_fault(&fault, subject);
        free(path);
        free(entries[i]);
    }
    free(entries);
    free(directory);
    return error;
}
