/* Stands between a program and its system calls, SQLite's included (LD_PRELOAD), and breaks the N-th one that matters.

   A call matters if its path lies below `root`, contains `only`, and its kind is among `kinds`. From the N-th such call on,
   `times` calls (0: all) meet `action`:

     kill     SIGKILL, before the call is made
     errno    the call fails with `value` (a close closes all the same)
     short    a write writes half, a read reads half
     interrupt  SIGINT, as of a user who presses Ctrl-C, and the call is made
     lie      a write or sync answers success and does nothing
     quota    no counting: files below `root` may grow by `value` bytes in all, then writes are cut short or fail with ENOSPC

   Set from the environment (FAULT_ROOT, FAULT_KINDS, ...) when a program starts, or by fault_arm() in a forked child.
   With a trace, each call below `root` is a line: call, its number if it matters (or 0), result, path, second path. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, WRITE = 4, SYNC = 8, RENAME = 16, UNLINK = 32, MKDIR = 64, TRUNCATE = 128, CHMOD = 256,
       CLOSE = 512, READ = 1024, LIST = 2048, LOCK = 4096, COPY = 8192 };
static const char *const KINDS[] = {"open", "create", "write", "sync", "rename", "unlink", "mkdir", "truncate", "chmod",
                                    "close", "read", "list", "lock", "copy"};
enum { NOTHING, KILL, ERRNO, SHORT, LIE, INTERRUPT, QUOTA };
static const char *const ACTIONS[] = {"nothing", "kill", "errno", "short", "lie", "interrupt", "quota"};

static char root[PATH_MAX], only[PATH_MAX];
static unsigned kinds;
static int action, trace = -1;
static long nth, times, value, seen, grown;

void fault_arm(const char *new_root, const char *new_only, const char *names, long new_nth, long new_times,
               const char *act, long new_value) {
    snprintf(root, sizeof root, "%s", new_root);
    snprintf(only, sizeof only, "%s", new_only);
    kinds = 0;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (strstr(names, KINDS[i])) kinds |= 1u << i;
    action = NOTHING;
    for (int i = 0; i <= QUOTA; i++)
        if (!strcmp(act, ACTIONS[i])) action = i;
    nth = new_nth; times = new_times; value = new_value; seen = grown = 0;
}

long fault_seen(void) { return seen; }

void fault_trace(const char *path) {
    int low = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    trace = fcntl(low, F_DUPFD_CLOEXEC, 500);
    syscall(SYS_close, low);
}

static const char *variable(const char *name) { const char *text = getenv(name); return text ? text : ""; }

__attribute__((constructor)) static void from_environment(void) {
    if (!getenv("FAULT_ROOT")) return;
    fault_arm(getenv("FAULT_ROOT"), variable("FAULT_ONLY"), variable("FAULT_KINDS"), atol(variable("FAULT_NTH")),
              atol(variable("FAULT_TIMES")), variable("FAULT_ACTION"), atol(variable("FAULT_VALUE")));
    if (getenv("FAULT_TRACE")) fault_trace(getenv("FAULT_TRACE"));
}

static int below(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static const char *path_of(int fd, char *into) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = root[0] ? readlink(link, into, PATH_MAX - 1) : -1;
    into[length > 0 ? length : 0] = 0;
    return into;
}

static const char *path_at(int fd, const char *name, char *into) {
    if (*name == '/' || fd == AT_FDCWD) return name;
    path_of(fd, into);
    size_t length = strlen(into);
    if (length) snprintf(into + length, PATH_MAX - length, "/%s", name);
    return into;
}

static void note(const char *call, long number, long result, const char *path, const char *second) {
    if (trace < 0 || (root[0] && !below(path) && !below(second))) return;
    int saved = errno;
    char line[2 * PATH_MAX + 200];
    int length = snprintf(line, sizeof line, "%s\t%ld\t%ld\t%s\t%s\n", call, number, result, path, second);
    if (syscall(SYS_write, trace, line, length) != length) abort();
    errno = saved;
}

void fault_mark(const char *text) { note(text, 0, 0, root, ""); }

/* What the call shall meet; its number goes to *number. A call that shall fail has errno set. */
static int verdict(unsigned kind, const char *call, const char *path, const char *second, long *number) {
    *number = 0;
    if (!below(path) && !below(second)) return NOTHING;
    if (only[0] && !strstr(path, only) && !strstr(second, only)) return NOTHING;
    if (action == QUOTA) return kind & WRITE ? QUOTA : NOTHING;
    if (!(kinds & kind)) return NOTHING;
    *number = __atomic_add_fetch(&seen, 1, __ATOMIC_RELAXED);
    if (!nth || *number < nth || (times && *number >= nth + times)) return NOTHING;
    if (action == KILL) {
        note(call, *number, -SIGKILL, path, second);
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    if (action == INTERRUPT) syscall(SYS_kill, getpid(), SIGINT);
    if (action == ERRNO) errno = value;
    return action;
}

#define NEXT(name) static __typeof__(name) *next; if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* A call without a result worth bending: refused, or made and noted. */
#define PLAIN(kind, call, path, second, made) \
    long number; int met = verdict(kind, call, path, second, &number); long result; \
    if (met == ERRNO) result = -1; \
    else if (met == LIE && (kind) == SYNC) result = 0; \
    else result = made; \
    note(call, number, result < 0 ? -errno : result, path, second); \
    return result

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        PLAIN(flags & (O_CREAT | O_TRUNC) ? CREATE : OPEN, flags & (O_CREAT | O_TRUNC) ? "create" : "open", \
              path, "", next(path, flags, mode)); }
