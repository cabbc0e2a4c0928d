/* What a restored worker has to learn about the pod it now runs in. */
#ifndef SNAPSHOT_RESTORE_CONTEXT_H
#define SNAPSHOT_RESTORE_CONTEXT_H

/* Writes restore-context.json into the control directory if there is one. A failure is said on stderr and is not fatal. */
void write_restore_context(void);

#endif
