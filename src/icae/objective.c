/* SPDX-License-Identifier: MIT */
/*
 * Contexts -> slots -> loss; the formulas stand in icae/objective.h and icae/layout.h.
 *
 * Both passes are built the same way: a plan of rows (which source, which row of it), positions and
 * sequence starts, filled sequence by sequence, then handed to icae_rows and icae_model_forward. All
 * of it lives in the graph's arena, because a checkpointed block reads its pack again in backward.
 */
#include <assert.h>
#include <math.h>

#include "icae/objective.h"
#include "icae/rng.h"

/* The sources of input rows, in this order. */
enum { FROM_BASE, FROM_MEMORY, FROM_SLOTS };

typedef struct plan {
    icae_pack pack;
    int64_t *starts;
    int32_t *positions;
    uint64_t *keys;
    int32_t *which, *rows; /* source and row of every input row */
} plan;

static plan *plan_create(icae_graph *graph, int64_t n_sequences, int64_t n_tokens) {
    plan *p = icae_graph_arena(graph, sizeof *p);
    if (!p) return NULL;
    size_t T = (size_t)n_tokens;
    p->starts = icae_graph_arena(graph, ((size_t)n_sequences + 1) * sizeof *p->starts);
    p->positions = icae_graph_arena(graph, T * sizeof *p->positions);
    p->keys = icae_graph_arena(graph, T * sizeof *p->keys);
    p->which = icae_graph_arena(graph, T * sizeof *p->which);
    p->rows = icae_graph_arena(graph, T * sizeof *p->rows);
    if (!p->starts || !p->positions || !p->keys || !p->which || !p->rows) return NULL;
    p->pack = (icae_pack){n_sequences, n_tokens, p->starts, p->positions, p->keys};
    return p;
}

static void put_ids(plan *p, int64_t *at, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++, ++*at) {
        p->which[*at] = FROM_BASE;
        p->rows[*at] = ids[i];
    }
}

static void put_range(plan *p, int64_t *at, int source, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++, ++*at) {
        p->which[*at] = source;
        p->rows[*at] = (int32_t)(first + i);
    }
}

/* Which mean goes to which memory row: slot j of span s to row starts[s+1] - k + j. */
typedef struct pooling {
    int64_t n;
    int64_t *starts;
    int32_t *rows, *to;
} pooling;

static icae_tensor *run_plan(icae_graph *graph, const icae_model *model, const plan *p,
                             int n_others, icae_tensor *const *others, const pooling *means,
                             const icae_forward *settings) {
    icae_forward *options = icae_graph_arena(graph, sizeof *options);
    if (!options) return NULL;
    *options = *settings;
    options->pack = &p->pack;
    icae_tensor *x =
        icae_model_inputs(graph, model, n_others, others, p->pack.n_tokens, p->which, p->rows);
    if (means && means->n) {
        x = icae_add_means(graph, x, (icae_tensor *)(uintptr_t)&model->embedding,
                           (icae_real)model->config.embedding_scale, means->n, means->starts,
                           means->rows, means->to);
    }
    icae_tensor *h = icae_model_forward(graph, model, x, options);
    icae_done(graph, x);
    return h;
}

/* ---- encoder ---- */

static int64_t spans_of(const icae_adapter *adapter, int64_t n) {
    return icae_span_count(n, adapter->settings.memory_slots,
                           adapter->settings.compression_rate);
}

/* One span as sequence `index` of the plan: its tokens, then the memory tokens. */
static void plan_span(plan *p, int64_t index, const icae_adapter *adapter, const int32_t *ids,
                      int64_t n, uint64_t key) {
    int64_t k = adapter->settings.memory_slots, start = p->starts[index], at = start;
    put_ids(p, &at, ids, n);
    put_range(p, &at, FROM_MEMORY, 0, k);
    icae_encoder_positions(adapter->settings.layout, n, k, p->positions + start);
    for (int64_t i = start; i < at; i++)
        p->keys[i] = icae_mix64(key, (uint64_t)(i - start));
    p->starts[index + 1] = at;
}

