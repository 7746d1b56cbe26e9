/* SPDX-License-Identifier: MIT */
/*
 * A fixed piece of work for tests/bench/instructions.sh, which counts its instructions under callgrind:
 *
 *     fixed_work BASE step|decode|stored f32|bf16
 *
 * step    (measured_step)    forward, backward and AdamW of one text of 16 tokens -> 4 slots, rank 8 on q
 *                            and v; what happens only once, as the pool's first buffers, is in it
 * decode  (measured_decode)  4 tokens written one after another behind 8
 * stored  (measured_stored)  products with a quantised matrix as real bases store it, both ways and of
 *                            1 and 8 rows, as in writing
 *
 * The names in brackets are the script's handles: they have to stay functions of their own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/generate.h"
#include "icae/objective.h"
#include "icae/optimizer.h"

enum { ROWS = 48, STORED_ROWS = 256, STORED_COLS = 576 };
enum { TOKENS = 16, SLOTS = 4, RANK = 8, PROMPT = 8, WRITTEN = 4 };

typedef struct fixed_work {
    icae_model *model;
    icae_backend *be;
    icae_graph *graph;
    icae_adapter *adapter;
    int32_t ids[TOKENS + 1];
    icae_error error;
} fixed_work;

void measured_step(fixed_work *work);
void measured_decode(fixed_work *work);
void measured_stored(fixed_work *work);

static void expect(icae_status status, const fixed_work *work) {
    if (!status) return;
    fprintf(stderr, "fixed_work: %s\n", work->error.message);
    exit(1);
}

static void set_up(fixed_work *work, const char *base, icae_compute compute) {
    expect(icae_model_open(&work->model, base, &work->error), work);
    expect(icae_backend_create(&work->be, NULL, 1, &work->error), work);
    icae_backend_set_compute(work->be, compute);
    expect(icae_graph_create(&work->graph, work->be, &work->error), work);
    icae_adapter_settings settings = icae_adapter_defaults(work->model);
    settings.memory_slots = SLOTS;
    settings.rank = RANK;
    expect(icae_adapter_create(&work->adapter, work->model, &settings, 1, work->be, true,
                               &work->error),
           work);
    for (int i = 0; i <= TOKENS; i++)
        work->ids[i] = (int32_t)(100 + 37 * i % 400);
}

void measured_step(fixed_work *work) {
    icae_context context = {work->ids, TOKENS, 1};
    icae_job job = {.task = ICAE_TASK_AE,
                    .target = work->ids,
                    .n_target = TOKENS + 1,
                    .coef = (icae_real)(1.0 / (TOKENS + 1))};
    icae_batch batch = {&context, 1, &job, 1};
    icae_run run = {.is_training = true, .seed = 1};
    icae_optimizer optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip_norm = 2};
    icae_params_zero_gradients(&work->adapter->params);
    icae_graph_begin(work->graph, true, false);
    icae_tensor *loss =
        icae_batch_loss(work->graph, work->model, work->adapter, &batch, &run, NULL, NULL);
    expect(icae_graph_status(work->graph, &work->error), work);
    expect(icae_graph_backward(work->graph, loss, &work->error), work);
    icae_optimizer_step(&optimizer, &work->adapter->params, 1e-4);
}

void measured_decode(fixed_work *work) {
    icae_request request = {
        .prompt = work->ids, .n_prompt = PROMPT, .max_tokens = WRITTEN, .stop = -1};
    icae_sampling greedy = {.top_p = 1};
    icae_result result = {0};
    expect(icae_generate(work->graph, work->model, NULL, &request, 1, &greedy, NULL, NULL,
                         &result, &work->error),
           work);
    icae_results_release(&result, 1);
}

void measured_stored(fixed_work *work) {
    static const icae_dtype types[] = {ICAE_DTYPE_Q4_1, ICAE_DTYPE_Q8_0, ICAE_DTYPE_Q4_K};
    static icae_real x[ROWS * STORED_COLS], y[ROWS * STORED_COLS];
    static unsigned char bytes[STORED_ROWS * STORED_COLS * 2];
    enum { COLS_OF_K = 512 }; /* Q4_K comes in blocks of 256 */
    icae_backend *be = work->be;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37 % 61); /* small exponents: finite as halves too */
    for (int i = 0; i < ROWS * STORED_COLS; i++)
        x[i] = (icae_real)(i % 17 - 8);
    for (int t = 0; t < 3; t++) {
        int64_t K = types[t] == ICAE_DTYPE_Q4_K ? COLS_OF_K : STORED_COLS;
        icae_matrix w = icae_matrix_of(types[t], STORED_ROWS, K, bytes);
        bool is_bf16 = be->compute == ICAE_COMPUTE_BF16;
        (is_bf16 ? be->k.linear_bf16 : be->k.linear)(be, ROWS, STORED_ROWS, K, x, &w, false, y);
        (is_bf16 ? be->k.linear_bf16_dx : be->k.linear_dx)(be, ROWS, STORED_ROWS, K, x, &w,
                                                           false, y);
        for (int rows = 1; rows <= 8; rows += 7)
            (is_bf16 ? be->k.linear_few_bf16 : be->k.linear_few)(be, rows, STORED_ROWS, K, x,
                                                                 &w, false, y);
    }
}

int main(int argc, char **argv) {
    /* Called through a pointer that the compiler must read, so that it can neither inline nor clone. */
    void (*volatile function)(fixed_work *) = measured_step;
    icae_compute compute = ICAE_COMPUTE_F32;
    bool is_sound =
        argc == 4 && icae_compute_from_name(argv[3], &compute) &&
        (!strcmp(argv[2], "step") || !strcmp(argv[2], "decode") || !strcmp(argv[2], "stored"));
    if (!is_sound) {
        fprintf(stderr, "usage: fixed_work BASE step|decode|stored f32|bf16\n");
        return 2;
    }
    if (!strcmp(argv[2], "decode")) function = measured_decode;
    if (!strcmp(argv[2], "stored")) function = measured_stored;
    fixed_work work = {0};
    set_up(&work, argv[1], compute);
    function(&work);
    icae_adapter_free(work.adapter);
    icae_graph_free(work.graph);
    icae_backend_free(work.be);
    icae_model_close(work.model);
    return 0;
}
