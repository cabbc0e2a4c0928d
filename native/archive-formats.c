/*
 * libarchive's pax writer needs one function of the object file that names every format there is. Defining that function here keeps
 * the other formats, and with them libxml2 and ICU, out of the static program. Should a later libarchive no longer ask for it, this is dead code.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>

/* NOLINTNEXTLINE(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the library's own name */
void __archive_write_entry_filetype_unsupported(struct archive *a, struct archive_entry *entry, const char *format);

/* NOLINTNEXTLINE(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
void __archive_write_entry_filetype_unsupported(struct archive *a, struct archive_entry *entry, const char *format) {
    archive_set_error(a, EINVAL, "%s: file type %o cannot be stored in %s",
                      archive_entry_pathname(entry), (unsigned)archive_entry_filetype(entry), format);
}
