/* SPDX-License-Identifier: MIT */
/* Short waits between threads; see icae/threads.h. */
#include <stdlib.h>
#include <unistd.h>

#include "icae/threads.h"

void icae_threads_wait_briefly(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "2000", 1)) return;
    /* By its own path, so that ps and pkill still know the program by its name. execv comes back only when
     * it failed: then everything is as it was. */
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = '\0';
    execv(path, argv);
}
