/* A library for LD_PRELOAD that makes one system call fail: the N-th that touches a file under a folder.
 *
 * It is steered by a file of four 64-bit numbers, shared with the process that runs the test (FAULT_CONTROL):
 *   [0] the number of the call to fail, from 1; 0: none   [1] the errno it fails with
 *   [2] how many calls there were                          [3] the kind of the call that failed, as in `enum kind` */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { WRITE = 1, FSYNC, RENAME, OPEN, MKDIR, LINK, TRUNCATE, UNLINK };

static volatile int64_t *control;
static const char *root;

__attribute__((constructor)) static void start(void) {
  const char *path = getenv("FAULT_CONTROL");
  root = getenv("FAULT_ROOT");
  if (!path || !root) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared != MAP_FAILED) control = shared;
}

static int fails(enum kind kind) {
  int64_t number = __atomic_add_fetch(&control[2], 1, __ATOMIC_SEQ_CST);
  if (number != control[0]) return 0;
  control[3] = kind;
  errno = (int)control[1];
  return 1;
}

static int is_under(const char *path) {
  return path && strncmp(path, root, strlen(root)) == 0;
}

static int path_fails(enum kind kind, const char *path) {
  char whole[PATH_MAX * 2], here[PATH_MAX];
  if (!control) return 0;
  if (path && path[0] != '/' && getcwd(here, sizeof here)) {
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    path = whole;
  }
  return is_under(path) && fails(kind);
}

static int file_fails(enum kind kind, int fd) {
  char link[64], path[PATH_MAX];
  if (!control) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = 0;
  return is_under(path) && fails(kind);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
  return file_fails(WRITE, fd) ? -1 : NEXT(write)(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  return file_fails(WRITE, fd) ? -1 : NEXT(pwrite64)(fd, data, size, at);
}
int fsync(int fd) { return file_fails(FSYNC, fd) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return file_fails(FSYNC, fd) ? -1 : NEXT(fdatasync)(fd); }
int ftruncate64(int fd, off64_t size) { return file_fails(TRUNCATE, fd) ? -1 : NEXT(ftruncate64)(fd, size); }
int rename(const char *from, const char *to) { return path_fails(RENAME, to) ? -1 : NEXT(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return path_fails(MKDIR, path) ? -1 : NEXT(mkdir)(path, mode); }
int link(const char *from, const char *to) { return path_fails(LINK, to) ? -1 : NEXT(link)(from, to); }
int symlink(const char *from, const char *to) { return path_fails(LINK, to) ? -1 : NEXT(symlink)(from, to); }
int unlink(const char *path) { return path_fails(UNLINK, path) ? -1 : NEXT(unlink)(path); }

#define OPENED(path, flags, call)                            \
  mode_t mode = 0;                                                         \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                                   \
    va_list more;                                                          \
    va_start(more, flags);                                                 \
    mode = va_arg(more, mode_t);                                           \
    va_end(more);                                                          \
  }                                                                        \
  return path_fails(OPEN, path) ? -1 : call;

int open(const char *path, int flags, ...) { OPENED(path, flags, NEXT(open)(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPENED(path, flags, NEXT(open64)(path, flags, mode)) }
int openat(int at, const char *path, int flags, ...) {
  OPENED(path, flags, NEXT(openat)(at, path, flags, mode))
}
int openat64(int at, const char *path, int flags, ...) {
  OPENED(path, flags, NEXT(openat64)(at, path, flags, mode))
}
