/* SPDX-License-Identifier: MIT */
/*
 * A text laid beside what its slots give back; the contract stands in icae/fidelity.h. Numbers and names are
 * found in fidelity_marks.c, the page is written in fidelity_page.c.
 */
#include "icae/fidelity.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/metrics.h"

enum { SPANS_AT_ONCE = 8, MOST_HALF = 512 };

void icae_fidelity_release(icae_fidelity *fidelity) {
    for (int64_t s = 0; fidelity->spans && s < fidelity->n_spans; s++) {
        free(fidelity->spans[s].restored);
        free(fidelity->spans[s].is_right);
    }
    free(fidelity->spans);
    free(fidelity->is_kept);
    free(fidelity->is_lost);
    free(fidelity->starts);
    free(fidelity->marks);
    icae_text_release(&fidelity->text);
    *fidelity = (icae_fidelity){0};
}

static double share(int64_t part, int64_t whole) {
    return whole ? (double)part / (double)whole : 1;
}

double icae_fidelity_kept(const icae_fidelity *fidelity) {
    return share(fidelity->n_kept, fidelity->n_tokens - fidelity->n_raw_tokens);
}

double icae_fidelity_in_place(const icae_fidelity *fidelity) {
    return share(fidelity->n_in_place, fidelity->n_tokens - fidelity->n_raw_tokens);
}

/* ---- beside each other ---- */

/*
 * Marks the tokens of a longest common subsequence in both lists. table [(n_a + 1) (n_b + 1)] holds at
 * (i, j) its length for a[i..], b[j..]; walking from (0, 0) takes the earliest matches.
 */
static void mark_common(const int32_t *a, int64_t n_a, const int32_t *b, int64_t n_b,
                        int32_t *table, bool *in_a, bool *in_b) {
    int64_t row = n_b + 1;
    for (int64_t j = 0; j <= n_b; j++)
        table[n_a * row + j] = 0;
    for (int64_t i = n_a - 1; i >= 0; i--) {
        table[i * row + n_b] = 0;
        for (int64_t j = n_b - 1; j >= 0; j--) {
            int32_t down = table[(i + 1) * row + j], right = table[i * row + j + 1];
            table[i * row + j] = a[i] == b[j]   ? table[(i + 1) * row + j + 1] + 1
                                 : down > right ? down
                                                : right;
        }
    }
    for (int64_t i = 0, j = 0; i < n_a && j < n_b;) {
        if (a[i] == b[j]) {
            in_a[i++] = true;
            in_b[j++] = true;
        } else if (table[(i + 1) * row + j] >= table[i * row + j + 1]) {
            i++;
        } else {
            j++;
        }
    }
}

static icae_status compare_span(const int32_t *ids, const icae_result *made,
                                icae_fidelity_span *span, bool *is_kept, icae_error *error) {
    size_t cells, n = (size_t)span->n, n_made = (size_t)made->n;
    bool fits = icae_size_mul(n + 1, n_made + 1, &cells);
    int32_t *table = fits ? calloc(cells, sizeof *table) : NULL;
    span->restored = calloc(n_made + 1, sizeof *span->restored);
    span->is_right = calloc(n_made + 1, sizeof *span->is_right);
    if (!table || !span->restored || !span->is_right) {
        free(table);
        return icae_fail_memory(error, "a restored span");
    }
    if (n_made) memcpy(span->restored, made->ids, n_made * sizeof *made->ids);
    span->n_restored = made->n;
    mark_common(ids, span->n, made->ids, made->n, table, is_kept, span->is_right);
    free(table);
    for (int64_t i = 0; i < span->n; i++) {
        span->n_kept += is_kept[i];
        span->n_in_place += i < made->n && ids[i] == made->ids[i];
    }
    span->is_exact = made->is_stopped && made->n == span->n && span->n_in_place == span->n;
    return ICAE_OK;
}

/* ---- spans from their slots ---- */

/* Text that is kept as it is. */
static void keep_whole(icae_fidelity *fidelity, icae_fidelity_span *span) {
    for (int64_t i = 0; i < span->n; i++)
        fidelity->is_kept[span->first + i] = true;
    span->n_kept = span->n_in_place = span->n;
    span->is_exact = true;
}