static bool pool_memory(icae_graph *graph, const plan *p, int64_t k, pooling *out) {
    int64_t n_spans = p->pack.n_sequences, n_rows = 0, first, end;
    for (int64_t s = 0; s < n_spans; s++) {
        for (int64_t j = 0; j < k; j++) {
            icae_slot_share(j, p->starts[s + 1] - p->starts[s] - k, k, &first, &end);
            n_rows += end - first;
        }
    }
    *out = (pooling){
        .n = n_spans * k,
        .starts = icae_graph_arena(graph, ((size_t)(n_spans * k) + 1) * sizeof *out->starts),
        .rows = icae_graph_arena(graph, (size_t)n_rows * sizeof *out->rows),
        .to = icae_graph_arena(graph, (size_t)(n_spans * k) * sizeof *out->to)};
    if (!out->starts || !out->rows || !out->to) return false;
    int64_t mean = 0, at = 0;
    for (int64_t s = 0; s < n_spans; s++) {
        int64_t n = p->starts[s + 1] - p->starts[s] - k;
        for (int64_t j = 0; j < k; j++) {
            icae_slot_share(j, n, k, &first, &end);
            out->starts[mean] = at;
            out->to[mean++] = (int32_t)(p->starts[s] + n + j);
            for (int64_t t = first; t < end; t++)
                out->rows[at++] = p->rows[p->starts[s] + t];
        }
    }
    out->starts[mean] = at;
    return true;
}

/* Every slot with the root mean square of the base's embeddings. Backward reads the weight again, so it
 * lives until the step is over. */
static icae_tensor *scale_slots(icae_graph *graph, const icae_model *model,
                                icae_tensor *slots) {
    const int64_t D = model->config.width;
    icae_real *list = icae_graph_arena(graph, (size_t)D * sizeof *list);
    if (!list) return NULL;
    double mean = model->embedding_mean, deviation = model->embedding_deviation;
    for (int64_t d = 0; d < D; d++)
        list[d] = (icae_real)sqrt(mean * mean + deviation * deviation);
    icae_tensor *weight = icae_constant(graph, 1, &D, list);
    icae_tensor *scaled = weight ? icae_rmsnorm(graph, slots, weight, (icae_real)1e-6) : NULL;
    icae_done(graph, slots);
    return scaled;
}

/* The means that went to memory rows, now to slots: mean i belongs to slot i. */
static icae_tensor *add_to_slots(icae_graph *graph, const icae_model *model, icae_tensor *slots,
                                 const pooling *means) {
    int32_t *to = icae_graph_arena(graph, (size_t)means->n * sizeof *to);
    for (int64_t i = 0; to && i < means->n; i++)
        to[i] = (int32_t)i;
    icae_tensor *table = (icae_tensor *)(uintptr_t)&model->embedding;
    return to ? icae_add_means(graph, slots, table, (icae_real)model->config.embedding_scale,
                               means->n, means->starts, means->rows, to)
              : NULL;
}

icae_tensor *icae_encode(icae_graph *graph, const icae_model *model,
                         const icae_adapter *adapter, const icae_context *contexts,
                         int64_t n_contexts, const icae_run *run, int64_t *first_rows) {
    int64_t k = adapter->settings.memory_slots, n_spans = 0, n_tokens = 0;
    for (int64_t c = 0; c < n_contexts; c++) {
        if (!icae_graph_expect(graph, contexts[c].n > 0, "context %lld is empty",
                               (long long)c)) {
            return NULL;
        }
        first_rows[c] = n_spans * k;
        n_spans += spans_of(adapter, contexts[c].n);
        n_tokens += contexts[c].n;
    }
    first_rows[n_contexts] = n_spans * k;
    plan *p = plan_create(graph, n_spans, n_tokens + n_spans * k);
    int32_t *slot_rows = icae_graph_arena(graph, (size_t)(n_spans * k) * sizeof *slot_rows);
    if (!p || !slot_rows) return NULL;
    int64_t index = 0;
    for (int64_t c = 0; c < n_contexts; c++) {
        int64_t count = spans_of(adapter, contexts[c].n), offset = 0;
        for (int64_t s = 0; s < count; s++, index++) {
            int64_t n = icae_span_length(contexts[c].n, count, s);
            plan_span(p, index, adapter, contexts[c].ids + offset, n,
                      icae_mix64(contexts[c].key, (uint64_t)s));
            for (int64_t j = 0; j < k; j++) {
                slot_rows[index * k + j] = (int32_t)(p->starts[index] + n + j);
            }
            offset += n;
        }
        assert(offset == contexts[c].n);
    }
    icae_forward options = {.lora = &adapter->lora,
                            .dropout_seed = run->seed,
                            .is_training = run->is_training,
                            .is_checkpointed = run->is_checkpointed};
    bool inputs_pool = adapter->settings.memory_inputs == ICAE_MEMORY_INPUTS_POOLED;
    bool slots_pool = adapter->settings.slot_values == ICAE_SLOT_VALUES_RESIDUAL;
    pooling means = {0};
    if ((inputs_pool || slots_pool) && !pool_memory(graph, p, k, &means)) return NULL;
    icae_tensor *h =
        run_plan(graph, model, p, 1, &adapter->memory, inputs_pool ? &means : NULL, &options);
    icae_tensor *slots = h ? icae_rows(graph, 1, &h, n_spans * k, NULL, slot_rows) : NULL;
    icae_done(graph, h);
    if (slots && adapter->settings.slot_values != ICAE_SLOT_VALUES_HIDDEN)
        slots = scale_slots(graph, model, slots);
    if (slots && slots_pool) slots = add_to_slots(graph, model, slots, &means);
    return slots;
}