OPENING(open)
OPENING(open64)

#define OPENING_AT(name) \
    int name(int at, const char *file, int flags, ...) { \
        NEXT(name); va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        char room[PATH_MAX]; const char *path = path_at(at, file, room); \
        PLAIN(flags & (O_CREAT | O_TRUNC) ? CREATE : OPEN, flags & (O_CREAT | O_TRUNC) ? "create" : "open", \
              path, "", next(at, file, flags, mode)); }
OPENING_AT(openat)
OPENING_AT(openat64)

int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags) { return open64(path, flags); }

/* How much of a write may happen: all of it, less, or -1. */
static ssize_t allowance(int met, int fd, size_t count, off_t offset) {
    struct stat status;
    if (met == ERRNO) return -1;
    if (met == SHORT) return count > 1 ? count / 2 : count;
    if (met != QUOTA || fstat(fd, &status) || offset + (off_t)count <= status.st_size) return count;
    long growth = offset + (off_t)count - status.st_size, room = value - grown;
    long taken = growth <= room ? growth : room;
    grown += taken;
    if (growth - taken < (long)count) return count - (growth - taken);
    errno = ENOSPC;
    return -1;
}

#define WRITING(call, position, made) \
    char room[PATH_MAX]; const char *path = path_of(fd, room); \
    long number; int met = verdict(WRITE, call, path, "", &number); \
    ssize_t part = allowance(met, fd, count, position); \
    ssize_t result = part < 0 ? -1 : met == LIE ? (ssize_t)count : made; \
    note(call, number, result < 0 ? -errno : result, path, ""); \
    return result

