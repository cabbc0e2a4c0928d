#include "bulk-mac.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "common.h"

struct bulk_mac {
    EVP_CIPHER_CTX *cipher;
};

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int hex_byte(const char *digits) {
    int high = hex_digit(digits[0]);
    int low = high < 0 ? -1 : hex_digit(digits[1]);
    return low < 0 ? -1 : high << 4 | low;
}

int bulk_key_read(uint64_t descriptor, unsigned char key[KEY_BYTES]) {
    char text[KEY_BYTES * 2 + 2] = "";
    size_t length = 0;
    if (descriptor > INT_MAX)
        return fail("read key", "--key-fd", EBADF);
    while (length < sizeof text) {
        ssize_t got = read((int)descriptor, text + length, sizeof text - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail("read key", "--key-fd", errno);
        if (got == 0)
            break;
        length += (size_t)got;
    }
    bool good = length == sizeof text - 2 || (length == sizeof text - 1 && text[length - 1] == '\n');
    for (size_t i = 0; good && i < KEY_BYTES; i++) {
        int byte = hex_byte(text + 2 * i);
        good = byte >= 0;
        key[i] = (unsigned char)byte;
    }
    OPENSSL_cleanse(text, sizeof text);
    return good ? 0 : fail_code("BAD_KEY", "read key", "--key-fd", 0, "the key is not %d hex digits", KEY_BYTES * 2);
}

struct bulk_mac *bulk_mac_new(const unsigned char key[KEY_BYTES]) {
    /* No configuration file: which one is read would be for the environment to say. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1)
        return NULL;
    struct bulk_mac *mac = calloc(1, sizeof *mac);
    if (mac == NULL)
        return NULL;
    mac->cipher = EVP_CIPHER_CTX_new();
    if (mac->cipher != NULL && EVP_EncryptInit_ex(mac->cipher, EVP_aes_256_gcm(), NULL, key, NULL) == 1)
        return mac;
    bulk_mac_free(mac);
    return NULL;
}

void bulk_mac_free(struct bulk_mac *mac) {
    if (mac != NULL)
        EVP_CIPHER_CTX_free(mac->cipher);
    free(mac);
}

bool bulk_mac_tag(struct bulk_mac *mac, uint64_t offset, const void *data, size_t length, unsigned char tag[TAG_BYTES]) {
    unsigned char nonce[12] = {0}, none[16];
    int wrote;
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (unsigned char)(offset >> (56 - 8 * i));
    /* GMAC is GCM with all of the data authenticated and none of it encrypted. */
    return length <= INT_MAX && EVP_EncryptInit_ex(mac->cipher, NULL, NULL, NULL, nonce) == 1 &&
           EVP_EncryptUpdate(mac->cipher, NULL, &wrote, data, (int)length) == 1 &&
           EVP_EncryptFinal_ex(mac->cipher, none, &wrote) == 1 &&
           EVP_CIPHER_CTX_ctrl(mac->cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) == 1;
}

bool bulk_tag_equal(const unsigned char left[TAG_BYTES], const unsigned char right[TAG_BYTES]) {
    return CRYPTO_memcmp(left, right, TAG_BYTES) == 0;
}
