/* Preloaded by inject_faults.py: the n-th system call of a kind on a path below a folder fails with an errno.
 *
 *   cc -shared -fPIC -O2 -o failing_calls.so failing_calls.c -ldl
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, OPEN, READ, WRITE, FSYNC, RENAME, STAT, LIST };

static char below[4096];
static int armed = NONE, number = 0;
static long first = 0, times = 0, calls = 0, failed = 0;

void arm(const char *folder, int kind, long n, int error, long count) {
    snprintf(below, sizeof below, "%s", folder);
    first = n, number = error, times = count, calls = failed = 0;
    armed = kind;
}
long calls_met(void) { return calls; }
long calls_failed(void) { return failed; }

static int fails(int kind, const char *path) {
    if (armed != kind || !path || strncmp(path, below, strlen(below))) return 0;
    long at = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (at < first || at >= first + times) return 0;
    __atomic_add_fetch(&failed, 1, __ATOMIC_SEQ_CST);
    errno = number;
    return 1;
}

static int fails_at(int kind, int file) {
    char link[64], path[4096];
    if (armed != kind) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long size = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return fails(kind, path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, #name)

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        return fails(OPEN, path) ? -1 : real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, name, int, const char *, int, ...); \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        return fails(OPEN, path) ? -1 : real(folder, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

FILE *fopen(const char *path, const char *mode) {
    REAL(FILE *, fopen, const char *, const char *);
    return fails(OPEN, path) ? NULL : real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    REAL(FILE *, fopen64, const char *, const char *);
    return fails(OPEN, path) ? NULL : real(path, mode);
}

ssize_t read(int file, void *to, size_t n) {
    REAL(ssize_t, read, int, void *, size_t);
    return fails_at(READ, file) ? -1 : real(file, to, n);
}
ssize_t pread(int file, void *to, size_t n, off_t at) {
    REAL(ssize_t, pread, int, void *, size_t, off_t);
    return fails_at(READ, file) ? -1 : real(file, to, n, at);
}
ssize_t pread64(int file, void *to, size_t n, off64_t at) {
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    return fails_at(READ, file) ? -1 : real(file, to, n, at);
}
ssize_t write(int file, const void *from, size_t n) {
    REAL(ssize_t, write, int, const void *, size_t);
    return fails_at(WRITE, file) ? -1 : real(file, from, n);
}
ssize_t writev(int file, const struct iovec *from, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return fails_at(WRITE, file) ? -1 : real(file, from, n);
}
int fsync(int file) {
    REAL(int, fsync, int);
    return fails_at(FSYNC, file) ? -1 : real(file);
}
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return fails(RENAME, to) ? -1 : real(from, to);
}

#define STATS(name, kind) \
    int name(const char *path, struct kind *to) { \
        REAL(int, name, const char *, struct kind *); \
        return fails(STAT, path) ? -1 : real(path, to); \
    }
STATS(stat, stat)
STATS(stat64, stat64)
STATS(lstat, stat)
STATS(lstat64, stat64)

DIR *opendir(const char *path) {
    REAL(DIR *, opendir, const char *);
    return fails(LIST, path) ? NULL : real(path);
}
