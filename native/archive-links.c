#include "archive-links.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct link_slot {
    dev_t device;
    ino_t inode;
    char *path; /* NULL: free */
};

/* The slot of this inode: its own, or the free one where it belongs. The table is never full. */
static struct link_slot *find_slot(const struct link_table *table, dev_t device, ino_t inode) {
    uint64_t hash = ((uint64_t)inode ^ ((uint64_t)device << 32)) * UINT64_C(0x9e3779b97f4a7c15);
    size_t at = (size_t)(hash >> 20) & (table->size - 1);
    while (table->slots[at].path != NULL && (table->slots[at].inode != inode || table->slots[at].device != device))
        at = (at + 1) & (table->size - 1);
    return &table->slots[at];
}

/* Doubles the table when it is half full. Returns -1 with errno. */
static int make_room(struct link_table *table) {
    if (table->used >= LINKS_MAX) {
        errno = E2BIG;
        return -1;
    }
    if (table->used * 2 < table->size)
        return 0;
    struct link_table larger = {.size = table->size == 0 ? 1024 : table->size * 2, .used = table->used};
    larger.slots = calloc(larger.size, sizeof *larger.slots);
    if (larger.slots == NULL)
        return -1;
    for (size_t i = 0; i < table->size; i++)
        if (table->slots[i].path != NULL)
            *find_slot(&larger, table->slots[i].device, table->slots[i].inode) = table->slots[i];
    free(table->slots);
    *table = larger;
    return 0;
}

const char *link_first_path(struct link_table *table, const struct stat *status, const char *path) {
    if (make_room(table) != 0)
        return NULL;
    struct link_slot *slot = find_slot(table, status->st_dev, status->st_ino);
    if (slot->path != NULL)
        return slot->path;
    char *copy = strdup(path);
    if (copy == NULL)
        return NULL;
    *slot = (struct link_slot){.device = status->st_dev, .inode = status->st_ino, .path = copy};
    table->used++;
    errno = 0;
    return NULL;
}

void link_table_free(struct link_table *table) {
    for (size_t i = 0; i < table->size; i++)
        free(table->slots[i].path);
    free(table->slots);
    *table = (struct link_table){.slots = NULL};
}
