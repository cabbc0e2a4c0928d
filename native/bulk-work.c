#include "bulk-work.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "common.h"

enum { PROGRESS_NS = 200 * 1000 * 1000 };

bool work_threads_valid(uint64_t threads) {
    return threads >= 1 && threads <= MAX_THREADS;
}

struct thread_start {
    struct work *work;
    size_t number;
};

static struct thread_start starts[MAX_THREADS];

static void *thread_main(void *argument) {
    const struct thread_start *start = argument;
    struct work *work = start->work;
    work->run(work, start->number);
    pthread_mutex_lock(&work->lock);
    work->running--;
    pthread_cond_signal(&work->ended);
    pthread_mutex_unlock(&work->lock);
    return NULL;
}

int work_start(struct work *work, size_t threads, void (*run)(struct work *work, size_t thread), void *context) {
    pthread_condattr_t monotonic;
    *work = (struct work){.context = context, .run = run, .threads = threads};
    pthread_mutex_init(&work->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&work->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (size_t i = 0; i < threads; i++) {
        starts[i] = (struct thread_start){.work = work, .number = i};
        pthread_mutex_lock(&work->lock);
        work->running++;
        pthread_mutex_unlock(&work->lock);
        int err = pthread_create(&work->ids[i], NULL, thread_main, &starts[i]);
        if (err != 0) {
            pthread_mutex_lock(&work->lock);
            work->running--;
            pthread_mutex_unlock(&work->lock);
            return work_fail(work) ? fail("pthread_create", "thread", err) : EXIT_FAILED;
        }
        work->started++;
    }
    return 0;
}

static void print_progress(struct work *work) {
    printf("{\"done\":%llu}\n", (unsigned long long)work->done_bytes);
    fflush(stdout);
}

int work_wait(struct work *work, bool progress) {
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&work->lock);
    while (work->running > 0) {
        next.tv_nsec += PROGRESS_NS;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        int waited = 0;
        while (work->running > 0 && waited != ETIMEDOUT)
            waited = pthread_cond_timedwait(&work->ended, &work->lock, &next);
        if (progress && work->running > 0)
            print_progress(work);
    }
    pthread_mutex_unlock(&work->lock);
    for (size_t i = 0; i < work->started; i++)
        pthread_join(work->ids[i], NULL);
    pthread_cond_destroy(&work->ended);
    pthread_mutex_destroy(&work->lock);
    return work->failed ? EXIT_FAILED : 0;
}

bool work_fail(struct work *work) {
    return !atomic_exchange(&work->failed, true);
}

bool work_failed(struct work *work) {
    return work->failed;
}
