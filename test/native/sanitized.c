/* Linked into the sanitized programs. They do their work and end, and leave what they allocated to the kernel: that is no leak. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}
