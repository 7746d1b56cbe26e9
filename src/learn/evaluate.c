/* SPDX-License-Identifier: MIT */
/*
 * The list of suites, which options mean something to which, and what they have in common: the losses of decoder jobs from slots, and of
 * sequences under the bare base; the contract stands in icae/evaluate.h, a map of the files in
 * evaluate_internal.h.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/refine.h"
#include "icae/json.h"

static const icae_eval_suite *const suites[] = {
    &icae_suite_ae, &icae_suite_lm,      &icae_suite_random,
    &icae_suite_qa, &icae_suite_latency, &icae_suite_ppl,
};
enum { N_SUITES = sizeof suites / sizeof suites[0] };

const icae_eval_suite *icae_eval_suite_at(size_t i) {
    return i < N_SUITES ? suites[i] : NULL;
}

const icae_eval_suite *icae_eval_suite_find(const char *name) {
    for (size_t i = 0; i < N_SUITES; i++)
        if (strcmp(suites[i]->name, name) == 0) return suites[i];
    return NULL;
}

/* clang-format off */
enum { AE = 1 << 0, LM = 1 << 1, RANDOM = 1 << 2, QA = 1 << 3, LATENCY = 1 << 4, PPL = 1 << 5 }; /* places in suites */
/* clang-format on */
_Static_assert(PPL == 1 << (N_SUITES - 1), "a bit each");

/* Every option that decides what is measured, and the suites that it means something to. */
static const struct {
    const char *name;
    unsigned suites;
} known_options[] = {
    {"data", AE | LM | RANDOM | QA | PPL},
    {"samples", AE | LM | RANDOM | QA | LATENCY | PPL},
    {"batch", AE | LM | RANDOM | QA},
    {"tokens", AE | LM | RANDOM | QA | PPL},
    {"lengths", AE | LM},
    {"rate", AE | LM | RANDOM | QA | LATENCY},
    {"refine", AE | LM | RANDOM | QA},
    {"together", AE | RANDOM},
    {"continuation", LM},
    {"skip", LM},
    {"window", PPL},
    {"stride", PPL},
    {"generate", QA | LATENCY},
    {"grid", LATENCY},
    {"seed", AE | RANDOM | LATENCY},
};

bool icae_eval_suite_ignores(const icae_eval_suite *suite, const char *option) {
    unsigned self = 0;
    for (size_t i = 0; i < N_SUITES; i++)
        self |= suites[i] == suite ? 1u << i : 0;
    for (size_t i = 0; i < sizeof known_options / sizeof known_options[0]; i++)
        if (strcmp(known_options[i].name, option) == 0)
            return !(known_options[i].suites & self);
    return false;
}

int icae_eval_value(const icae_eval_suite *suite, const char *name) {
    int i = 0;
    while (suite->values[i] && strcmp(suite->values[i], name) != 0)
        i++;
    assert(suite->values[i] && "a suite has a value of this name");
    return i;
}

int64_t icae_eval_span(const icae_eval_engine *engine) {
    const icae_adapter_settings *settings = &engine->adapter->settings;
    return settings->memory_slots * settings->compression_rate;
}

bool icae_eval_keep_text(icae_eval_row *row, const char *name, const char *text, size_t bytes) {
    icae_text all = {0};
    if (row->texts) icae_text_printf(&all, "%s, ", row->texts);
    icae_json_write_string(&all, name, strlen(name));
    icae_text_append_string(&all, ": ");
    icae_json_write_string(&all, text, bytes);
    free(row->texts);
    row->texts = all.failed ? NULL : all.data;
    if (all.failed) icae_text_release(&all);
    return row->texts != NULL;
}

/* ---- the bare base ---- */

