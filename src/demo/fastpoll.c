/* Shortens pcscd's compiled-in 400 ms poll of virtual readers; real ones notify it at once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

static const long pcscd_poll_ns = 400000000L, poll_ns = 10000000L;

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    static int (*sleep)(const struct timespec *, struct timespec *);
    const struct timespec fast = {0, poll_ns};
    if (!sleep) sleep = dlsym(RTLD_NEXT, "nanosleep");
    int is_poll = wanted->tv_sec == 0 && wanted->tv_nsec >= pcscd_poll_ns
        && wanted->tv_nsec <= pcscd_poll_ns + 10000;
    return sleep(is_poll ? &fast : wanted, left);
}

int usleep(useconds_t us) {
    const struct timespec wanted = {us / 1000000, (us % 1000000) * 1000L};
    return nanosleep(&wanted, NULL);
}
