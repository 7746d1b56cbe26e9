/* SPDX-License-Identifier: MIT */
/* Short waits between threads; see icae/threads.h. */
#include <stdlib.h>
#include <unistd.h>

#include "icae/threads.h"

void icae_threads_wait_briefly(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "2000", 1)) return;
    execv("/proc/self/exe", argv); /* comes back only when it failed: then as it was */
}
