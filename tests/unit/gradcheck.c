/* SPDX-License-Identifier: MIT */
/* Gradients against central differences; see gradcheck.h. */
#include "gradcheck.h"

#include <math.h>
#include <string.h>

#include "icae/half.h"
#include "icae/rng.h"
#include "suites.h"

/* In double the differences are good to about 1e-11 of the loss, so 1e-6 of an entry holds down to
 * entries a thousandth of the largest; what they leave out grows with the fourth power of h, and
 * two blocks bend sharply enough to show it from h = 1e-3 on. In float the loss carries 1e-7 of
 * itself, and h is large to keep that from drowning the difference: single small entries say
 * little there. */
#if ICAE_REAL_IS_DOUBLE
const grad_limit grad_limit_of_build = {.relative = 1e-6, .floor = 1e-3};
static const double step = 2e-4;
#else
const grad_limit grad_limit_of_build = {.relative = 5e-3, .floor = 1};
static const double step = 1e-2;
#endif

enum { HEAD_ROWS = 7 }; /* classes of the closing cross-entropy */

static void *allocate(grad_check *check, int64_t count, size_t each) {
    void *memory = icae_arena_array(&check->arena, (size_t)count, each);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* ---- inputs ---- */

/* A stored block of random bits whose f16 scales are of ordinary size. */
static void fill_blocks(icae_dtype dtype, int64_t count, unsigned char *bytes, icae_rng *rng) {
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    for (int64_t i = 0; i < count; i += info->block_values, bytes += info->block_bytes) {
        for (size_t b = 0; b < info->block_bytes; b++)
            bytes[b] = (unsigned char)icae_rng_below(rng, 256);
        /* Blocks of 256 multiply their scale by others of up to 63, and their offset too. */
        bool is_large = info->block_values > 32;
        float scale = dtype == ICAE_DTYPE_Q8_0 ? 0.004f : is_large ? 0.001f : 0.06f;
        uint16_t halves[2] = {icae_f32_to_f16(scale),
                              icae_f32_to_f16(is_large ? 0.01f : -0.4f)};
        size_t offsets[2];
        int n_halves = icae_dtype_halves(dtype, offsets);
        for (int h = 0; h < n_halves; h++)
            memcpy(bytes + offsets[h], &halves[h], sizeof halves[h]);
    }
}

static void fill(icae_dtype dtype, int64_t count, void *stored, icae_rng *rng) {
    if (icae_dtype_describe(dtype)->block_values > 1) {
        fill_blocks(dtype, count, stored, rng);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        double value = 0.5 * icae_rng_normal(rng);
        float narrow = (float)value;
        uint16_t half =
            dtype == ICAE_DTYPE_F16 ? icae_f32_to_f16(narrow) : icae_f32_to_bf16(narrow);
        if (dtype == ICAE_DTYPE_F64)
            memcpy((double *)stored + i, &value, sizeof value);
        else if (dtype == ICAE_DTYPE_F32)
            memcpy((float *)stored + i, &narrow, sizeof narrow);
        else
            memcpy((uint16_t *)stored + i, &half, sizeof half);
    }
}

static bool wants_gradient(const grad_input *input) {
    return input->kind == GRAD_VARIABLE || input->kind == GRAD_PARAMETER;
}

static icae_dtype stored_type(const grad_input *input) {
    return input->kind == GRAD_FROZEN ? input->stored : ICAE_DTYPE_REAL;
}

void grad_open(grad_check *check, const grad_case *what) {
    *check = (grad_check){.what = what};
    for (int i = 0; i < GRAD_INPUTS; i++) {
        const grad_input *input = &what->inputs[i];
        grad_values *values = &check->inputs[i];
        if (input->kind == GRAD_NONE) continue;
        values->count = 1;
        for (int d = 0; d < input->rank; d++)
            values->count *= input->shape[d];
        icae_dtype dtype = stored_type(input);
        ck_assert(icae_dtype_bytes(dtype, values->count, &values->stored_bytes));
        values->stored = allocate(check, 1, values->stored_bytes);
        icae_rng rng = {.seed = 11, .stream = (uint64_t)i};
        fill(dtype, values->count, values->stored, &rng);
        if (!wants_gradient(input)) continue;
        values->gradient = allocate(check, values->count, sizeof *values->gradient);
        values->numeric = allocate(check, values->count, sizeof *values->numeric);
    }
}

void grad_close(grad_check *check) {
    icae_arena_release(&check->arena);
}

/* ---- one run ---- */

/* The tensors of a run; the closing head among them. */
typedef struct grad_tensors {
    icae_tensor leaves[GRAD_INPUTS + 1];
    icae_tensor *in[GRAD_INPUTS];
} grad_tensors;

static void make_inputs(grad_check *check, icae_graph *graph, grad_tensors *tensors) {
    for (int i = 0; i < GRAD_INPUTS; i++) {
        const grad_input *input = &check->what->inputs[i];
        const grad_values *values = &check->inputs[i];
        icae_tensor *leaf = &tensors->leaves[i];
        if (input->kind == GRAD_NONE) continue;
        if (input->kind == GRAD_VARIABLE) {
            tensors->in[i] = icae_variable(graph, input->rank, input->shape, values->stored);
        } else if (input->kind == GRAD_CONSTANT) {
            tensors->in[i] = icae_constant(graph, input->rank, input->shape, values->stored);
        } else {
            *leaf = icae_leaf(stored_type(input), input->rank, input->shape, values->stored,
                              values->gradient);
            tensors->in[i] = leaf;
        }
        ck_assert_ptr_nonnull(tensors->in[i]);
    }
}

static icae_tensor *close_with_loss(grad_check *check, icae_graph *graph, icae_tensor *y,
                                    icae_tensor *head_leaf) {
    if (!y || y->rank == 1) return y;
    ck_assert_int_eq(y->rank, 2);
    int64_t n = y->shape[0], D = y->shape[1], shape[2] = {HEAD_ROWS, D};
    if (!check->head) {
        check->head = allocate(check, HEAD_ROWS * D, sizeof *check->head);
        check->coefs = allocate(check, n, sizeof *check->coefs);
        check->targets = allocate(check, n, sizeof *check->targets);
        icae_rng rng = {.seed = 12};
        fill(ICAE_DTYPE_REAL, HEAD_ROWS * D, check->head, &rng);
        for (int64_t i = 0; i < n; i++) {
            check->coefs[i] = (icae_real)(icae_rng_uniform(&rng) + 0.5);
            check->targets[i] = (int32_t)icae_rng_below(&rng, HEAD_ROWS);
        }
    }
    *head_leaf = icae_leaf(ICAE_DTYPE_REAL, 2, shape, check->head, NULL);
    return icae_linear_cross_entropy(graph, y, head_leaf, check->targets, check->coefs, NULL);
}

/* Builds the case in a graph that has begun and returns its scalar. */
static icae_tensor *run_forward(grad_check *check, icae_graph *graph, grad_tensors *tensors,
                                double *loss) {
    *tensors = (grad_tensors){0};
    make_inputs(check, graph, tensors);
    icae_tensor *y = check->what->build(graph, tensors->in, check->what->setting);
    icae_tensor *scalar = close_with_loss(check, graph, y, &tensors->leaves[GRAD_INPUTS]);
    icae_error error = {0};
    icae_graph_status(graph, &error);
    ck_assert_msg(scalar != NULL, "%s: %s", check->what->name, error.message);
    icae_real value;
    icae_tensor_read(graph, scalar, &value);
    *loss = (double)value;
    return scalar;
}

static uint64_t hash_of_frozen(const grad_check *check) {
    uint64_t hash = 0;
    for (int i = 0; i < GRAD_INPUTS; i++) {
        const grad_values *values = &check->inputs[i];
        if (check->what->inputs[i].kind == GRAD_FROZEN)
            hash = icae_hash64(values->stored, values->stored_bytes, hash);
    }
    return hash;
}

void grad_analytic(grad_check *check, const char *level) {
    icae_error error = {0};
    icae_backend *backend = NULL;
    icae_graph *graph = NULL;
    ck_ok(icae_backend_create(&backend, level, 2, &error));
    ck_ok(icae_graph_create(&graph, backend, &error));
    uint64_t frozen = hash_of_frozen(check);
    for (int i = 0; i < GRAD_INPUTS; i++) {
        grad_values *values = &check->inputs[i];
        if (values->gradient)
            memset(values->gradient, 0, (size_t)values->count * sizeof *values->gradient);
    }
    grad_tensors tensors;
    icae_graph_begin(graph, true, false);
    icae_tensor *loss = run_forward(check, graph, &tensors, &check->loss);
    check->nodes = icae_graph_nodes(graph);
    ck_ok(icae_graph_backward(graph, loss, &error));
    for (int i = 0; i < GRAD_INPUTS; i++) {
        if (check->what->inputs[i].kind == GRAD_VARIABLE)
            icae_tensor_read_gradient(graph, tensors.in[i], check->inputs[i].gradient);
    }
    ck_assert_uint_eq(hash_of_frozen(check), frozen);
    icae_graph_begin(graph, false, false);
    ck_assert_uint_eq(icae_pool_buffers_out(backend->pool), 0);
    icae_graph_free(graph);
    icae_backend_free(backend);
}

/* f with one value of one input moved. */
static double moved(grad_check *check, icae_graph *graph, icae_real *value, double by) {
    icae_real before = *value;
    *value = (icae_real)((double)before + by);
    grad_tensors tensors;
    double loss;
    icae_graph_begin(graph, false, false);
    run_forward(check, graph, &tensors, &loss);
    *value = before;
    return loss;
}

void grad_numeric(grad_check *check) {
    icae_error error = {0};
    icae_backend *backend = NULL;
    icae_graph *graph = NULL;
    ck_ok(icae_backend_create(&backend, "reference", 1, &error));
    ck_ok(icae_graph_create(&graph, backend, &error));
    for (int i = 0; i < GRAD_INPUTS; i++) {
        const grad_values *values = &check->inputs[i];
        icae_real *at = values->stored;
        for (int64_t j = 0; values->numeric && j < values->count; j++) {
            double near =
                moved(check, graph, at + j, step) - moved(check, graph, at + j, -step);
            double far =
                moved(check, graph, at + j, 2 * step) - moved(check, graph, at + j, -2 * step);
            values->numeric[j] = (8 * near - far) / (12 * step);
        }
    }
    grad_tensors tensors;
    icae_graph_begin(graph, false, false);
    run_forward(check, graph, &tensors, &check->numeric_loss);
    ck_assert_int_eq(icae_graph_nodes(graph), 0);
    icae_graph_free(graph);
    icae_backend_free(backend);
}

/* ---- comparison ---- */

int64_t grad_disagreement(grad_limit limit, int64_t count, const icae_real *analytic,
                          const double *numeric) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(numeric[i]));
    for (int64_t i = 0; i < count; i++) {
        double a = (double)analytic[i], n = numeric[i];
        double size = fmax(fmax(fabs(a), fabs(n)), limit.floor * largest);
        /* not (<=) rather than (>): a NaN on either side must not pass */
        if (!(fabs(a - n) <= limit.relative * size)) return i;
    }
    return -1;
}