/* Which spans a batch holds. */
typedef struct span_batch {
    int64_t spans[SPANS_AT_ONCE];
    icae_slots slots[SPANS_AT_ONCE];
    icae_eval_item items[SPANS_AT_ONCE];
    int64_t n;
} span_batch;

static icae_status restore_batch(const icae_eval_engine *engine, const span_batch *batch,
                                 icae_fidelity *fidelity, icae_error *error) {
    icae_request requests[SPANS_AT_ONCE];
    icae_result made[SPANS_AT_ONCE];
    double nll[SPANS_AT_ONCE];
    int32_t stop = icae_adapter_stop(&engine->adapter->settings, engine->model->tokenizer);
    for (int64_t i = 0; i < batch->n; i++) {
        requests[i] = (icae_request){.slots = &batch->slots[i],
                                     .task = ICAE_TASK_AE,
                                     .max_tokens = icae_restored_limit(batch->items[i].n),
                                     .stop = stop};
    }
    icae_status status = icae_eval_slot_losses(engine, batch->items, batch->slots, batch->n,
                                               ICAE_TASK_AE, 0, NULL, nll, error);
    icae_sampling greedy = {.top_p = 1};
    if (!status) {
        status = icae_generate(engine->graph, engine->model, engine->adapter, requests,
                               batch->n, &greedy, NULL, NULL, made, error);
    }
    if (status) return status;
    for (int64_t i = 0; i < batch->n && !status; i++) {
        icae_fidelity_span *span = &fidelity->spans[batch->spans[i]];
        span->nll = nll[i];
        fidelity->nll += nll[i];
        fidelity->n_targets += span->n + (stop >= 0);
        status = compare_span(batch->items[i].ids, &made[i], span,
                              fidelity->is_kept + span->first, error);
    }
    icae_results_release(made, batch->n);
    return status;
}

static icae_status restore_spans(const icae_eval_engine *engine, const int32_t *ids,
                                 const icae_slots *slots, const icae_fidelity_how *how,
                                 icae_fidelity *fidelity, icae_error *error) {
    span_batch batch = {.n = 0};
    int64_t first = 0;
    icae_slots view = {0};
    icae_status status = ICAE_OK;
    for (int64_t s = 0; !status && icae_slots_next_span(slots, &view); s++) {
        icae_fidelity_span *span = &fidelity->spans[s];
        span->first = first;
        span->n = view.n_tokens;
        first += span->n;
        span->is_raw = view.n_raw > 0;
        if (span->is_raw) {
            keep_whole(fidelity, span);
        } else if (span->n == 0) {
            span->is_exact = true; /* equalising left it empty */
        } else {
            batch.spans[batch.n] = s;
            batch.slots[batch.n] = view;
            batch.items[batch.n++] = (icae_eval_item){.ids = ids + span->first, .n = span->n};
        }
        if (batch.n < SPANS_AT_ONCE && s + 1 < slots->n_spans) continue;
        if (batch.n) status = restore_batch(engine, &batch, fidelity, error);
        batch.n = 0;
        if (!status)
            status = icae_span_watch_tell(how->watch, "restored", s + 1, slots->n_spans, error);
    }
    for (int64_t s = 0; s < slots->n_spans; s++) {
        const icae_fidelity_span *span = &fidelity->spans[s];
        fidelity->n_raw += span->is_raw;
        if (span->is_raw) {
            fidelity->n_raw_tokens += span->n;
            continue;
        }
        fidelity->n_kept += span->n_kept;
        fidelity->n_in_place += span->n_in_place;
        fidelity->n_exact += span->is_exact;
    }
    return status;
}

/* ---- the second half behind the first ---- */

