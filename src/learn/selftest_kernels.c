/* SPDX-License-Identifier: MIT */
/*
 * The built-in part of the self-test; see icae/selftest.h.
 *
 * Every probe is one use of one kernel on random input. It runs twice, on the backend in use and on the
 * reference, and the two results are compared. The tests of the repository are far more thorough;
 * this is for the machine that a user has, where they may not have been run.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/half.h"
#include "icae/rng.h"
#include "icae/selftest.h"

/* Odd enough for ragged ends of tiles, large enough for threads to be used. */
enum { T = 37, N = 96, K = 256, HEADS = 6, KV_HEADS = 2, HEAD_WIDTH = 16, QUERIES = 33 };
enum { ROOM = 1 << 16 }; /* numbers in each of a probe's buffers */
enum { N_SEQUENCES = 2 };

/* One backend's copies of the input, and its output. */
typedef struct bench {
    icae_backend *be;
    icae_real *a, *b, *c, *d; /* [ROOM] random, in device memory */
    icae_real *out;           /* [ROOM] zeroed before a probe */
    icae_matrix weight;       /* [N,K], of the type under test */
} bench;

typedef void probe_function(bench *p); /* leaves its results in p->out */

static void probe_linear(bench *p) {
    p->be->k.linear(p->be, T, N, K, p->a, &p->weight, false, p->out);
}

static void probe_linear_reading(bench *p) {
    p->be->k.linear_reading(p->be, T, N, K, p->a, &p->weight, false, p->out);
}

static void probe_linear_few(bench *p) {
    p->be->k.linear_few(p->be, 3, N, K, p->a, &p->weight, false, p->out);
}

static void probe_linear_dx(bench *p) {
    p->be->k.linear_dx(p->be, T, N, K, p->b, &p->weight, false, p->out);
}

static void probe_linear_bf16(bench *p) {
    p->be->k.linear_bf16(p->be, T, N, K, p->a, &p->weight, false, p->out);
}

static void probe_linear_bf16_dx(bench *p) {
    p->be->k.linear_bf16_dx(p->be, T, N, K, p->b, &p->weight, false, p->out);
}

static void probe_linear_few_bf16(bench *p) {
    p->be->k.linear_few_bf16(p->be, 9, N, K, p->a, &p->weight, false, p->out);
}

static void probe_gather(bench *p) {
    int32_t rows[T], to[T];
    for (int32_t i = 0; i < T; i++) {
        rows[i] = i * 29 % N;
        to[i] = T - 1 - i;
    }
    p->be->k.gather(p->be, T, &p->weight, rows, to, (icae_real)1.5, p->out);
}

static void probe_scatter_add(bench *p) {
    int32_t from[T], rows[T];
    for (int32_t i = 0; i < T; i++) {
        from[i] = i;
        rows[i] = i % 5;
    }
    p->be->k.scatter_add(p->be, T, K, p->a, from, rows, (icae_real)0.7, p->out);
}

/* Large enough that OpenBLAS takes all its threads. */
static void probe_matmul(bench *p) {
    p->be->k.matmul(p->be, false, true, 192, 160, 300, 1, p->a, 300, p->b, 300, 0, p->out, 160);
    p->be->k.matmul(p->be, true, false, 64, 96, 320, 1, p->c, 64, p->d, 96, 1, p->out, 96);
}

static void probe_rmsnorm(bench *p) {
    icae_real *r = p->out + T * K;
    p->be->k.rmsnorm(p->be, T, K, p->a, p->b, (icae_real)1e-5, p->out, r);
    p->be->k.rmsnorm_dx(p->be, T, K, p->a, p->b, r, p->c, false, p->out + T * (K + 1));
}

static void probe_rope(bench *p) {
    p->be->k.copy(p->be, p->out, p->a, (size_t)(T * HEADS * HEAD_WIDTH) * sizeof *p->out);
    p->be->k.rope(p->be, T, HEADS, HEAD_WIDTH, p->b, false, p->out);
}