/* ---- decoder ---- */

int64_t icae_job_bearing(const icae_job *job) {
    return job->n_target > job->skip ? job->n_target - job->skip : 0;
}

/* Rows of a job's decoder sequence. The last target is predicted but never read. */
static int64_t job_tokens(const icae_adapter *adapter, const icae_batch *batch,
                          const icae_job *job) {
    int64_t slots =
        spans_of(adapter, batch->contexts[job->context].n) * adapter->settings.memory_slots;
    return job->n_prefix + slots + icae_adapter_task_tokens(&adapter->settings, job->task) +
           job->n_prompt + job->n_target - 1;
}

static icae_status plan_job(icae_graph *graph, plan *p, int64_t index,
                            const icae_adapter *adapter, const icae_batch *batch,
                            const int64_t *first_rows) {
    const icae_job *job = &batch->jobs[index];
    const icae_context *context = &batch->contexts[job->context];
    int64_t k = adapter->settings.memory_slots, n_spans = spans_of(adapter, context->n);
    int64_t start = p->starts[index], at = start;
    put_ids(p, &at, job->prefix, job->n_prefix);
    put_range(p, &at, FROM_SLOTS, first_rows[job->context], n_spans * k);
    int64_t n_task = icae_adapter_task_tokens(&adapter->settings, job->task);
    if (n_task > 0) put_range(p, &at, FROM_MEMORY, k + (int64_t)job->task, 1);
    put_ids(p, &at, job->prompt, job->n_prompt);
    if (n_task > 1) put_range(p, &at, FROM_MEMORY, k + (int64_t)job->task, 1);
    put_ids(p, &at, job->target, job->n_target - 1);
    int32_t *lengths = icae_graph_arena(graph, (size_t)n_spans * sizeof *lengths);
    if (!lengths) return ICAE_MEMORY;
    for (int64_t s = 0; s < n_spans; s++) {
        lengths[s] = (int32_t)icae_span_length(context->n, n_spans, s);
    }
    icae_decoder_positions(adapter->settings.layout, job->task, job->n_prefix, n_spans, lengths,
                           NULL, k, n_task + job->n_prompt + job->n_target - 1,
                           p->positions + start);
    p->starts[index + 1] = at;
    return ICAE_OK;
}

/* Which rows of the decoder's result predict a bearing target, the targets, and their weights. */
typedef struct loss_rows {
    int64_t n;
    int32_t *rows, *targets;
    icae_real *coefs, *nll;
} loss_rows;

static loss_rows *collect_loss_rows(icae_graph *graph, const plan *p, const icae_batch *batch) {
    loss_rows *list = icae_graph_arena(graph, sizeof *list);
    if (!list) return NULL;
    for (int64_t j = 0; j < batch->n_jobs; j++)
        list->n += icae_job_bearing(&batch->jobs[j]);
    size_t n = (size_t)list->n;
    list->rows = icae_graph_arena(graph, n * sizeof *list->rows);
    list->targets = icae_graph_arena(graph, n * sizeof *list->targets);
    list->coefs = icae_graph_arena(graph, n * sizeof *list->coefs);
    list->nll = icae_graph_arena(graph, n * sizeof *list->nll);
    if (!list->rows || !list->targets || !list->coefs || !list->nll) return NULL;
    int64_t i = 0;
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        const icae_job *job = &batch->jobs[j];
        int64_t first = p->starts[j + 1] - job->n_target; /* the row that predicts target 0 */
        for (int64_t t = job->skip; t < job->n_target; t++, i++) {
            list->rows[i] = (int32_t)(first + t);
            list->targets[i] = job->target[t];
            list->coefs[i] = job->coef;
        }
    }
    return list;
}

static bool jobs_are_sound(icae_graph *graph, const icae_batch *batch) {
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        const icae_job *job = &batch->jobs[j];
        if (!icae_graph_expect(graph,
                               job->context >= 0 && job->context < batch->n_contexts &&
                                   job->n_target > 0 && job->skip >= 0,
                               "job %lld: context %lld of %lld, %lld targets", (long long)j,
                               (long long)job->context, (long long)batch->n_contexts,
                               (long long)job->n_target)) {
            return false;
        }
    }
    return true;
}