static icae_status measure_continuation(const icae_eval_engine *engine, const int32_t *ids,
                                        int64_t n, int64_t refine, icae_fidelity *fidelity,
                                        icae_error *error) {
    int64_t half = n / 2 < MOST_HALF ? n / 2 : MOST_HALF;
    int64_t context = engine->model->config.context_length / 2;
    if (context > 0 && half > context) half = context;
    if (half < ICAE_FIDELITY_LEAST_HALF) return ICAE_OK;
    const icae_eval_suite *lm = &icae_suite_lm;
    icae_eval_item item = {
        .ids = ids, .n = half, .continuation = ids + half, .n_continuation = half};
    icae_eval_settings settings = {.skip = ICAE_FIDELITY_LEAST_HALF / 2, .refine = refine};
    icae_eval_row row = {.texts = NULL};
    icae_status status = lm->measure(engine, &settings, &item, 1, &row, error);
    fidelity->continuation_slots = row.values[icae_eval_value(lm, "nll_slots")];
    fidelity->continuation_raw = row.values[icae_eval_value(lm, "nll_raw")];
    fidelity->continuation_none = row.values[icae_eval_value(lm, "nll_none")];
    fidelity->n_continuation = (int64_t)row.values[icae_eval_value(lm, "targets")];
    return status;
}

/* ---- tokens to text ---- */

/* A character is lost whole: its bytes may be of several tokens. */
static void widen_to_characters(icae_fidelity *fidelity) {
    const unsigned char *data = (const unsigned char *)icae_text_string(&fidelity->text);
    for (size_t at = 0; at < fidelity->text.length;) {
        int32_t point;
        size_t length = (size_t)icae_utf8_decode(data + at, fidelity->text.length - at, &point);
        bool is_lost = false;
        for (size_t i = 0; i < length; i++)
            is_lost |= fidelity->is_lost[at + i];
        for (size_t i = 0; i < length; i++)
            fidelity->is_lost[at + i] = is_lost;
        at += length;
    }
}

static icae_status spell(const icae_model *model, const int32_t *ids, icae_fidelity *fidelity,
                         icae_error *error) {
    size_t *ends = calloc((size_t)fidelity->n_tokens + 1, sizeof *ends);
    fidelity->starts = calloc((size_t)fidelity->n_spans + 1, sizeof *fidelity->starts);
    if (!ends || !fidelity->starts) {
        free(ends);
        return icae_fail_memory(error, "the tokens' places");
    }
    for (int64_t i = 0; i < fidelity->n_tokens; i++) {
        icae_tokenizer_append_token(model->tokenizer, ids[i], true, &fidelity->text);
        ends[i] = fidelity->text.length;
    }
    fidelity->is_lost = calloc(fidelity->text.length + 1, sizeof *fidelity->is_lost);
    if (!fidelity->is_lost || fidelity->text.failed) {
        free(ends);
        return icae_fail_memory(error, "the text of the tokens");
    }
    for (int64_t i = 0; i < fidelity->n_tokens; i++) {
        for (size_t at = i ? ends[i - 1] : 0; at < ends[i]; at++)
            fidelity->is_lost[at] = !fidelity->is_kept[i];
    }
    for (int64_t s = 0; s < fidelity->n_spans; s++) {
        int64_t end = fidelity->spans[s].first + fidelity->spans[s].n;
        fidelity->starts[s + 1] = end > 0 ? ends[end - 1] : 0;
    }
    free(ends);
    widen_to_characters(fidelity);
    return ICAE_OK;
}

/* The restored text, and where in it every byte of the text stands; SIZE_MAX: nowhere. */
typedef struct restored_text {
    icae_text text;
    size_t *places; /* [the text's length] */
} restored_text;

/* Lays out span s, whose text begins at `at`; returns where it ends. */
static size_t lay_out_span(const icae_tokenizer *tokenizer, const int32_t *ids,
                           const icae_fidelity *fidelity, const icae_fidelity_span *span,
                           size_t at, restored_text *out) {
    icae_text one = {0};
    int64_t made = 0; /* the next restored token */
    for (int64_t i = 0; i < span->n; i++) {
        bool is_kept = fidelity->is_kept[span->first + i];
        icae_text_clear(&one);
        icae_tokenizer_append_token(tokenizer, ids[span->first + i], true, &one);
        for (; is_kept && !span->is_raw && !span->is_right[made]; made++)
            icae_tokenizer_append_token(tokenizer, span->restored[made], true, &out->text);
        for (size_t k = 0; k < one.length; k++)
            out->places[at + k] = is_kept ? out->text.length + k : SIZE_MAX;
        if (is_kept) {
            icae_text_append(&out->text, icae_text_string(&one), one.length);
            made++;
        }
        at += one.length;
    }
    for (; made < span->n_restored; made++)
        icae_tokenizer_append_token(tokenizer, span->restored[made], true, &out->text);
    out->text.failed |= one.failed;
    icae_text_release(&one);
    return at;
}

