/* Put before libc by LD_PRELOAD (main.rs): counts kiln's calls that change a file system, over all threads, and kills it
 * at number KILN_SHIM_KILL_AT of them, or, if KILN_SHIM_ONLY names a call, of that call's: before it if the number is odd,
 * after it if even. Writes the counts to KILN_SHIM_COUNT: of all, then a line `NAME COUNT` for each call that was made. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* One kind of call; all that were made are in a list. */
struct kind {
    const char *name;
    atomic_ulong calls;
    struct kind *next;
};

static atomic_ulong calls;
static _Atomic(struct kind *) kinds;
static unsigned long kill_at;
static const char *only;
static int active;

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("KILN_SHIM_KILL_AT");
    active = at && strcmp(program_invocation_short_name, "kiln") == 0;
    kill_at = active ? strtoul(at, NULL, 10) : 0;
    only = getenv("KILN_SHIM_ONLY");
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("KILN_SHIM_COUNT");
    if (!active || !path)
        return;
    active = 0;
    FILE *file = fopen(path, "w");
    if (file) {
        fprintf(file, "%lu\n", (unsigned long)calls);
        for (struct kind *kind = kinds; kind; kind = kind->next)
            fprintf(file, "%s %lu\n", kind->name, (unsigned long)kind->calls);
        fclose(file);
    }
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The number that decides; 0 if this call is not one of those that count. */
static unsigned long count(struct kind *kind) {
    if (!active)
        return 0;
    unsigned long all = ++calls, own = ++kind->calls;
    if (own == 1) {
        kind->next = kinds;
        while (!atomic_compare_exchange_weak(&kinds, &kind->next, kind))
            ;
    }
    if (!only)
        return all;
    return strcmp(only, kind->name) == 0 ? own : 0;
}

#define COUNTED(type, name, parameters, arguments)                      \
    type name parameters {                                              \
        static type(*real) parameters;                                  \
        if (!real)                                                      \
            real = dlsym(RTLD_NEXT, #name);                             \
        static struct kind kind = {#name, 0, NULL};                     \
        unsigned long n = count(&kind);                                 \
        if (n && n == kill_at && n % 2 == 1)                            \
            die();                                                      \
        type result = real arguments;                                   \
        if (n && n == kill_at)                                          \
            die();                                                      \
        return result;                                                  \
    }

COUNTED(ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size))
COUNTED(ssize_t, pwrite64, (int fd, const void *bytes, size_t size, off64_t at), (fd, bytes, size, at))
COUNTED(int, fsync, (int fd), (fd))
COUNTED(int, fdatasync, (int fd), (fd))
COUNTED(int, ftruncate64, (int fd, off64_t size), (fd, size))
COUNTED(int, rename, (const char *from, const char *to), (from, to))
COUNTED(int, renameat, (int fromfd, const char *from, int tofd, const char *to), (fromfd, from, tofd, to))
COUNTED(int, link, (const char *from, const char *to), (from, to))
COUNTED(int, linkat, (int fromfd, const char *from, int tofd, const char *to, int flags), (fromfd, from, tofd, to, flags))
COUNTED(int, symlink, (const char *target, const char *path), (target, path))
COUNTED(int, unlink, (const char *path), (path))
COUNTED(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
COUNTED(int, rmdir, (const char *path), (path))
COUNTED(int, mkdir, (const char *path, mode_t mode), (path, mode))
COUNTED(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
COUNTED(int, chmod, (const char *path, mode_t mode), (path, mode))
COUNTED(int, fchmod, (int fd, mode_t mode), (fd, mode))
COUNTED(int, futimens, (int fd, const struct timespec times[2]), (fd, times))
COUNTED(int, utimensat, (int fd, const char *path, const struct timespec times[2], int flags), (fd, path, times, flags))
COUNTED(ssize_t, copy_file_range, (int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags),
        (in, in_at, out, out_at, size, flags))

/* A file comes into being only with O_CREAT. */
#define OPENED(name, parameters, arguments, last)                       \
    int name parameters {                                               \
        static int(*real) parameters;                                   \
        if (!real)                                                      \
            real = dlsym(RTLD_NEXT, #name);                             \
        mode_t mode = 0;                                                \
        if (flags & (O_CREAT | O_TMPFILE)) {                            \
            va_list rest;                                               \
            va_start(rest, last);                                       \
            mode = va_arg(rest, mode_t);                                \
            va_end(rest);                                               \
        }                                                               \
        static struct kind kind = {#name, 0, NULL};                     \
        unsigned long n = flags & O_CREAT ? count(&kind) : 0;           \
        if (n && n == kill_at && n % 2 == 1)                            \
            die();                                                      \
        int result = real arguments;                                    \
        if (n && n == kill_at)                                          \
            die();                                                      \
        return result;                                                  \
    }

OPENED(open64, (const char *path, int flags, ...), (path, flags, mode), flags)
OPENED(openat64, (int fd, const char *path, int flags, ...), (fd, path, flags, mode), flags)
OPENED(open, (const char *path, int flags, ...), (path, flags, mode), flags)
