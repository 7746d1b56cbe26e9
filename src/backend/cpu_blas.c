/* SPDX-License-Identifier: MIT */
/*
 * Dense products on OpenBLAS, the one file that knows its header.
 *
 * Only `matmul` comes here: sums over all tokens for trained parameters. What a sample sees goes
 * through cpu_linear.c, whose rows do not depend on each other; sgemm's do, in the last bits.
 */
#include <assert.h>
#include <cblas.h>
#include <limits.h>
#include <omp.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "backend/cpu_internal.h"

static blasint blas_size(int64_t size) {
    assert(size >= 0 && size <= INT_MAX);
    return (blasint)size;
}

/* What the process's other users of OpenMP and OpenBLAS have set. */
typedef struct thread_counts {
    int openmp, blas;
} thread_counts;

/* The OpenMP build asks OpenMP at every call, unless its own number is 1; others know only their own. */
static bool asks_openmp(int blas) {
    return openblas_get_parallel() == OPENBLAS_OPENMP && blas != 1;
}

static thread_counts threads_take(int n) {
    thread_counts before = {omp_get_max_threads(), openblas_get_num_threads()};
    if (!asks_openmp(before.blas) && before.blas != n) openblas_set_num_threads(n);
    omp_set_num_threads(n);
    return before;
}

static void threads_return(thread_counts before, int n) {
    if (!asks_openmp(before.blas) && before.blas != n) openblas_set_num_threads(before.blas);
    omp_set_num_threads(before.openmp);
}

static void blas_matmul(icae_backend *be, bool ta, bool tb, int64_t M, int64_t N, int64_t K,
                        icae_real alpha, const icae_real *a, int64_t lda, const icae_real *b,
                        int64_t ldb, icae_real beta, icae_real *c, int64_t ldc) {
    if (M == 0 || N == 0) return;
    if (K ==
        0) { /* an empty sum; the library asks for ld >= 1 here, which callers need not have */
        for (int64_t m = 0; m < M; m++) {
            for (int64_t n = 0; n < N; n++)
                c[m * ldc + n] = beta == 0 ? 0 : beta * c[m * ldc + n];
        }
        return;
    }
    const CBLAS_TRANSPOSE op_a = ta ? CblasTrans : CblasNoTrans;
    const CBLAS_TRANSPOSE op_b = tb ? CblasTrans : CblasNoTrans;
    const thread_counts before = threads_take(be->n_threads);
#if ICAE_REAL_IS_DOUBLE
    cblas_dgemm(
#else
    cblas_sgemm(
#endif
        CblasRowMajor, op_a, op_b, blas_size(M), blas_size(N), blas_size(K), alpha, a,
        blas_size(lda), b, blas_size(ldb), beta, c, blas_size(ldc));
    threads_return(before, be->n_threads);
}

void icae_cpu_blas(icae_kernels *table) {
    table->matmul = blas_matmul;
}

const char *icae_cpu_blas_core_for(const char *taken, const char *const *levels) {
    /* OpenBLAS's x86 kernels from before AVX2; a name that is not here may be of one that came later. */
    static const char *const old[] = {
        "Katmai", "Coppermine", "Northwood",  "Prescott",     "Banias",
        "Atom",   "Core2",      "Penryn",     "Dunnington",   "Nehalem",
        "Athlon", "Opteron",    "Nano",       "Opteron_SSE3", "Barcelona",
        "Bobcat", "Bulldozer",  "Piledriver", "Steamroller",  "Sandybridge",
    };
    bool is_old = false;
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        is_old = is_old || !strcasecmp(taken, old[i]);
    const char *better = NULL;
    for (; is_old && *levels; levels++) {
        if (!strcmp(*levels, "avx2")) better = "Haswell";
        if (!strcmp(*levels, "avx512")) better = "SkylakeX";
    }
    return better;
}

const char *icae_cpu_blas_better_core(void) {
    return icae_cpu_blas_core_for(openblas_get_corename(), icae_backend_levels());
}

const char *icae_cpu_sgemm_core(void) {
    return openblas_get_corename();
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double icae_cpu_sgemm_peak(int n_threads, double seconds, double *mean) {
    enum { SIZE = 1024 };
    const double gflop = 2e-9 * SIZE * SIZE * SIZE;
    if (mean) *mean = 0;
    float *memory = icae_aligned_calloc((size_t)3 * SIZE * SIZE, sizeof *memory);
    if (!memory) return 0;
    float *a = memory, *b = a + SIZE * SIZE, *c = b + SIZE * SIZE;
    for (int i = 0; i < SIZE * SIZE; i++) {
        a[i] = (float)(i % 7) - 3;
        b[i] = (float)(i % 5) - 2;
    }
    const thread_counts before = threads_take(n_threads);
    /* The best of many short runs: other work on the machine can only make one slower. */
    double best = 1e30, all = 0, start = now_s();
    int tries = -1; /* the first one warms up */
    do {
        double from = now_s();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SIZE, SIZE, SIZE, 1, a, SIZE, b,
                    SIZE, 0, c, SIZE);
        double took = now_s() - from;
        if (++tries == 0) continue;
        if (took < best) best = took;
        all += took;
    } while (tries < 1 || now_s() - start < seconds);
    threads_return(before, n_threads);
    icae_aligned_free(memory);
    if (mean) *mean = gflop * tries / all;
    return gflop / best;
}