icae_status icae_eval_base_nll(icae_graph *graph, const icae_model *model,
                               const icae_eval_sequence *sequences, int64_t n_sequences,
                               double *sums, icae_real *tokens, icae_error *error) {
    icae_graph_begin(graph, false, false);
    int64_t T = 0, targets = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        T += sequences[s].n;
        targets += sequences[s].n - sequences[s].first;
    }
    size_t rows = (size_t)T + 1, scored = (size_t)targets + 1;
    int64_t *starts = icae_graph_arena(graph, ((size_t)n_sequences + 1) * sizeof *starts);
    int32_t *positions = icae_graph_arena(graph, rows * sizeof *positions);
    int32_t *ids = icae_graph_arena(graph, rows * sizeof *ids);
    int32_t *picked = icae_graph_arena(graph, scored * sizeof *picked);
    int32_t *wanted = icae_graph_arena(graph, scored * sizeof *wanted);
    icae_real *coefs = icae_graph_arena(graph, scored * sizeof *coefs);
    icae_real *nll = icae_graph_arena(graph, scored * sizeof *nll);
    if (!starts || !positions || !ids || !picked || !wanted || !coefs || !nll) {
        return icae_graph_status(graph, error);
    }
    int64_t at = 0, target = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        const icae_eval_sequence *q = &sequences[s];
        starts[s] = at;
        for (int64_t i = 0; i < q->n; i++, at++) {
            ids[at] = q->ids[i];
            positions[at] = (int32_t)i;
            if (i < q->first) continue;
            picked[target] = (int32_t)(at - 1); /* the row before a token predicts it */
            wanted[target++] = q->ids[i];
        }
    }
    starts[n_sequences] = at;
    icae_pack pack = {n_sequences, T, starts, positions, NULL};
    icae_forward options = {.pack = &pack};
    icae_tensor *head = (icae_tensor *)(uintptr_t)&model->head;
    icae_tensor *x = icae_model_inputs(graph, model, 0, NULL, T, NULL, ids);
    icae_tensor *h = icae_model_forward(graph, model, x, &options);
    icae_done(graph, x);
    icae_tensor *last = h ? icae_rows(graph, 1, &h, targets, NULL, picked) : NULL;
    icae_done(graph, h);
    icae_tensor *loss = icae_linear_cross_entropy(graph, last, head, wanted, coefs, nll);
    icae_status status = icae_graph_status(graph, error);
    if (status || !loss) return status;
    target = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        sums[s] = 0;
        for (int64_t i = sequences[s].first; i < sequences[s].n; i++, target++) {
            sums[s] += (double)nll[target];
            if (tokens) tokens[target] = nll[target];
        }
    }
    return ICAE_OK;
}

/* ---- slots of a batch ---- */

/* A batch's contexts laid end to end, and the spans of them all. */
typedef struct end_to_end {
    int32_t *ids, *lengths;
    int64_t *first_spans; /* [n]: of each item */
    int64_t n_spans;
} end_to_end;

static void end_to_end_release(end_to_end *e) {
    free(e->ids);
    free(e->lengths);
    free(e->first_spans);
}

/* Whether the item has the context of the one before: not only where that begins (--lengths). */
static bool is_repeated(const icae_eval_item *items, int64_t i, bool are_apart) {
    return i > 0 && !are_apart && items[i].ids == items[i - 1].ids &&
           items[i].n == items[i - 1].n;
}

static icae_status end_to_end_make(end_to_end *e, const icae_eval_item *items, int64_t n,
                                   const icae_adapter_settings *settings, bool are_apart,
                                   icae_error *error) {
    int64_t k = settings->memory_slots, rate = settings->compression_rate;
    int64_t n_ids = 0, n_spans = 0, at = 0;
    for (int64_t i = 0; i < n; i++) {
        n_ids += items[i].n;
        n_spans += icae_span_count(items[i].n, k, rate);
    }
    *e = (end_to_end){.ids = calloc((size_t)n_ids + 1, sizeof *e->ids),
                      .lengths = calloc((size_t)n_spans + 1, sizeof *e->lengths),
                      .first_spans = calloc((size_t)n + 1, sizeof *e->first_spans)};
    if (!e->ids || !e->lengths || !e->first_spans) {
        end_to_end_release(e);
        return icae_fail_memory(error, "a batch to compress");
    }
    for (int64_t i = 0; i < n; i++) {
        if (is_repeated(items, i, are_apart)) {
            e->first_spans[i] = e->first_spans[i - 1];
            continue;
        }
        int64_t count = icae_span_count(items[i].n, k, rate);
        memcpy(e->ids + at, items[i].ids, (size_t)items[i].n * sizeof *e->ids);
        at += items[i].n;
        e->first_spans[i] = e->n_spans;
        for (int64_t s = 0; s < count; s++)
            e->lengths[e->n_spans++] = (int32_t)icae_span_length(items[i].n, count, s);
    }
    return ICAE_OK;
}

void icae_eval_slots_release(icae_eval_slots *slots) {
    free(slots->of);
    icae_slots_release(&slots->all);
    *slots = (icae_eval_slots){0};
}

icae_status icae_eval_compress(const icae_eval_engine *engine, const icae_eval_item *items,
                               int64_t n, bool are_apart, int64_t refine,
                               icae_eval_slots *slots, icae_error *error) {
    const icae_adapter_settings *settings = &engine->adapter->settings;
    icae_slots *all = &slots->all;
    end_to_end e;
    icae_status status = end_to_end_make(&e, items, n, settings, are_apart, error);
    if (status) return status;
    slots->of = calloc((size_t)n, sizeof *slots->of);
    if (!slots->of) status = icae_fail_memory(error, "the slots of a batch");
    if (!status) {
        status = icae_compress_spans(engine->graph, engine->model, engine->adapter, e.ids,
                                     e.n_spans, e.lengths, NULL, NULL, all, error);
    }
    if (!status && refine > 0) {
        status = icae_refine(engine->graph, engine->model, engine->adapter, e.ids, refine, NULL,
                             all, NULL, error);
    }
    for (int64_t i = 0; i < n && !status; i++) {
        icae_slots *view = &slots->of[i];
        *view = *all;
        view->n_spans =
            icae_span_count(items[i].n, settings->memory_slots, settings->compression_rate);
        view->n_tokens = items[i].n;
        view->span_lengths = all->span_lengths + e.first_spans[i];
        view->values = all->values + e.first_spans[i] * all->slots_per_span * all->width;
    }
    end_to_end_release(&e);
    if (status) icae_eval_slots_release(slots);
    return status;
}

