/* SPDX-License-Identifier: MIT */
/*
 * Which kernels a CPU gets: the reference table, then the overrides of one level.
 *
 * Levels are rows of one table: a name, what the processor must have, and what fills the entries.
 */
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_ref.h"
#include "icae/backend.h"
#include "icae/log.h"

static bool has_always(void) {
    return true;
}

static void fill_reference(icae_kernels *table) {
    (void)table; /* every table starts as the reference */
}

static void fill_portable(icae_kernels *table) {
    icae_cpu_blas(table);
    icae_cpu_simd_portable(table);
}

#if defined(__x86_64__)
/* clang 14 does not know this one by name: CPUID leaf 1, ECX bit 29. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29)) != 0;
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

static void fill_avx2(icae_kernels *table) {
    icae_cpu_blas(table);
    icae_cpu_simd_avx2(table);
}

static void fill_avx512(icae_kernels *table) {
    icae_cpu_blas(table);
    icae_cpu_simd_avx512(table);
}

#if !ICAE_REAL_IS_DOUBLE
static bool has_avx512vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static void fill_avx512vnni(icae_kernels *table) {
    fill_avx512(table);
    icae_cpu_integers_avx512vnni(table);
}

/* CPUID leaf 7, subleaf 1, EAX bit 5; older compilers do not know it by name. Every processor that has
 * it has AVX512-VNNI; a hypervisor may hide either. */
static bool has_avx512bf16(void) {
    unsigned a, b, c, d;
    return has_avx512vnni() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5)) != 0;
}

static void fill_avx512bf16(icae_kernels *table) {
    fill_avx512vnni(table);
    icae_cpu_bf16(table);
}
#endif
#endif

static const struct {
    const char *name;
    bool (*is_available)(void);
    void (*fill)(icae_kernels *table);
} levels[] = {
    {"reference", has_always, fill_reference},
    {"portable", has_always, fill_portable},
#if defined(__x86_64__)
    {"avx2", has_avx2, fill_avx2},
    {"avx512", has_avx512, fill_avx512},
#if !ICAE_REAL_IS_DOUBLE
    {"avx512vnni", has_avx512vnni, fill_avx512vnni},
    {"avx512bf16", has_avx512bf16, fill_avx512bf16},
#endif
#endif
};

enum { LEVEL_COUNT = sizeof levels / sizeof levels[0] };

const char *const *icae_backend_levels(void) {
    static const char *names[LEVEL_COUNT + 1];
    int count = 0;
    for (int i = 0; i < LEVEL_COUNT; i++) {
        if (levels[i].is_available()) names[count++] = levels[i].name;
    }
    names[count] = NULL;
    return names;
}

/* *index of the wanted level, or of the best one. */
static icae_status choose_level(const char *wanted, int *index, icae_error *error) {
    *index = 0;
    for (int i = 0; i < LEVEL_COUNT; i++) {
        bool is_wanted = wanted && !strcmp(wanted, levels[i].name);
        if (is_wanted && !levels[i].is_available()) {
            return icae_fail(
                error, ICAE_UNSUPPORTED,
                "CPU level '%s': this processor lacks it; leave ICAE_CPU unset to use the best",
                wanted);
        }
        if (is_wanted || levels[i].is_available()) *index = i;
        if (is_wanted) return ICAE_OK;
    }
    if (!wanted) return ICAE_OK;
    char known[128] = "";
    for (int i = 0; i < LEVEL_COUNT; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", levels[i].name);
    }
    return icae_fail(error, ICAE_INVALID, "CPU level '%s' is unknown: expected one of %s",
                     wanted, known);
}

icae_status icae_backend_create(icae_backend **backend, const char *level, int n_threads,
                                icae_error *error) {
    *backend = NULL;
    if (!level) level = getenv("ICAE_CPU");
    if (level && !*level) level = NULL;
    int chosen;
    icae_status status = choose_level(level, &chosen, error);
    if (status) return status;
    if (n_threads < 0 || n_threads > 1024) {
        return icae_fail(error, ICAE_INVALID, "%d threads: expected 1 to 1024, or 0 for all",
                         n_threads);
    }
    icae_backend *be = calloc(1, sizeof *be);
    icae_pool *pool = icae_pool_create();
    if (!be || !pool) {
        free(be);
        icae_pool_free(pool);
        return icae_fail_memory(error, "a CPU backend");
    }
    be->pool = pool;
    be->name = levels[chosen].name;
    be->compute = ICAE_COMPUTE_F32;
    be->has_fast_bf16 = !strcmp(be->name, "avx512bf16");
    be->n_threads = n_threads ? n_threads : omp_get_max_threads();
    icae_cpu_ref(&be->k);
    levels[chosen].fill(&be->k);
    *backend = be;
    return ICAE_OK;
}

const char *const icae_compute_names[] = {"auto", "f32", "bf16", NULL};

bool icae_compute_from_name(const char *name, icae_compute *compute) {
    for (int i = 0; icae_compute_names[i]; i++) {
        if (strcmp(name, icae_compute_names[i]) != 0) continue;
        *compute = (icae_compute)i;
        return true;
    }
    return false;
}

void icae_backend_set_compute(icae_backend *backend, icae_compute compute) {
    if (compute == ICAE_COMPUTE_AUTO) {
        compute = backend->has_fast_bf16 ? ICAE_COMPUTE_BF16 : ICAE_COMPUTE_F32;
    }
    backend->compute = compute;
}

void icae_backend_free(icae_backend *backend) {
    if (!backend) return;
    icae_pool_free(backend->pool);
    icae_aligned_free(backend->scratch);
    free(backend);
}

char *icae_backend_scratch(icae_backend *backend, size_t bytes, size_t *stride) {
    /* An odd number of cache lines keeps the threads' parts off the same cache sets. */
    size_t line = ICAE_ALIGNMENT;
    bytes = ((bytes + line - 1) / line | 1) * line;
    if (bytes > backend->scratch_bytes) {
        icae_aligned_free(backend->scratch);
        backend->scratch = icae_aligned_calloc((size_t)backend->n_threads, bytes);
        backend->scratch_bytes = backend->scratch ? bytes : 0;
        if (!backend->scratch) backend->is_out_of_memory = true;
    }
    *stride = backend->scratch_bytes;
    return backend->scratch;
}

void *icae_backend_work_space(icae_backend *backend, size_t bytes) {
    void *memory = backend->k.acquire(backend, bytes);
    if (!memory) backend->is_out_of_memory = true;
    return memory;
}

double icae_cpu_bf16_peak(int n_threads, double seconds) {
#if defined(__x86_64__) && !ICAE_REAL_IS_DOUBLE
    if (!has_avx512bf16()) return 0;
    /* The best of many short bursts: other work on the machine can only make one slower. */
    double best = 0, start = icae_clock_seconds();
    do {
        double took, gflop = icae_cpu_bf16_burst(n_threads, &took);
        if (took > 0 && gflop / took > best) best = gflop / took;
    } while (icae_clock_seconds() - start < seconds);
    return best;
#else
    (void)n_threads;
    (void)seconds;
    return 0;
#endif
}

icae_matrix icae_matrix_of(icae_dtype dtype, int64_t rows, int64_t cols, const void *data) {
    icae_matrix matrix = {.dtype = dtype, .rows = rows, .cols = cols, .data = data};
    if (!icae_dtype_bytes(dtype, cols, &matrix.row_bytes)) matrix.row_bytes = 0;
    return matrix;
}
