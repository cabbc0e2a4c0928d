#include "cuda-library.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

/* Adds to the list of what was tried. What does not fit is left out. */
static void note_failure(struct library *library, const char *error) {
    size_t length = strlen(library->tried);
    snprintf(library->tried + length, sizeof library->tried - length, "%s%s", length == 0 ? "" : "; ", error);
}

static bool open_candidate(struct library *library, const char *name) {
    library->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library->handle == NULL) {
        const char *error = dlerror();
        note_failure(library, error != NULL ? error : name);
        return false;
    }
    struct link_map *map = NULL;
    bool known = dlinfo(library->handle, RTLD_DI_LINKMAP, &map) == 0 && map != NULL;
    snprintf(library->path, sizeof library->path, "%s", known ? map->l_name : name);
    return true;
}

bool library_open(struct library *library, const struct option_list *candidates, const char *soname) {
    *library = (struct library){0};
    for (size_t i = 0; i < candidates->count; i++)
        if (open_candidate(library, candidates->items[i]))
            return true;
    return open_candidate(library, soname);
}

const char *library_resolve(const struct library *library, const struct symbol *symbols, void *table) {
    const char *missing = NULL;
    for (const struct symbol *symbol = symbols; symbol->name != NULL; symbol++) {
        void *address = dlsym(library->handle, symbol->name);
        memcpy((char *)table + symbol->offset, &address, sizeof address);
        if (address == NULL && missing == NULL)
            missing = symbol->name;
    }
    return missing;
}
