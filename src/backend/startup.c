/* SPDX-License-Identifier: MIT */
/* The environment that libraries read before main; see icae/startup.h. */
#include "icae/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "backend/cpu_internal.h"

/* A standard stream that was closed would be the next file to be opened, and messages would go into that. What is
 * put in its place fails as the closed one did: it is open the other way round. */
static void occupy_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
    }
}

void icae_startup_tune(char **argv) {
    occupy_streams();
    if (getauxval(AT_SECURE))
        return; /* what is set may be taken away, and then this would never end */
    bool is_waiting_set = getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY");
    bool is_heap_set = getenv("GLIBC_TUNABLES") != NULL;
    const char *core = getenv("OPENBLAS_CORETYPE") ? NULL : icae_cpu_blas_better_core();
    if (is_waiting_set && is_heap_set && !core) return;
    if (!is_waiting_set && setenv("GOMP_SPINCOUNT", "2000", 1)) return;
    if (!is_heap_set && setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1)) return;
    if (core && setenv("OPENBLAS_CORETYPE", core, 1)) return;
    /* By its own path, so that ps and pkill still know the program by its name. execv comes back only when
     * it failed: then everything is as it was. */
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = '\0';
    execv(path, argv);
}
