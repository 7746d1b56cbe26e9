/* SPDX-License-Identifier: MIT */
/* Work and memory of a step, from shapes alone; the formulas stand in icae/plan.h. */
#include <stdlib.h>

#include "icae/plan.h"

/* ---- work ---- */

static int64_t lora_parameters(const icae_model *model, const icae_adapter *adapter) {
    const icae_adapter_settings *settings = &adapter->settings;
    int64_t sum = 0;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (!settings->targets[m]) continue;
        sum += settings->rank * (icae_module_rows(&model->config, (icae_module)m) +
                                 icae_module_cols(&model->config, (icae_module)m));
    }
    return sum * model->config.layers;
}

double icae_useful_work(const icae_model *model, const icae_adapter *adapter,
                        const icae_batch_size *size) {
    const icae_model_config *c = &model->config;
    double tokens = (double)(size->encoder_tokens + size->decoder_tokens);
    double linear = 4 * tokens * icae_model_linear_parameters(c);
    double head = 4.0 * (double)size->targets * (double)c->vocabulary * (double)c->width;
    /* 4 FLOP per product of a score: q k and p v; backward twice that */
    double attention = 12.0 * size->attention_products * (double)(c->heads * c->head_width) *
                       (double)c->layers;
    double lora = 6.0 * (double)size->encoder_tokens * (double)lora_parameters(model, adapter);
    return linear + head + attention + lora;
}

/* ---- memory ---- */

/* Bytes of a buffer. The pool rounds sizes up, but pages that nobody writes to take no memory. */
static size_t bytes_of(double numbers) {
    return (size_t)numbers * sizeof(icae_real);
}

/* Of values that backward reads again: kept in bfloat16 where that is what is computed in. */
static size_t kept_bytes(icae_compute compute, double numbers) {
    return compute == ICAE_COMPUTE_BF16 ? (size_t)numbers * sizeof(uint16_t)
                                        : bytes_of(numbers);
}

/* What one block keeps for T tokens; with_lora: whether it is the encoder's. */
static size_t block_bytes(const icae_model_config *c, const icae_adapter_settings *s, int64_t T,
                          bool with_lora, icae_compute compute) {
    double t = (double)T;
    double D = (double)c->width, F = (double)c->feed_forward;
    double q = (double)(c->heads * c->head_width), k = (double)(c->kv_heads * c->head_width);
    const bool *lora = s->targets;
    size_t sum =
        2 * (kept_bytes(compute, t * D) + bytes_of(t)); /* rmsnorm twice: x or a, and 1/rms */
    sum += 2 * kept_bytes(compute, t * q) +
           2 * kept_bytes(compute, t * k); /* attention: q, result, k, v */
    sum += bytes_of(t * (double)c->heads); /* log-sum-exp */
    sum += 2 * kept_bytes(compute, t * F); /* the activation: gate, up */
    if (c->has_result_norms) sum += 2 * (kept_bytes(compute, t * D) + bytes_of(t));
    if (!with_lora) return sum;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (lora[m]) sum += kept_bytes(compute, t * (double)s->rank);
    }
    bool reads_n = lora[ICAE_MODULE_Q] || lora[ICAE_MODULE_K] || lora[ICAE_MODULE_V];
    bool reads_m = lora[ICAE_MODULE_GATE] || lora[ICAE_MODULE_UP];
    if (reads_n) sum += kept_bytes(compute, t * D);
    if (reads_m) sum += kept_bytes(compute, t * D);
    if (lora[ICAE_MODULE_DOWN]) sum += kept_bytes(compute, t * F);
    return sum;
}

/* What one side keeps until its backward. */
static size_t side_bytes(const icae_model_config *c, const icae_adapter_settings *s, int64_t T,
                         bool with_lora, bool is_checkpointed, icae_compute compute) {
    double t = (double)T, D = (double)c->width;
    size_t rest = bytes_of(t * (double)c->head_width) + bytes_of(t * D) + bytes_of(t);
    size_t per_block =
        is_checkpointed ? bytes_of(t * D) : block_bytes(c, s, T, with_lora, compute);
    return rest + (size_t)c->layers * per_block;
}

