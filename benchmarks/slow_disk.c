/* A modelled disk: every sync takes SLOW_DISK_MICROSECONDS, whatever the real one does, and reaches no disk.

   Loaded by LD_PRELOAD into the processes of a benchmark, and into nothing else: nothing is durable there.
   What a program writes through a file opened with O_DSYNC goes to the real disk: LMDB writes its meta page so. */

#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static atomic_long syncs;

/* How many syncs there were: what is called durable can be counted. */
long slow_disk_syncs(void) { return atomic_load(&syncs); }

static int take_the_time(void) {
    static atomic_long microseconds = -1;
    if (atomic_load(&microseconds) < 0) {
        const char *given = getenv("SLOW_DISK_MICROSECONDS");
        atomic_store(&microseconds, given ? atol(given) : 0);
    }
    atomic_fetch_add(&syncs, 1);
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += atomic_load(&microseconds) * 1000;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    /* Without this the kernel may add 50 microseconds to each sleep of the thread. */
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL)) {
    }
    return 0;
}

int fsync(int fd) { (void)fd; return take_the_time(); }
int fdatasync(int fd) { (void)fd; return take_the_time(); }
int msync(void *start, size_t length, int flags) { (void)start; (void)length; (void)flags; return take_the_time(); }

/* RocksDB starts writing early with it; it makes nothing durable, so it costs nothing. */
int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
    (void)fd; (void)offset; (void)length; (void)flags;
    return 0;
}
