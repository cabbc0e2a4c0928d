/* The key of one artifact's bulk file, and the tag of one block. */
#ifndef SNAPSHOT_BULK_MAC_H
#define SNAPSHOT_BULK_MAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TAG_BYTES = 16, KEY_BYTES = 32 };

/* Reads the key (64 hex digits, perhaps a newline) from the descriptor. Returns 0, or 1 after reporting: code BAD_KEY for what is none. */
int bulk_key_read(uint64_t descriptor, unsigned char key[KEY_BYTES]);

/* One thread's AES-256-GMAC under KEY, or NULL. */
struct bulk_mac *bulk_mac_new(const unsigned char key[KEY_BYTES]);
void bulk_mac_free(struct bulk_mac *mac);

/*
 * The tag of the block at OFFSET of the bulk file. The nonce is made of the offset, which no two blocks of one file share; and the key is
 * that of one file. Returns false when the library fails.
 */
bool bulk_mac_tag(struct bulk_mac *mac, uint64_t offset, const void *data, size_t length, unsigned char tag[TAG_BYTES]);

/* Whether two tags are equal, in constant time. */
bool bulk_tag_equal(const unsigned char left[TAG_BYTES], const unsigned char right[TAG_BYTES]);

/* Two hex digits (either case) as a byte, or -1. */
int hex_byte(const char *digits);

#endif
