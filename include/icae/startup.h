/* SPDX-License-Identifier: MIT */
/*
 * What the libraries below us read from the environment before main begins, set as our programs need it.
 *
 * GOMP_SPINCOUNT=2000: how long threads of the OpenMP team spin while they wait for each other. libgomp's
 * default is some milliseconds. On a machine that is doing something else as well, a thread that spins keeps the
 * very thread that it waits for off the core: generation was measured 3 to 6 times slower beside two busy
 * processes than with short waits, and equally fast on an idle machine.
 *
 * GLIBC_TUNABLES=glibc.malloc.hugetlb=1: the heap asks for huge pages (glibc 2.35 and later; others pass it
 * over). A training step touches a gigabyte of tensors: it was measured a tenth faster, at 3 % more memory.
 *
 * OPENBLAS_CORETYPE, only where OpenBLAS took kernels without AVX2 on a processor that has it: a processor newer than
 * the library is unknown to it, and gets those of a Pentium 4. Debian 12's 0.3.21 did so on an Intel Xeon of
 * 2023 (model 207) behind a hypervisor: sgemm at 26 GFLOP/s a core instead of 153.
 */
#ifndef ICAE_STARTUP_H
#define ICAE_STARTUP_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For the first line of main. Standard streams that are closed are occupied, so that no file gets their numbers;
 * reading and writing them still fails. Then it starts the program again with those of the three that are not set yet
 * (OMP_WAIT_POLICY stands for the first as well). All are read before main, so setting them here is too late
 * for this process. Returns when nothing is to be done or starting again is not possible.
 */
void icae_startup_tune(char **argv);

#ifdef __cplusplus
}
#endif
#endif