/* Checks the jobs, and makes room where they are of other sizes than those before. */
static bool begin_batch(icae_graph *graph, const icae_adapter *adapter,
                        const icae_batch *batch) {
    if (!jobs_are_sound(graph, batch)) return false;
    icae_batch_size size = icae_batch_measure(adapter, batch);
    icae_graph_resize(graph,
                      icae_mix64((uint64_t)size.encoder_tokens, (uint64_t)size.decoder_tokens));
    return true;
}

static icae_tensor *decode_loss(icae_graph *graph, const icae_model *model,
                                const icae_adapter *adapter, const icae_batch *batch,
                                icae_tensor *slots, const int64_t *first_rows,
                                const icae_run *run, double *job_nll, icae_real *token_nll) {
    int64_t n_tokens = 0;
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        n_tokens += job_tokens(adapter, batch, &batch->jobs[j]);
    }
    plan *p = plan_create(graph, batch->n_jobs, n_tokens);
    for (int64_t j = 0; p && j < batch->n_jobs; j++) {
        if (plan_job(graph, p, j, adapter, batch, first_rows)) return NULL;
    }
    loss_rows *list = p ? collect_loss_rows(graph, p, batch) : NULL;
    if (!list || !slots) return NULL;
    icae_tensor *others[] = {adapter->memory, slots};
    icae_forward options = {.is_checkpointed =
                                run->is_checkpointed}; /* the frozen base alone */
    icae_tensor *h = run_plan(graph, model, p, 2, others, NULL, &options);
    icae_tensor *bearing = h ? icae_rows(graph, 1, &h, list->n, NULL, list->rows) : NULL;
    icae_done(graph, h);
    icae_tensor *loss =
        icae_linear_cross_entropy(graph, bearing, (icae_tensor *)(uintptr_t)&model->head,
                                  list->targets, list->coefs, list->nll);
    icae_done(graph, bearing);
    if (!loss) return NULL;
    int64_t i = 0;
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        double sum = 0;
        for (int64_t t = 0; t < icae_job_bearing(&batch->jobs[j]); t++, i++) {
            sum += (double)list->nll[i];
            if (token_nll) token_nll[i] = list->nll[i];
        }
        if (job_nll) job_nll[j] = sum;
    }
    return loss;
}

icae_tensor *icae_decode_loss(icae_graph *graph, const icae_model *model,
                              const icae_adapter *adapter, const icae_batch *batch,
                              icae_tensor *slots, const int64_t *first_rows,
                              const icae_run *run, double *job_nll, icae_real *token_nll) {
    if (!begin_batch(graph, adapter, batch)) return NULL;
    return decode_loss(graph, model, adapter, batch, slots, first_rows, run, job_nll,
                       token_nll);
}

icae_tensor *icae_batch_loss(icae_graph *graph, const icae_model *model,
                             const icae_adapter *adapter, const icae_batch *batch,
                             const icae_run *run, double *job_nll, icae_real *token_nll) {
    int64_t *first_rows =
        icae_graph_arena(graph, ((size_t)batch->n_contexts + 1) * sizeof *first_rows);
    if (!first_rows) return NULL;
    if (!begin_batch(graph, adapter, batch)) return NULL;
    icae_tensor *slots =
        icae_encode(graph, model, adapter, batch->contexts, batch->n_contexts, run, first_rows);
    if (!slots) return NULL;
    icae_tensor *loss =
        decode_loss(graph, model, adapter, batch, slots, first_rows, run, job_nll, token_nll);
    icae_done(graph, slots);
    return loss;
}

icae_batch_size icae_batch_measure(const icae_adapter *adapter, const icae_batch *batch) {
    icae_batch_size size = {0};
    int64_t k = adapter->settings.memory_slots;
    for (int64_t c = 0; c < batch->n_contexts; c++) {
        int64_t n = batch->contexts[c].n, count = spans_of(adapter, n);
        size.context_tokens += n;
        size.encoder_tokens += n + count * k;
        for (int64_t s = 0; s < count; s++) {
            double length = (double)(icae_span_length(n, count, s) + k);
            size.attention_products += length * length / 2;
        }
    }
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        double length = (double)job_tokens(adapter, batch, &batch->jobs[j]);
        size.decoder_tokens += (int64_t)length;
        size.targets += icae_job_bearing(&batch->jobs[j]);
        size.attention_products += length * length / 2;
    }
    return size;
}