static icae_status judge_marks(const icae_tokenizer *tokenizer, const int32_t *ids,
                               icae_fidelity *fidelity, icae_error *error) {
    icae_status status =
        icae_fidelity_find_marks(icae_text_string(&fidelity->text), fidelity->text.length,
                                 &fidelity->marks, &fidelity->n_marks, error);
    if (status) return status;
    restored_text restored = {.places =
                                  calloc(fidelity->text.length + 1, sizeof *restored.places)};
    size_t at = 0;
    for (int64_t s = 0; restored.places && s < fidelity->n_spans; s++)
        at = lay_out_span(tokenizer, ids, fidelity, &fidelity->spans[s], at, &restored);
    status = !restored.places || restored.text.failed
                 ? icae_fail_memory(error, "the restored text")
                 : icae_fidelity_judge_marks(fidelity->marks, fidelity->n_marks,
                                             icae_text_string(&restored.text),
                                             restored.text.length, restored.places, error);
    icae_text_release(&restored.text);
    free(restored.places);
    for (int64_t m = 0; m < fidelity->n_marks && !status; m++) {
        const icae_fidelity_mark *mark = &fidelity->marks[m];
        if (mark->is_number) {
            fidelity->n_numbers++;
            fidelity->n_numbers_lost += mark->is_lost;
        } else {
            fidelity->n_names++;
            fidelity->n_names_lost += mark->is_lost;
        }
    }
    return status;
}

/* The first step: spans restored and compared. */
static icae_status begin(const icae_eval_engine *engine, const int32_t *ids,
                         const icae_slots *slots, const icae_fidelity_how *how,
                         icae_fidelity *fidelity, icae_error *error) {
    fidelity->n_tokens = slots->n_tokens;
    fidelity->n_slots = icae_slots_vectors(slots);
    fidelity->n_spans = slots->n_spans;
    fidelity->spans = calloc((size_t)slots->n_spans, sizeof *fidelity->spans);
    fidelity->is_kept = calloc((size_t)slots->n_tokens + 1, sizeof *fidelity->is_kept);
    if (!fidelity->spans || !fidelity->is_kept) {
        return icae_fail_memory(error, "a fidelity report");
    }
    return restore_spans(engine, ids, slots, how, fidelity, error);
}

static icae_status finish(const icae_eval_engine *engine, const int32_t *ids, int64_t refine,
                          icae_fidelity *fidelity, icae_error *error) {
    icae_status status =
        measure_continuation(engine, ids, fidelity->n_tokens, refine, fidelity, error);
    if (!status) status = spell(engine->model, ids, fidelity, error);
    if (!status) status = judge_marks(engine->model->tokenizer, ids, fidelity, error);
    return status;
}

icae_status icae_fidelity_measure(icae_graph *graph, const icae_model *model,
                                  const icae_adapter *adapter, const int32_t *ids,
                                  const icae_slots *slots, const icae_fidelity_how *how,
                                  icae_fidelity *fidelity, icae_error *error) {
    const icae_eval_engine engine = {graph, model, adapter};
    icae_status status = begin(&engine, ids, slots, how, fidelity, error);
    if (!status) status = finish(&engine, ids, how->refine, fidelity, error);
    if (status) icae_fidelity_release(fidelity);
    return status;
}

/* ---- compressing well enough ---- */

/* Spans as they are to be: [n] of room for `capacity`. */
typedef struct span_plan {
    int32_t *lengths;
    bool *is_raw;
    int64_t n, capacity;
} span_plan;

static void plan_add(span_plan *plan, int64_t length, bool is_raw) {
    assert(plan->n < plan->capacity);
    plan->lengths[plan->n] = (int32_t)length;
    plan->is_raw[plan->n++] = is_raw;
}