/* ---- losses from slots ---- */

/* a, then b, in the graph's arena; NULL when memory ends. */
static int32_t *joined(icae_graph *graph, const int32_t *a, int64_t n_a, const int32_t *b,
                       int64_t n_b) {
    int32_t *ids = icae_graph_arena(graph, (size_t)(n_a + n_b + 1) * sizeof *ids);
    if (!ids) return NULL;
    if (n_a) memcpy(ids, a, (size_t)n_a * sizeof *ids);
    if (n_b) memcpy(ids + n_a, b, (size_t)n_b * sizeof *ids);
    return ids;
}

/* AE: the context and its end; LM: what follows; FT: chat prefix, question, answer and its end. */
static bool fill_job(const icae_eval_engine *engine, const icae_eval_item *item,
                     const icae_chat_ids *chat, icae_job *job) {
    icae_graph *graph = engine->graph;
    if (job->task == ICAE_TASK_LM) {
        job->target = item->continuation;
        job->n_target = item->n_continuation;
        return true;
    }
    if (job->task == ICAE_TASK_AE) {
        int32_t eos = icae_adapter_stop(&engine->adapter->settings, engine->model->tokenizer);
        job->n_target = item->n + (eos >= 0 ? 1 : 0);
        job->target = joined(graph, item->ids, item->n, &eos, eos >= 0 ? 1 : 0);
        return job->target != NULL;
    }
    int64_t n_end = chat->end >= 0 ? 1 : 0;
    int32_t *prompt = joined(graph, item->prompt, item->n_prompt, chat->suffix, chat->n_suffix);
    job->prefix = chat->prefix;
    job->n_prefix = chat->n_prefix;
    job->prompt = prompt;
    job->n_prompt = item->n_prompt + chat->n_suffix;
    job->target = joined(graph, item->answer, item->n_answer, &chat->end, n_end);
    job->n_target = item->n_answer + n_end;
    return prompt && job->target;
}

/* The values of all items' slots as one tensor, each context's from firsts[context] on. */
static icae_tensor *slots_tensor(const icae_eval_engine *engine, const icae_slots *slots,
                                 const int64_t *contexts, int64_t n_contexts, int64_t *firsts) {
    icae_graph *graph = engine->graph;
    int64_t shape[2] = {0, slots[0].width};
    for (int64_t c = 0; c < n_contexts; c++) {
        firsts[c] = shape[0];
        shape[0] += icae_slots_vectors(&slots[contexts[c]]);
    }
    icae_real *values = icae_graph_arena(graph, (size_t)(shape[0] * shape[1]) * sizeof *values);
    if (!values) return NULL;
    for (int64_t c = 0; c < n_contexts; c++) {
        const icae_slots *of = &slots[contexts[c]];
        int64_t n = icae_slots_vectors(of) * of->width;
        for (int64_t i = 0; i < n; i++)
            values[firsts[c] * of->width + i] = of->values[i];
    }
    return icae_constant(graph, 2, shape, values);
}

icae_status icae_eval_slot_losses(const icae_eval_engine *engine, const icae_eval_item *items,
                                  const icae_slots *slots, int64_t n, icae_task task,
                                  int64_t skip, const icae_chat_ids *chat, double *sums,
                                  icae_error *error) {
    icae_graph *graph = engine->graph;
    icae_graph_begin(graph, false, false);
    icae_context *contexts = icae_graph_arena(graph, (size_t)n * sizeof *contexts);
    int64_t *of = icae_graph_arena(graph, (size_t)n * sizeof *of); /* a context's first item */
    int64_t *firsts = icae_graph_arena(graph, ((size_t)n + 1) * sizeof *firsts);
    icae_job *jobs = icae_graph_arena(graph, (size_t)n * sizeof *jobs);
    if (!contexts || !of || !firsts || !jobs) return icae_graph_status(graph, error);
    int64_t n_contexts = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || slots[i].values != slots[i - 1].values) {
            contexts[n_contexts] = (icae_context){items[i].ids, items[i].n, 0};
            of[n_contexts++] = i;
        }
        jobs[i] = (icae_job){.context = n_contexts - 1, .task = task, .skip = skip, .coef = 1};
        if (!fill_job(engine, &items[i], chat, &jobs[i])) {
            return icae_graph_status(graph, error);
        }
    }
    icae_tensor *values = slots_tensor(engine, slots, of, n_contexts, firsts);
    icae_batch batch = {contexts, n_contexts, jobs, n};
    icae_run run = {0};
    if (values) {
        icae_decode_loss(graph, engine->model, engine->adapter, &batch, values, firsts, &run,
                         sums, NULL);
    }
    return icae_graph_status(graph, error);
}
