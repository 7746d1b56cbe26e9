/* SPDX-License-Identifier: MIT */
/* What the programs set for the libraries below them before they begin: OpenBLAS's kernels. */
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

SUITE_OF(startup, 120, old_kernels_give_way_to_what_the_processor_has,
         programs_multiply_with_kernels_of_this_processor)