/* Room for n spans; what was there goes. */
static icae_status plan_begin(span_plan *plan, int64_t n, icae_error *error) {
    free(plan->lengths);
    free(plan->is_raw);
    *plan = (span_plan){.lengths = calloc((size_t)n, sizeof *plan->lengths),
                        .is_raw = calloc((size_t)n, sizeof *plan->is_raw),
                        .capacity = n};
    return plan->lengths && plan->is_raw ? ICAE_OK : icae_fail_memory(error, "spans");
}

/* The plan after a measurement: spans below `least` in halves, or raw. *is_changed tells whether any was. */
static icae_status plan_split(span_plan *plan, const icae_fidelity *measured, double least,
                              int64_t slots_per_span, bool *is_changed, icae_error *error) {
    icae_status status = plan_begin(plan, 2 * measured->n_spans, error);
    *is_changed = false;
    for (int64_t s = 0; s < measured->n_spans && !status; s++) {
        const icae_fidelity_span *span = &measured->spans[s];
        int64_t half = span->n / 2;
        if (span->is_raw || share(span->n_kept, span->n) >= least) {
            plan_add(plan, span->n, span->is_raw);
            continue;
        }
        *is_changed = true;
        if (half > slots_per_span) {
            plan_add(plan, span->n - half, false);
            plan_add(plan, half, false);
        } else {
            plan_add(plan, span->n, true);
        }
    }
    return status;
}

static icae_status compress_and_restore(const icae_eval_engine *engine, const int32_t *ids,
                                        const span_plan *plan, const icae_fidelity_how *how,
                                        icae_slots *slots, icae_fidelity *fidelity,
                                        icae_error *error) {
    icae_refined refined = {0};
    icae_slots_release(slots);
    icae_fidelity_release(fidelity);
    icae_status status =
        icae_compress_spans(engine->graph, engine->model, engine->adapter, ids, plan->n,
                            plan->lengths, plan->is_raw, how->watch, slots, error);
    if (!status && how->refine > 0) {
        status = icae_refine(engine->graph, engine->model, engine->adapter, ids, how->refine,
                             how->watch, slots, &refined, error);
    }
    if (!status) status = begin(engine, ids, slots, how, fidelity, error);
    fidelity->refined = refined;
    return status;
}

static bool is_all_raw(const span_plan *plan) {
    for (int64_t s = 0; s < plan->n; s++)
        if (!plan->is_raw[s]) return false;
    return true;
}

icae_status icae_fidelity_compress(icae_graph *graph, const icae_model *model,
                                   const icae_adapter *adapter, const int32_t *ids, int64_t n,
                                   const icae_fidelity_how *how, icae_slots *slots,
                                   icae_fidelity *fidelity, icae_error *error) {
    const icae_eval_engine engine = {graph, model, adapter};
    const icae_adapter_settings *settings = &adapter->settings;
    if (n < 1) return icae_fail(error, ICAE_INVALID, "there is no text to compress");
    int64_t n_spans = icae_span_count(n, settings->memory_slots, settings->compression_rate);
    span_plan plan = {0};
    icae_status status = plan_begin(&plan, n_spans, error);
    for (int64_t s = 0; s < n_spans && !status; s++)
        plan_add(&plan, icae_span_length(n, n_spans, s), false);
    for (bool is_changed = true; is_changed && !status;) {
        if (is_all_raw(&plan)) {
            status = icae_fail(error, ICAE_INVALID,
                               "no part of the text can be restored to %g %% of its tokens: it "
                               "is better kept as it is, or compressed by another adapter",
                               100 * how->least);
            break;
        }
        status = compress_and_restore(&engine, ids, &plan, how, slots, fidelity, error);
        if (!status) {
            status = plan_split(&plan, fidelity, how->least, settings->memory_slots,
                                &is_changed, error);
        }
    }
    free(plan.lengths);
    free(plan.is_raw);
    if (!status) status = finish(&engine, ids, how->refine, fidelity, error);
    if (status) {
        icae_fidelity_release(fidelity);
        icae_slots_release(slots);
    }
    return status;
}
