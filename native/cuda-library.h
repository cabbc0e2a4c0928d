/* Libraries that are there at run time only: NVIDIA's driver is part of a node, not of this program. */
#ifndef SNAPSHOT_CUDA_LIBRARY_H
#define SNAPSHOT_CUDA_LIBRARY_H

#include <stdbool.h>

#include "common.h"

struct library {
    void *handle;
    char path[4096];  /* where it was found */
    char tried[2048]; /* why each candidate was not taken, for the one who has to find it */
};

/* One function of a library, and the place of its pointer in a structure of such pointers. A table ends with a zeroed entry. */
struct symbol {
    const char *name;
    size_t offset;
};

/* Opens the first of the candidates that can be opened, else what the loader finds as SONAME. Returns false if there is none. */
bool library_open(struct library *library, const struct option_list *candidates, const char *soname);

/* Fills TABLE with the functions; one that the library lacks becomes NULL. Returns the name of the first that is missing, or NULL. */
const char *library_resolve(const struct library *library, const struct symbol *symbols, void *table);

#endif