static void probe_attention(bench *p) {
    const icae_attention_shape shape = {HEADS, KV_HEADS, HEAD_WIDTH, (icae_real)0.25, 0};
    enum { ROWS = N_SEQUENCES * QUERIES, Q = ROWS * HEADS * HEAD_WIDTH };
    enum { KV = ROWS * KV_HEADS * HEAD_WIDTH };
    icae_real *attended = p->out, *lse = attended + Q, *dq = lse + ROWS * HEADS;
    icae_real *dk = dq + Q, *dv = dk + KV;
    icae_attention_span spans[N_SEQUENCES];
    for (int64_t s = 0; s < N_SEQUENCES; s++) {
        int64_t row = s * QUERIES * KV_HEADS * HEAD_WIDTH;
        spans[s] = (icae_attention_span){s * QUERIES, QUERIES,  QUERIES, p->b + row,
                                         p->c + row,  dk + row, dv + row};
    }
    p->be->k.attention(p->be, &shape, N_SEQUENCES, spans, p->a, attended, lse);
    p->be->k.attention_dx(p->be, &shape, N_SEQUENCES, spans, p->a, attended, lse, p->d, false,
                          dq);
}

static void probe_swiglu(bench *p) {
    p->be->k.swiglu(p->be, T * K, p->a, p->b, p->out);
    p->be->k.swiglu_dx(p->be, T * K, p->a, p->b, p->c, false, p->out + T * K,
                       p->out + 2 * T * K);
}

static void probe_geglu(bench *p) {
    p->be->k.geglu(p->be, T * K, p->a, p->b, p->out);
    p->be->k.geglu_dx(p->be, T * K, p->a, p->b, p->c, false, p->out + T * K,
                      p->out + 2 * T * K);
}

static void probe_elementwise(bench *p) {
    p->be->k.scale(p->be, T * K, (icae_real)0.3, p->a, p->out);
    p->be->k.accumulate(p->be, T * K, p->b, p->out);
    p->be->k.add_row(p->be, T, K, p->c, p->out);
}

static void probe_dropout(bench *p) {
    uint64_t keys[T];
    for (uint64_t i = 0; i < T; i++)
        keys[i] = icae_mix64(i, 5);
    p->be->k.dropout(p->be, T, K, p->a, 11, keys, 0.3, false, p->out);
}

static void probe_cross_entropy(bench *p) {
    int32_t targets[T];
    icae_real *logits = p->out, *nll = p->out + T * K;
    for (int32_t i = 0; i < T; i++)
        targets[i] = i * 17 % K;
    p->be->k.copy(p->be, logits, p->a, (size_t)(T * K) * sizeof *logits);
    p->be->k.cross_entropy(p->be, T, K, logits, targets, p->b, nll);
}

static void probe_adamw(bench *p) {
    const icae_adamw_step step = {1e-2, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 0.7};
    enum { COUNT = T * K };
    icae_real *m = p->out + COUNT, *v = p->out + 2 * COUNT;
    p->be->k.copy(p->be, p->out, p->a, (size_t)COUNT * sizeof *p->out);
    p->be->k.adamw(p->be, COUNT, &step, p->out, p->b, m, v);
    icae_real norm = (icae_real)p->be->k.sum_squares(p->be, COUNT, p->c);
    p->be->k.copy_in(p->be, p->out + 3 * COUNT, &norm, sizeof norm);
}

static const struct {
    const char *name;
    probe_function *run;
    bool is_per_dtype, is_rounding; /* of the input, to 16 bits */
} probes[] = {
    {"linear", probe_linear, true, false},
    {"linear_reading", probe_linear_reading, true, true},
    {"linear_few", probe_linear_few, true, true},
    {"linear_dx", probe_linear_dx, true, false},
    {"linear_bf16", probe_linear_bf16, true, false},
    {"linear_bf16_dx", probe_linear_bf16_dx, true, false},
    {"linear_few_bf16", probe_linear_few_bf16, true, false},
    {"gather", probe_gather, true, false},
    {"scatter_add", probe_scatter_add, false, false},
    {"matmul", probe_matmul, false, false},
    {"rmsnorm", probe_rmsnorm, false, false},
    {"rope", probe_rope, false, false},
    {"attention", probe_attention, false, false},
    {"swiglu", probe_swiglu, false, false},
    {"geglu", probe_geglu, false, false},
    {"scale, accumulate, add_row", probe_elementwise, false, false},
    {"dropout", probe_dropout, false, false},
    {"cross_entropy", probe_cross_entropy, false, false},
    {"adamw, sum_squares", probe_adamw, false, false},
};

