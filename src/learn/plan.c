/* SPDX-License-Identifier: MIT */
/*
 * Work and memory of a step, from shapes alone; what is counted stands in icae/plan.h.
 *
 * Memory is a table with one row a part (measure_memory). Tensors are rehearsed, so nothing here knows what
 * an op keeps or in which type; the constants below are what remains to be measured.
 */
#include <stdlib.h>

#include "icae/chat.h"
#include "icae/plan.h"
#include "icae/rehearsal.h"

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

/* ---- the longest batch ---- */

/* Tokens that the chat template puts around a question. */
typedef struct chat_lengths {
    int64_t prefix, suffix;
} chat_lengths;

static icae_status measure_chat(const icae_model *model, const icae_adapter *adapter,
                                chat_lengths *out, icae_error *error) {
    icae_chat_ids ids;
    icae_status status = icae_chat_encode(&ids, &adapter->settings, model->tokenizer, error);
    if (status) return status;
    *out = (chat_lengths){ids.n_prefix, ids.n_suffix};
    icae_chat_release(&ids);
    return ICAE_OK;
}

/* A batch of n samples as long as the limits allow, for its lengths only; contexts and jobs have
 * room for n and 2n. */
static void fill_longest(const icae_settings *settings, icae_objective kind,
                         const chat_lengths *chat, int64_t n, icae_context *contexts,
                         icae_job *jobs, icae_batch *batch) {
    int64_t C = icae_settings_context(settings), O = icae_settings_continuation(settings);
    bool is_both = kind == ICAE_OBJECTIVE_BOTH;
    bool is_instruct = kind == ICAE_OBJECTIVE_INSTRUCT;
    /* A mixed batch can be all of the kind that costs more; the task token stands before both. */
    bool is_lm = kind == ICAE_OBJECTIVE_MIXED && settings->objective.lm_ratio > 0 && O > C;
    *batch = (icae_batch){.contexts = contexts, .n_contexts = n, .jobs = jobs};
    for (int64_t i = 0; i < n; i++) {
        contexts[i] = (icae_context){.n = C};
        if (is_instruct && settings->objective.ae_share > 0) {
            jobs[batch->n_jobs++] =
                (icae_job){.context = i, .task = ICAE_TASK_AE, .n_target = C + 1};
        }
        icae_job *job = &jobs[batch->n_jobs++];
        *job = (icae_job){.context = i, .task = ICAE_TASK_AE, .n_target = C + 1};
        if (is_lm) {
            job->task = ICAE_TASK_LM;
            job->n_target = O;
            job->skip = settings->objective.skip_for_lm;
        }
        if (is_instruct) {
            job->task = ICAE_TASK_FT;
            job->n_prefix = chat->prefix;
            job->n_prompt = settings->objective.prompt_tokens + chat->suffix;
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

/* ---- memory ---- */

const char *const icae_memory_names[] = {
#define NAME(name, what) what,
    ICAE_MEMORY_LIST(NAME)
#undef NAME
        NULL};

/* What the process takes beside everything that is counted, as measured (RSS after start, after opening a
 * base, after the first product; OpenBLAS 0.3.21 with OpenMP, glibc 2.36). */
static const size_t program_bytes = 8u << 20;     /* touched pages of libraries, first heap */
static const size_t thread_bytes = 3u << 19;      /* OpenBLAS's packed panels, stack, scratch */
static const size_t token_bytes = 130;            /* of the vocabulary: text, tables, merges */
static const size_t document_bytes = 4096;        /* a web page's text */
static const size_t most_text_bytes = 256u << 20; /* the shuffle buffer's own limit */

/* Everything that a plan is made from. */
typedef struct ground {
    const icae_settings *settings;
    const icae_backend *be;
    const icae_model *model;
    const icae_adapter *adapter;
    chat_lengths chat;
    icae_context *contexts; /* [batch] */
    icae_job *jobs;         /* [2 batch] */
} ground;

static void ground_release(ground *g) {
    free(g->contexts);
    free(g->jobs);
}

static icae_status ground_make(ground *g, const icae_settings *settings, const icae_backend *be,
                               const icae_model *model, const icae_adapter *adapter,
                               icae_error *error) {
    size_t n = (size_t)settings->train.batch;
    if (n < (size_t)settings->evaluate.samples) n = (size_t)settings->evaluate.samples;
    *g = (ground){.settings = settings,
                  .be = be,
                  .model = model,
                  .adapter = adapter,
                  .contexts = calloc(n, sizeof *g->contexts),
                  .jobs = calloc(n, 2 * sizeof *g->jobs)};
    icae_status status =
        g->contexts && g->jobs ? ICAE_OK : icae_fail_memory(error, "the plan of a step");
    if (!status && settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT)
        status = measure_chat(model, adapter, &g->chat, error);
    if (status) ground_release(g);
    return status;
}

static void longest(const ground *g, icae_objective kind, int64_t n, icae_batch *batch) {
    fill_longest(g->settings, kind, &g->chat, n, g->contexts, g->jobs, batch);
}

static int64_t larger_side(const ground *g, const icae_batch *batch) {
    icae_batch_size size = icae_batch_measure(g->adapter, batch);
    return size.encoder_tokens > size.decoder_tokens ? size.encoder_tokens
                                                     : size.decoder_tokens;
}

/* Rows of encoder or decoder that the longest sample has. */
static int64_t longest_sample(const ground *g) {
    icae_batch one;
    longest(g, (icae_objective)g->settings->objective.kind, 1, &one);
    return larger_side(g, &one);
}

/* Samples of a pass: as many as were asked for, or of the longest ones as many as fit. */
static int64_t micro_of(const ground *g) {
    int64_t n = g->settings->train.batch, micro = g->settings->train.micro_batch;
    int64_t rows = longest_sample(g);
    if (!micro) micro = icae_pass_limit(rows) / rows;
    return micro < n ? micro : n;
}

/* What n held-out samples take in a pass without gradients, both kinds of them. */
static icae_status measure_losses(const ground *g, int64_t n, icae_batch *batch, size_t *bytes,
                                  icae_error *error) {
    const icae_settings *s = g->settings;
    icae_objective kind = (icae_objective)s->objective.kind;
    if (kind == ICAE_OBJECTIVE_MIXED && s->objective.lm_ratio > 0) kind = ICAE_OBJECTIVE_BOTH;
    longest(g, kind, n, batch);
    icae_footprint footprint = {0};
    icae_status status = icae_rehearse(&footprint, g->be, g->model, g->adapter, batch,
                                       (icae_compute)s->train.compute, false, false, error);
    *bytes = footprint.resident_bytes;
    return status;
}

/* Keys and values of all passages that are restored side by side, of samples as long as the first of `batch`.
 * A cache has room for all rows of its decoder sequence and eight tokens behind the end. */
static size_t restoring_caches(const ground *g, const icae_batch *batch) {
    enum { BEHIND_END = 8 };
    const icae_settings *s = g->settings;
    const icae_model_config *c = &g->model->config;
    bool is_instruct = s->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    int64_t limit = s->evaluate.reconstruct_tokens, n = s->evaluate.reconstruct_samples;
    if (n > s->evaluate.samples) n = s->evaluate.samples;
    icae_context context = batch->contexts[0];
    icae_job job = batch->jobs[is_instruct ? batch->n_jobs - 1 : 0];
    if (!is_instruct && limit && context.n > limit) {
        context.n = limit;
        job.n_target = limit + 1;
    }
    const icae_batch one = {&context, 1, &job, 1};
    int64_t tokens = icae_batch_measure(g->adapter, &one).decoder_tokens + BEHIND_END;
    return 2 * sizeof(icae_real) *
           (size_t)(tokens * c->layers * c->kv_heads * c->head_width * n);
}

/* What an evaluation's tensors take: held-out losses, n samples at once; then, the pool emptied, the
 * caches of what is restored beside what one passage was compressed with (a held-out sample takes no less). */
static icae_status measure_evaluation(const ground *g, int64_t n, size_t *bytes,
                                      icae_error *error) {
    const icae_settings *s = g->settings;
    *bytes = 0;
    if (n > s->evaluate.samples) n = s->evaluate.samples;
    if (s->data.heldout.count == 0 || n == 0) return ICAE_OK;
    icae_batch batch;
    size_t losses = 0, restoring = 0;
    icae_status status = measure_losses(g, n, &batch, &losses, error);
    if (!status && s->evaluate.reconstruct_samples > 0) {
        status = measure_losses(g, 1, &batch, &restoring, error);
        restoring += restoring_caches(g, &batch);
    }
    *bytes = losses > restoring ? losses : restoring;
    return status;
}

/* A pass that ends by its rows may hold more contexts than the longest samples leave room for, if they are only
 * restored: few rows of the decoder for each of the encoder. 0 samples where there is no such pass. */
static int64_t restored_alone(const ground *g, int64_t micro, icae_batch *batch) {
    const icae_settings *s = g->settings;
    if (s->train.micro_batch || micro < micro_of(g)) return 0;
    int64_t C = icae_settings_context(s);
    const icae_context context = {.n = C};
    const icae_job job = {.task = ICAE_TASK_AE, .n_target = C + 1};
    const icae_batch one = {&context, 1, &job, 1};
    int64_t n = icae_pass_limit(longest_sample(g)) / larger_side(g, &one);
    if (n > s->train.batch) n = s->train.batch;
    for (int64_t i = 0; i < n; i++) {
        g->contexts[i] = context;
        g->jobs[i] = job;
        g->jobs[i].context = i;
    }
    *batch = (icae_batch){g->contexts, n, g->jobs, n};
    return n > micro ? n : 0;
}

/* Tensors of the largest pass, forward and backward. */
static icae_status measure_pass(const ground *g, int64_t micro, bool is_checkpointed,
                                icae_plan *plan, icae_footprint *step, icae_error *error) {
    const icae_settings *s = g->settings;
    const icae_compute compute = (icae_compute)s->train.compute;
    icae_batch batch;
    longest(g, (icae_objective)s->objective.kind, micro, &batch);
    plan->forward = icae_batch_measure(g->adapter, &batch);
    plan->micro_batch = micro;
    icae_status status = icae_rehearse(step, g->be, g->model, g->adapter, &batch, compute, true,
                                       is_checkpointed, error);
    if (status || !restored_alone(g, micro, &batch)) return status;
    icae_footprint other;
    status = icae_rehearse(&other, g->be, g->model, g->adapter, &batch, compute, true,
                           is_checkpointed, error);
    if (!status && other.resident_bytes > step->resident_bytes) *step = other;
    return status;
}

static icae_status measure_memory(const ground *g, int64_t micro, bool is_checkpointed,
                                  icae_plan *plan, icae_error *error) {
    const icae_settings *s = g->settings;
    icae_footprint step;
    size_t evaluation = 0;
    icae_status status = measure_pass(g, micro, is_checkpointed, plan, &step, error);
    if (!status) status = measure_evaluation(g, micro, &evaluation, error);
    if (status) return status;
    size_t trained = (size_t)plan->trained;
    size_t texts = (size_t)s->data.shuffle_documents * document_bytes;
    plan->held_bytes = step.held_bytes;
    const size_t memory[ICAE_MEMORY_COUNT] = {
        [ICAE_MEMORY_WEIGHTS] = g->model->weight_bytes,
        [ICAE_MEMORY_COPIES] = icae_arena_used(&g->model->arena),
        [ICAE_MEMORY_TOKENIZER] = (size_t)g->model->config.vocabulary * token_bytes,
        [ICAE_MEMORY_TRAINED] = 4 * trained * sizeof(icae_real),
        [ICAE_MEMORY_ACTIVATIONS] =
            step.resident_bytes > evaluation ? step.resident_bytes : evaluation,
        [ICAE_MEMORY_SAVING] = trained * sizeof(float),
        [ICAE_MEMORY_TEXTS] = texts < most_text_bytes ? texts : most_text_bytes,
        [ICAE_MEMORY_PROCESS] = program_bytes + (size_t)g->be->n_threads * thread_bytes,
    };
    plan->peak_bytes = 0;
    for (int i = 0; i < ICAE_MEMORY_COUNT; i++) {
        plan->memory[i] = memory[i];
        plan->peak_bytes += memory[i];
    }
    return ICAE_OK;
}

/* ---- the whole plan ---- */

/* Positions that the decoder of the longest sample comes to. In the layout uniform slots have those of the text,
 * which restoring has anew. */
static int64_t longest_positions(const ground *g) {
    icae_batch one;
    int64_t most = 0;
    longest(g, (icae_objective)g->settings->objective.kind, 1, &one);
    for (int64_t i = 0; i < one.n_jobs; i++) {
        const icae_job *job = &one.jobs[i];
        icae_batch alone = one;
        alone.jobs = job;
        alone.n_jobs = 1;
        int64_t n = icae_batch_measure(g->adapter, &alone).decoder_tokens;
        if (g->adapter->settings.layout == ICAE_LAYOUT_UNIFORM) {
            int64_t text = one.contexts[job->context].n;
            n = job->n_prefix + job->n_prompt + job->n_target;
            if (job->task != ICAE_TASK_AE) n += text;
        }
        if (n > most) most = n;
    }
    return most;
}

static void begin_plan(icae_plan *plan, const ground *g) {
    icae_batch batch;
    longest(g, (icae_objective)g->settings->objective.kind, g->settings->train.batch, &batch);
    *plan = (icae_plan){.frozen = g->model->n_parameters, .trained = g->adapter->params.count};
    plan->step = icae_batch_measure(g->adapter, &batch);
    plan->positions = longest_positions(g);
    plan->pass_tokens = icae_pass_limit(longest_sample(g));
    plan->work = icae_useful_work(g->model, g->adapter, &plan->step);
}

icae_status icae_plan_make(icae_plan *plan, const icae_settings *settings,
                           const icae_backend *be, const icae_model *model,
                           const icae_adapter *adapter, icae_error *error) {
    ground g;
    icae_status status = ground_make(&g, settings, be, model, adapter, error);
    if (status) return status;
    begin_plan(plan, &g);
    status = measure_memory(&g, micro_of(&g), settings->train.checkpointing, plan, error);
    ground_release(&g);
    return status;
}

/* ---- fitting a budget ---- */

/* The largest micro-batch of `least` to the whole batch that fits; 0: none does. Then *plan is that of
 * `least`. More samples never take less. */
static icae_status largest_micro(const ground *g, int64_t least, bool is_checkpointed,
                                 int64_t *micro, icae_plan *plan, icae_error *error) {
    const size_t budget = (size_t)g->settings->memory_budget;
    int64_t low = least - 1, high = micro_of(g);
    *micro = 0;
    /* The most first: it is what most runs get. */
    for (int64_t try = high; low < high; try = low + (high - low + 1) / 2) {
        icae_status status = measure_memory(g, try, is_checkpointed, plan, error);
        if (status) return status;
        if (plan->peak_bytes <= budget)
            low = *micro = try;
        else
            high = try - 1;
    }
    if (!*micro) return measure_memory(g, least, is_checkpointed, plan, error);
    if (*micro == micro_of(g)) return measure_memory(g, *micro, is_checkpointed, plan, error);
    /* As many micro-batches, of equal size: 8 as 4 + 4 and not as 5 + 3. */
    int64_t n = g->settings->train.batch, parts = (n + *micro - 1) / *micro;
    *micro = (n + parts - 1) / parts;
    return measure_memory(g, *micro, is_checkpointed, plan, error);
}

static icae_status refuse_budget(const icae_settings *settings, const icae_plan *plan,
                                 int64_t least, bool is_checkpointed, icae_error *error) {
    size_t block = plan->memory[ICAE_MEMORY_TRAINED] + plan->memory[ICAE_MEMORY_SAVING];
    size_t tensors = plan->memory[ICAE_MEMORY_ACTIVATIONS];
    return icae_fail(
        error, ICAE_INVALID,
        "memory_budget: %.2f GB is too little; the least that this run takes is %.2f "
        "GB, with train.micro_batch %lld and train.checkpointing %s (tensors %.2f, "
        "trained block %.2f, base and program %.2f)",
        (double)settings->memory_budget / 1e9, (double)plan->peak_bytes / 1e9, (long long)least,
        is_checkpointed ? "true" : "false", (double)tensors / 1e9, (double)block / 1e9,
        (double)(plan->peak_bytes - block - tensors) / 1e9);
}

static icae_status fit(ground *g, icae_settings *settings, icae_plan *plan, icae_error *error) {
    bool has_micro = icae_settings_has(settings, "train.micro_batch");
    bool has_mode = icae_settings_has(settings, "train.checkpointing");
    int64_t least = has_micro ? micro_of(g) : 1, micro = 0;
    bool first = has_mode && settings->train.checkpointing, last = has_mode ? first : true;
    bool is_checkpointed = first;
    for (int mode = first; mode <= (int)last && !micro; mode++) {
        is_checkpointed = mode;
        icae_status status = largest_micro(g, least, is_checkpointed, &micro, plan, error);
        if (status) return status;
    }
    if (!micro) return refuse_budget(settings, plan, least, is_checkpointed, error);
    if (!has_micro) settings->train.micro_batch = micro < micro_of(g) ? micro : 0;
    settings->train.checkpointing = is_checkpointed;
    return ICAE_OK;
}

icae_status icae_plan_fit(icae_plan *plan, icae_settings *settings, const icae_backend *be,
                          const icae_model *model, const icae_adapter *adapter,
                          icae_error *error) {
    if (!settings->memory_budget)
        return icae_plan_make(plan, settings, be, model, adapter, error);
    ground g;
    icae_status status = ground_make(&g, settings, be, model, adapter, error);
    if (status) return status;
    begin_plan(plan, &g);
    status = fit(&g, settings, plan, error);
    ground_release(&g);
    return status;
}
