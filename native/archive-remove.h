/* Removing trees by descriptor. */
#ifndef SNAPSHOT_ARCHIVE_REMOVE_H
#define SNAPSHOT_ARCHIVE_REMOVE_H

/* Removes NAME of DIRECTORY, whatever it is, with everything in it; follows nothing. Missing is fine. Returns 0 or -1 with errno. */
int remove_tree(int directory, const char *name);

/* Removes everything in DIRECTORY. Returns 0 or -1 with errno. */
int remove_content(int directory);

#endif