/* ---- input ---- */

static void store_half(unsigned char *at, double value) {
    uint16_t half = icae_f32_to_f16((float)value);
    memcpy(at, &half, sizeof half);
}

/* A random weight of any type: plain numbers are converted, blocks get a sensible scale (and offset)
 * before random bytes. */
static void *random_weight(icae_dtype dtype, size_t *bytes) {
    icae_rng rng = {.seed = 3, .stream = (uint64_t)dtype};
    if (!icae_dtype_bytes(dtype, N * K, bytes)) return NULL;
    unsigned char *data = malloc(*bytes);
    if (!data) return NULL;
    for (size_t i = 0; i < *bytes; i++)
        data[i] = (unsigned char)icae_rng_u64(&rng);
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    for (size_t at = 0; at < *bytes; at += info->block_bytes) {
        double value = 0.05 * icae_rng_normal(&rng);
        float single = (float)value;
        uint16_t half = icae_f32_to_bf16(single);
        if (dtype == ICAE_DTYPE_F32)
            memcpy(data + at, &single, sizeof single);
        else if (dtype == ICAE_DTYPE_F64)
            memcpy(data + at, &value, sizeof value);
        else if (dtype == ICAE_DTYPE_BF16)
            memcpy(data + at, &half, sizeof half);
        size_t offsets[2];
        int n_halves = icae_dtype_halves(dtype, offsets);
        for (int h = 0; h < n_halves; h++)
            store_half(data + at + offsets[h], h ? 0.05 * icae_rng_normal(&rng) : value);
    }
    return data;
}

static void bench_release(bench *p) {
    icae_real *buffers[] = {p->a, p->b, p->c, p->d, p->out};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        if (buffers[i]) p->be->k.release(p->be, buffers[i]);
    }
}

/* The same input for every backend: a function of its place alone. */
static bool bench_init(bench *p, icae_backend *be, icae_real *host) {
    *p = (bench){.be = be};
    icae_real **buffers[] = {&p->a, &p->b, &p->c, &p->d, &p->out};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        icae_rng rng = {.seed = 17, .stream = i};
        *buffers[i] = be->k.acquire(be, ROOM * sizeof *host);
        if (!*buffers[i]) return false;
        for (int j = 0; j < ROOM; j++)
            host[j] = (icae_real)icae_rng_normal(&rng);
        be->k.copy_in(be, *buffers[i], host, ROOM * sizeof *host);
    }
    return true;
}

static void run_probe(bench *p, probe_function *run, icae_real *result) {
    p->be->k.zero(p->be, p->out, ROOM * sizeof *p->out);
    run(p);
    p->be->k.copy_out(p->be, result, p->out, ROOM * sizeof *result);
}

/* Largest difference over the largest entry. Results of one probe have like magnitudes. */
static double difference(const icae_real *made, const icae_real *expected) {
    double largest = 0, worst = 0;
    for (int i = 0; i < ROOM; i++) {
        double d = fabs((double)made[i] - (double)expected[i]);
        if (isnan(d)) return d;
        worst = fmax(worst, d);
        largest = fmax(largest, fabs((double)expected[i]));
    }
    return largest > 0 ? worst / largest : worst;
}

/* An OpenBLAS that was built without locks, or meets another OpenMP runtime, gives wrong sums in several
 * threads, and not every time. Training leans on the same bits from the same input. */
