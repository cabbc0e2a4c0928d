/*
 * A worker for images that have nothing else: static, needs no library and no file. It says {"ready":...}, counts, says its count on
 * SIGUSR1, and ends with 7 on SIGTERM.
 */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_CODE = 7 };

static volatile sig_atomic_t asked, ended;

static void on_signal(int number) {
    if (number == SIGTERM)
        ended = 1;
    else
        asked = 1;
}

int main(int argc, char **argv) {
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    signal(SIGUSR1, on_signal);
    signal(SIGTERM, on_signal);
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("{\"ready\":\"counter\",\"argument\":\"%s\"}\n", argc > 1 ? argv[1] : "");
    for (long beats = 0; !ended; beats++) {
        if (asked) {
            asked = 0;
            printf("{\"check\":\"ok\",\"beats\":%ld,\"pid\":%d,\"uid\":%d}\n", beats, (int)getpid(), (int)getuid());
        }
        nanosleep(&pause, NULL);
    }
    return EXIT_CODE;
}