size_t icae_predict_activations(const icae_model *model, const icae_adapter *adapter,
                                const icae_batch_size *size, bool is_checkpointed,
                                icae_compute compute) {
    const icae_model_config *c = &model->config;
    const icae_adapter_settings *s = &adapter->settings;
    double n = (double)size->targets, D = (double)c->width, V = (double)c->vocabulary;
    double td = (double)size->decoder_tokens, F = (double)c->feed_forward;
    size_t kept = side_bytes(c, s, size->encoder_tokens, true, is_checkpointed, compute) +
                  side_bytes(c, s, size->decoder_tokens, false, is_checkpointed, compute);
    kept += 2 * bytes_of(n * D); /* rows with a loss, and their gradient */
    /* The head's chunk of logits (see op_cross_entropy.c), or the gradients inside a block. */
    double chunk = (double)(64 << 20) / (V * (double)sizeof(icae_real));
    size_t logits = bytes_of((chunk < n ? chunk : n) * V);
    size_t gradients = 2 * bytes_of(td * D) + 3 * bytes_of(td * F);
    if (compute == ICAE_COMPUTE_BF16) { /* the rounded rows of the product that is being made */
        logits += sizeof(uint16_t) * (size_t)((chunk < n ? chunk : n) * V);
        gradients += sizeof(uint16_t) * (size_t)(td * F);
    }
    if (is_checkpointed) {
        gradients += block_bytes(c, s, size->decoder_tokens, false, compute);
        /* The encoder's block is the larger one, but the decoder's inputs are gone by then. */
        double te = (double)size->encoder_tokens;
        size_t late = block_bytes(c, s, size->encoder_tokens, true, compute) +
                      2 * bytes_of(te * D) + 3 * bytes_of(te * F);
        size_t freed = (size_t)c->layers * bytes_of(td * D);
        if (late > freed && late - freed > gradients) gradients = late - freed;
    }
    return kept + (logits > gradients ? logits : gradients);
}

/* ---- the whole plan ---- */

/* A batch of n samples as long as the limits allow, for its lengths only; contexts and jobs have
 * room for n and 2n. */
static void fill_longest(const icae_settings *settings, int64_t n, icae_context *contexts,
                         icae_job *jobs, icae_batch *batch) {
    int64_t C = icae_settings_context(settings), O = icae_settings_continuation(settings);
    bool is_both = settings->objective.kind == ICAE_OBJECTIVE_BOTH;
    bool is_instruct = settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    /* A mixed batch can be all of the kind that costs more; the task token stands before both. */
    bool is_lm = settings->objective.kind == ICAE_OBJECTIVE_MIXED &&
                 settings->objective.lm_ratio > 0 && O > C;
    *batch = (icae_batch){.contexts = contexts, .n_contexts = n, .jobs = jobs};
    for (int64_t i = 0; i < n; i++) {
        contexts[i] = (icae_context){.n = C};
        icae_job *job = &jobs[batch->n_jobs++];
        *job = (icae_job){.context = i, .task = ICAE_TASK_AE, .n_target = C + 1};
        if (is_lm) {
            job->task = ICAE_TASK_LM;
            job->n_target = O;
            job->skip = settings->objective.skip_for_lm;
        }
        if (is_instruct) {
            job->task = ICAE_TASK_FT;
            job->n_prompt = settings->objective.prompt_tokens;
            job->n_target = settings->objective.answer_tokens + 1;
        }
        if (is_both) {
            jobs[batch->n_jobs++] = (icae_job){.context = i,
                                               .task = ICAE_TASK_LM,
                                               .n_target = O,
                                               .skip = settings->objective.skip_for_lm};
        }
    }
}

icae_status icae_plan_make(icae_plan *plan, const icae_settings *settings,
                           const icae_model *model, const icae_adapter *adapter,
                           icae_error *error) {
    int64_t n = settings->train.batch, micro = settings->train.micro_batch;
    if (!micro || micro > n) micro = n;
    icae_context *contexts = calloc((size_t)n, sizeof *contexts);
    icae_job *jobs = calloc((size_t)n * 2, sizeof *jobs);
    if (!contexts || !jobs) {
        free(contexts);
        free(jobs);
        return icae_fail_memory(error, "the plan of a step");
    }
    icae_batch batch;
    fill_longest(settings, n, contexts, jobs, &batch);
    *plan = (icae_plan){.frozen = model->n_parameters, .trained = adapter->params.count};
    plan->step = icae_batch_measure(adapter, &batch);
    fill_longest(settings, micro, contexts, jobs, &batch);
    plan->forward = icae_batch_measure(adapter, &batch);
    free(contexts);
    free(jobs);
    plan->work = icae_useful_work(model, adapter, &plan->step);
    plan->weight_bytes = model->weight_bytes;
    plan->trained_bytes = 4 * (size_t)plan->trained * sizeof(icae_real);
    plan->activation_bytes =
        icae_predict_activations(model, adapter, &plan->forward, settings->train.checkpointing,
                                 (icae_compute)settings->train.compute);
    static const size_t program = 96u
                                  << 20; /* libraries, tokenizer, kernel scratch: measured */
    plan->peak_bytes =
        plan->weight_bytes + plan->trained_bytes + plan->activation_bytes + program;
    return ICAE_OK;
}
