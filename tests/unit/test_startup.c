/* SPDX-License-Identifier: MIT */
/* What the programs set for the libraries below them before they begin, OpenBLAS's kernels, and what the
 * library leaves as its host has set it, the numbers of threads. */
#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu_internal.h"
#include "cli_support.h"

static bool has_level(const char *name) {
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        if (!strcmp(*level, name)) return true;
    }
    return false;
}

START_TEST(old_kernels_give_way_to_what_the_processor_has) {
    static const char *const plain[] = {"reference", "portable", NULL};
    static const char *const middle[] = {"reference", "portable", "avx2", NULL};
    static const char *const wide[] = {"reference", "portable", "avx2", "avx512", NULL};
    ck_assert_ptr_null(icae_cpu_blas_core_for("Prescott", plain));
    ck_assert_str_eq(icae_cpu_blas_core_for("Prescott", middle), "Haswell");
    ck_assert_str_eq(icae_cpu_blas_core_for("prescott", wide), "SkylakeX");
    ck_assert_str_eq(icae_cpu_blas_core_for("Sandybridge", middle), "Haswell");
    static const char *const newer[] = {"Haswell", "Zen", "SkylakeX", "Cooperlake", "later"};
    for (size_t i = 0; i < sizeof newer / sizeof newer[0]; i++)
        ck_assert_ptr_null(icae_cpu_blas_core_for(newer[i], wide));
}
END_TEST

static const char *core_with(const char *folder, const char *environment) {
    return string(parse(run_in(folder,
                               "env -u OPENBLAS_CORETYPE %s $ICAE bench -q --json --steps 0 "
                               "-t 1 -m " TINY_BASE,
                               environment)),
                  "sgemm_core");
}

START_TEST(programs_multiply_with_kernels_of_this_processor) {
    if (!has_level("avx2")) return;
    const char *folder = test_folder("startup");
    ck_assert_ptr_null(icae_cpu_blas_core_for(core_with(folder, ""), icae_backend_levels()));
    /* what the user wants is left alone */
    ck_assert_str_eq(core_with(folder, "OPENBLAS_CORETYPE=Haswell"), "Haswell");
    ck_assert_str_eq(core_with(folder, "OPENBLAS_CORETYPE=Nehalem"), "Nehalem");
}
END_TEST

/* A product on two backends; then the host's numbers of threads are what they were. */
static void multiply_between(int openmp, int blas) {
    enum { SIZE = 96 };
    static icae_real a[SIZE * SIZE], b[SIZE * SIZE], c[SIZE * SIZE];
    icae_error error = {0};
    openblas_set_num_threads(blas);
    omp_set_num_threads(openmp);
    icae_backend *one, *all;
    ck_ok(icae_backend_create(&one, "portable", 1, &error));
    ck_ok(icae_backend_create(&all, "portable", 0, &error));
    ck_assert_int_eq(one->n_threads, 1);
    ck_assert_int_eq(all->n_threads, openmp);
    for (int i = 0; i < 2; i++) {
        icae_backend *be = i ? all : one;
        be->k.matmul(be, false, true, SIZE, SIZE, SIZE, 1, a, SIZE, b, SIZE, 0, c, SIZE);
        ck_assert_int_eq(omp_get_max_threads(), openmp);
        if (blas == 1) ck_assert_int_eq(openblas_get_num_threads(), 1);
    }
    icae_backend_free(one);
    icae_backend_free(all);
}

START_TEST(backends_leave_the_process_its_numbers_of_threads) {
    multiply_between(3, 3);
    multiply_between(2, 1);
}
END_TEST

SUITE_OF(startup, 120, old_kernels_give_way_to_what_the_processor_has,
         programs_multiply_with_kernels_of_this_processor,
         backends_leave_the_process_its_numbers_of_threads)
