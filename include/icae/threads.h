/* SPDX-License-Identifier: MIT */
/*
 * How long threads of the OpenMP team spin while they wait for each other.
 *
 * libgomp's default is some milliseconds. On a machine that is doing something else as well, a thread
 * that spins keeps the very thread that it waits for off the core: generation was measured 3 to 6 times
 * slower beside two busy processes than with short waits, and equally fast on an idle machine.
 */
#ifndef ICAE_THREADS_H
#define ICAE_THREADS_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For the first line of main: starts the program again with GOMP_SPINCOUNT=2000, unless that or
 * OMP_WAIT_POLICY is set already. (libgomp reads them before main, so setting them here is too late.)
 * Returns when nothing is to be done or starting again is not possible.
 */
void icae_threads_wait_briefly(char **argv);

#ifdef __cplusplus
}
#endif
#endif