ssize_t write(int fd, const void *data, size_t count) {
    NEXT(write);
    WRITING("write", lseek(fd, 0, SEEK_CUR), next(fd, data, part));
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    NEXT(pwrite);
    WRITING("write", offset, next(fd, data, part, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    NEXT(pwrite64);
    WRITING("write", offset, next(fd, data, part, offset));
}

/* Several pieces in one call; one that is cut short is the first half of the first piece. */
static size_t total(const struct iovec *pieces, int many) {
    size_t count = 0;
    for (int i = 0; i < many; i++) count += pieces[i].iov_len;
    return count;
}

static struct iovec half(const struct iovec *pieces) {
    size_t length = pieces->iov_len;
    return (struct iovec){pieces->iov_base, length > 1 ? length / 2 : length};
}

#define PIECES const struct iovec *pieces, int many
#define WRITING_PIECES(position, whole, cut) \
    size_t count = total(pieces, many); struct iovec first = half(pieces); \
    WRITING("write", position, part == (ssize_t)count ? whole : cut)

ssize_t writev(int fd, PIECES) {
    NEXT(writev);
    WRITING_PIECES(lseek(fd, 0, SEEK_CUR), next(fd, pieces, many), next(fd, &first, 1));
}
ssize_t pwritev(int fd, PIECES, off_t at) {
    NEXT(pwritev);
    WRITING_PIECES(at, next(fd, pieces, many, at), next(fd, &first, 1, at));
}
ssize_t pwritev64(int fd, PIECES, off64_t at) {
    NEXT(pwritev64);
    WRITING_PIECES(at, next(fd, pieces, many, at), next(fd, &first, 1, at));
}
ssize_t pwritev64v2(int fd, PIECES, off64_t at, int flags) {
    NEXT(pwritev64v2);
    WRITING_PIECES(at, next(fd, pieces, many, at, flags), next(fd, &first, 1, at, flags));
}

/* From file to file in the kernel: a write to the one or, where that does not matter, a read of the other. */
#define MOVING(call, target, source, position, made) \
    char room[PATH_MAX], other[PATH_MAX]; const char *path = path_of(target, room), *from = path_of(source, other); \
    long number; int met = verdict(WRITE | COPY, call, path, "", &number); \
    if (!number && met != QUOTA) met = verdict(READ, call, from, "", &number); \
    ssize_t part = allowance(met, target, count, position); \
    ssize_t result = part < 0 ? -1 : met == LIE ? (ssize_t)count : made; \
    note(call, number, result < 0 ? -errno : result, path, from); \
    return result

ssize_t copy_file_range(int in, off64_t *from_at, int out, off64_t *to_at, size_t count, unsigned flags) {
    NEXT(copy_file_range);
    MOVING("write", out, in, to_at ? *to_at : lseek(out, 0, SEEK_CUR), next(in, from_at, out, to_at, part, flags));
}
ssize_t sendfile(int out, int in, off_t *at, size_t count) {
    NEXT(sendfile);
    MOVING("write", out, in, lseek(out, 0, SEEK_CUR), next(out, in, at, part));
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t count) {
    NEXT(sendfile64);
    MOVING("write", out, in, lseek(out, 0, SEEK_CUR), next(out, in, at, part));
}

#define ON_DESCRIPTOR(kind, call, made) char room[PATH_MAX]; const char *path = path_of(fd, room); \
    PLAIN(kind, call, path, "", made)

#define READING(whole, cut) ON_DESCRIPTOR(READ, "read", met == SHORT && count > 1 ? cut : whole)
#define READING_PIECES(whole, cut) \
    struct iovec first = half(pieces); ON_DESCRIPTOR(READ, "read", met == SHORT ? cut : whole)

ssize_t read(int fd, void *data, size_t count) {
    NEXT(read);
    READING(next(fd, data, count), next(fd, data, count / 2));
}
ssize_t pread(int fd, void *data, size_t count, off_t at) {
    NEXT(pread);
    READING(next(fd, data, count, at), next(fd, data, count / 2, at));
}
ssize_t pread64(int fd, void *data, size_t count, off64_t at) {
    NEXT(pread64);
    READING(next(fd, data, count, at), next(fd, data, count / 2, at));
}
ssize_t preadv(int fd, PIECES, off_t at) {
    NEXT(preadv);
    READING_PIECES(next(fd, pieces, many, at), next(fd, &first, 1, at));
}
ssize_t preadv64(int fd, PIECES, off64_t at) {
    NEXT(preadv64);
    READING_PIECES(next(fd, pieces, many, at), next(fd, &first, 1, at));
}
ssize_t preadv64v2(int fd, PIECES, off64_t at, int flags) {
    NEXT(preadv64v2);
    READING_PIECES(next(fd, pieces, many, at, flags), next(fd, &first, 1, at, flags));
}
int fsync(int fd) { NEXT(fsync); ON_DESCRIPTOR(SYNC, "sync", next(fd)); }
int fdatasync(int fd) { NEXT(fdatasync); ON_DESCRIPTOR(SYNC, "sync", next(fd)); }
int ftruncate(int fd, off_t size) { NEXT(ftruncate); ON_DESCRIPTOR(TRUNCATE, "truncate", next(fd, size)); }
int ftruncate64(int fd, off64_t size) { NEXT(ftruncate64); ON_DESCRIPTOR(TRUNCATE, "truncate", next(fd, size)); }
int flock(int fd, int how) { NEXT(flock); ON_DESCRIPTOR(LOCK, "lock", next(fd, how)); }
int fchmod(int fd, mode_t mode) { NEXT(fchmod); ON_DESCRIPTOR(CHMOD, "chmod", next(fd, mode)); }

int close(int fd) {
    NEXT(close);
    char room[PATH_MAX]; const char *path = path_of(fd, room);
    long number; int met = verdict(CLOSE, "close", path, "", &number);
    int result = next(fd);
    if (met == ERRNO) errno = value, result = -1;
    note("close", number, result < 0 ? -errno : result, path, "");
    return result;
}

#define ON_NAME(kind, call, at, file, made) char room[PATH_MAX]; const char *path = path_at(at, file, room); \
    PLAIN(kind, call, path, "", made)

int unlink(const char *file) { NEXT(unlink); ON_NAME(UNLINK, "unlink", AT_FDCWD, file, next(file)); }
int rmdir(const char *file) { NEXT(rmdir); ON_NAME(UNLINK, "unlink", AT_FDCWD, file, next(file)); }
int unlinkat(int at, const char *file, int flags) { NEXT(unlinkat); ON_NAME(UNLINK, "unlink", at, file, next(at, file, flags)); }
int mkdir(const char *file, mode_t mode) { NEXT(mkdir); ON_NAME(MKDIR, "mkdir", AT_FDCWD, file, next(file, mode)); }
int mkdirat(int at, const char *file, mode_t mode) { NEXT(mkdirat); ON_NAME(MKDIR, "mkdir", at, file, next(at, file, mode)); }
int rename(const char *from, const char *to) { NEXT(rename); PLAIN(RENAME, "rename", from, to, next(from, to)); }
int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat);
    char one[PATH_MAX], two[PATH_MAX];
    const char *source = path_at(a, from, one), *target = path_at(b, to, two);
    PLAIN(RENAME, "rename", source, target, next(a, from, b, to));
}

DIR *opendir(const char *path) {
    NEXT(opendir);
    long number; int met = verdict(LIST, "list", path, "", &number);
    DIR *found = met == ERRNO ? NULL : next(path);
    note("list", number, found ? 0 : -errno, path, "");
    return found;
}