static void repeat_matmul(icae_checks *checks, bench *used, icae_real *results) {
    enum { TIMES = 40 };
    double worst = 0;
    run_probe(used, probe_matmul, results);
    for (int i = 0; i < TIMES && !isnan(worst); i++) {
        run_probe(used, probe_matmul, results + ROOM);
        double d = difference(results + ROOM, results);
        if (isnan(d) || d > worst) worst = d;
    }
    icae_check_report(checks, "matmul", worst, 0, "40 times the same bits");
}

static icae_status run_probes(icae_checks *checks, bench *used, bench *reference,
                              icae_real *results, icae_error *error) {
    /* Sums of some hundred products in another order; of inputs with an error of 2^-16 each. */
    const double of_order = ICAE_REAL_IS_DOUBLE ? 1e-12 : 1e-5;
    const double of_rounding = ICAE_REAL_IS_DOUBLE ? 1e-12 : 1e-4;
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        int n_types = probes[i].is_per_dtype ? ICAE_DTYPE_COUNT : 1;
        for (int d = 0; d < n_types; d++) {
            size_t bytes;
            void *weight = random_weight((icae_dtype)d, &bytes);
            if (!weight) return icae_fail_memory(error, "a weight");
            used->weight = icae_matrix_of((icae_dtype)d, N, K, weight);
            reference->weight = used->weight;
            run_probe(used, probes[i].run, results);
            run_probe(reference, probes[i].run, results + ROOM);
            free(weight);
            icae_check_report(checks, probes[i].name, difference(results, results + ROOM),
                              probes[i].is_rounding ? of_rounding : of_order,
                              probes[i].is_per_dtype ? icae_dtype_describe((icae_dtype)d)->name
                                                     : "");
        }
    }
    repeat_matmul(checks, used, results);
    return used->be->is_out_of_memory || reference->be->is_out_of_memory
               ? icae_fail_memory(error, "a kernel's work space")
               : ICAE_OK;
}

icae_status icae_selftest_kernels(icae_checks *checks, icae_backend *be, icae_error *error) {
    icae_backend *plain = NULL;
    bench used = {.be = be}, reference = {0};
    checks->subject = be->name;
    icae_status status = icae_backend_create(&plain, "reference", be->n_threads, error);
    if (status) return status;
    reference.be = plain;
    icae_real *results = calloc(2 * ROOM, sizeof *results);
    if (!results || !bench_init(&used, be, results) ||
        !bench_init(&reference, plain, results)) {
        status = icae_fail_memory(error, "the kernels' input");
    } else {
        status = run_probes(checks, &used, &reference, results, error);
    }
    bench_release(&used);
    bench_release(&reference);
    icae_backend_free(plain);
    free(results);
    return status;
}

/* ---- tokenizer ---- */

icae_status icae_selftest_tokenizer(icae_checks *checks, const icae_tokenizer *tokenizer,
                                    icae_error *error) {
    static const char *const texts[] = {
        "Plain words, 12345 numbers; don't we'll I'VE.",
        "  two  spaces\n\n\tand tabs\r\n",
        "Gr\xc3\xbc\xc3\x9f"
        "e, na\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 e\xcc\x81",
        "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xd1\x80\xd1\x83\xd1\x81\xd1\x81\xd0\xba\xd0\xb8"
        "\xd0\xb9 \xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7",
        "\xf0\x9f\x99\x82 for (i = 0; i < n; i++) x[i] *= 2; /* code */",
    };
    checks->subject = "tokenizer";
    int64_t wrong = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        icae_text back = {0};
        icae_status status = icae_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), false,
                                                   &ids, &n, error);
        if (!status) status = icae_tokenizer_decode(tokenizer, ids, n, false, &back, error);
        if (!status && strcmp(icae_text_string(&back), texts[i]) != 0) wrong++;
        free(ids);
        icae_text_release(&back);
        if (status) return status;
    }
    icae_check_report(checks, "round trip", (double)wrong, 0, "texts into ids and back");
    return ICAE_OK;
}
