/* SPDX-License-Identifier: MIT */
/*
 * Causal attention of packed spans, forward and backward. Compiled once per level.
 *
 * A task is one span and one kv head, whose G query heads read the same keys: its rows are
 * (query, head) pairs, G to a query. The keys are transposed into panels [E][32] once; then blocks
 * of queries go through cpu_tile.h's loop:
 *
 *     forward     S = q K^T;  p = exp(scale S - top);  out = p V / sum p;  lse = top + log sum p
 *     backward    S and dP = d_out V^T;  p = exp(scale S - lse);  dS = scale p (dP - d_out.out);
 *                 dq = dS K;  d_keys += dS^T q;  d_values += p^T d_out
 *
 * Only a block's scores exist at a time. What a query may not see is never multiplied, not even by
 * zero: of a block's keys, those that all its queries see are taken together (the core), the few at
 * the ragged ends query by query. The order of every sum is the order of the keys (backward: of the
 * queries), so a row's bits do not depend on how queries were blocked, and a NaN in a later token
 * stays there.
 *
 * Threads share the tasks; forward also cuts a task's queries into chunks when tasks are few.
 * Backward does not: one thread owns each d_keys, d_values.
 */
#include <assert.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_tile.h"

/* Rows of one block: four tiles of AVX-512, eight of AVX2; their scores stay in the second cache. */
enum { BLOCK_ROWS = 48, MOST_BLOCK_QUERIES = 24 };
/* Up to so many queries read the values where they are; more are worth a copy without gaps. */
enum { FEW_QUERIES = 8 };
static const int64_t WORTH_THREADS =
    50000; /* multiply-adds; with few queries packing costs as much again */

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* One span and kv head, with the sizes that all steps use. */
typedef struct task {
    const icae_attention_shape *shape;
    const icae_attention_span *span;
    int64_t group;      /* G, query heads of this kv head */
    int64_t head;       /* the first of them */
    int64_t width, pad; /* E, and E rounded up to whole panels */
    int64_t q_row;      /* reals from one query to the next, H E */
    int64_t q_offset;   /* of the first query's first head in q */
    int64_t kv_row, kv_offset;
} task;

/* Where a task's intermediate values stand; parts that a direction does not use are empty. */
typedef struct workspace {
    int64_t score_ld;
    real *key_panels, *value_panels; /* [n_keys / 32][E][32] */
    real *keys, *values;             /* [n_keys][pad] */
    real *d_keys, *d_values;         /* [n_keys][pad], sums */
    real *queries, *d_out;           /* [BLOCK_ROWS][pad] */
    real *result;                    /* [BLOCK_ROWS][pad]: out, or dq */
    real *scores, *d_scores;         /* [BLOCK_ROWS][score_ld] */
} workspace;

/* Rows of whole panels, one for every key of the span: a copy, or the span's own. */
typedef struct key_rows {
    const real *data;
    int64_t ld;
} key_rows;

static int64_t block_queries(int64_t group) {
    return least(MOST_BLOCK_QUERIES, most(1, BLOCK_ROWS / group));
}

/* Lays the parts out from `base`; NULL only measures. Returns the bytes. */
static size_t lay_out(const icae_attention_shape *shape, int64_t n_keys, bool is_backward,
                      char *base, workspace *ws) {
    int64_t pad = round_up(shape->width, PANEL), group = shape->heads / shape->kv_heads;
    int64_t keys = round_up(n_keys, PANEL), rows = block_queries(group) * group;
    ws->score_ld = keys + 16; /* off the powers of two, where rows would share cache sets */
    const struct {
        real **part;
        int64_t size;
        bool is_used;
    } parts[] = {
        {&ws->key_panels, keys * shape->width, true},
        {&ws->value_panels, keys * shape->width, is_backward},
        {&ws->keys, keys * pad, is_backward},
        {&ws->values, keys * pad, !is_backward},
        {&ws->d_keys, keys * pad, is_backward},
        {&ws->d_values, keys * pad, is_backward},
        {&ws->queries, rows * pad, true},
        {&ws->d_out, rows * pad, is_backward},
        {&ws->result, rows * pad, true},
        {&ws->scores, rows * ws->score_ld, true},
        {&ws->d_scores, rows * ws->score_ld, is_backward},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i].part = base && parts[i].is_used ? (real *)(void *)(base + used) : NULL;
        if (parts[i].is_used) used += (size_t)round_up(parts[i].size, 16) * sizeof(real);
    }
    return used;
}

/* Keys that query i sees: first .. end-1. */
static void visible_keys(const task *t, int64_t i, int64_t *first, int64_t *end) {
    *end = t->span->n_keys - t->span->n_queries + i + 1;
    *first = t->shape->window > 0 ? most(0, *end - t->shape->window) : 0;
}

/* The last n rows of keys or values, n < PANEL, as a panel: zeros past them. */
static void pack_last_panel(const real *from, int64_t from_ld, int64_t n, int64_t width,
                            real *panel) {
    real rows[PANEL * PANEL] __attribute__((aligned(64)));
    for (int64_t e = 0; e < width; e += PANEL) {
        int64_t columns = least(PANEL, width - e);
        for (int64_t i = 0; i < n; i++)
            memcpy(rows + i * PANEL, from + i * from_ld + e, (size_t)columns * sizeof(real));
        memset(rows + n * PANEL, 0, (size_t)((PANEL - n) * PANEL) * sizeof(real));
        transpose_to_panel(rows, PANEL, columns, panel + e * PANEL);
    }
}

/* Rows start..end-1 of keys or values -> panels, [E][32] each; zeros past the end. */
static void pack_panels(const task *t, const real *rows, int64_t start, int64_t end,
                        real *panels) {
    const int64_t E = t->width, n_keys = t->span->n_keys;
    for (int64_t j = start / PANEL * PANEL; j < end; j += PANEL) {
        const real *from = rows + t->kv_offset + j * t->kv_row;
        if (j + PANEL <= n_keys)
            transpose_to_panel(from, t->kv_row, E, panels + j * E);
        else
            pack_last_panel(from, t->kv_row, n_keys - j, E, panels + j * E);
    }
}

/* [n][E] with any stride -> [n][pad], zeros in the padding. */
static void copy_padded(const real *from, int64_t from_ld, int64_t n, int64_t width,
                        int64_t pad, real *to) {
    for (int64_t i = 0; i < n; i++) {
        memcpy(to + i * pad, from + i * from_ld, (size_t)width * sizeof(real));
        if (pad > width) memset(to + i * pad + width, 0, (size_t)(pad - width) * sizeof(real));
    }
}

/* The block's rows of q, or of another tensor of its shape -> [rows][pad]. */
static void copy_block(const task *t, const real *from, int64_t i0, int64_t i1, real *to) {
    for (int64_t i = i0; i < i1; i++) {
        copy_padded(from + t->q_offset + i * t->q_row, t->width, t->group, t->width, t->pad,
                    to + (i - i0) * t->group * t->pad);
    }
}

/* scores[r, j] = x[r,:] . rows[j,:] for the panels that hold keys first .. end-1 */
static void score_block(const task *t, const real *x, int64_t rows, int64_t first, int64_t end,
                        const real *panels, real *scores, int64_t score_ld) {
    for (int64_t j = first / PANEL * PANEL; j < end; j += PANEL) {
        tile_operands o = {.x = x,
                           .x_row = t->pad,
                           .x_step = 1,
                           .panel = panels + j * t->width,
                           .panel_ld = PANEL,
                           .y = scores + j,
                           .y_ld = score_ld};
        multiply_panel(rows, PANEL, t->width, o, false);
    }
}

/* result[r,:] += weights[r, j] values[j,:] over j = first .. end-1 */
static void weigh_rows(const task *t, const real *weights, int64_t weight_ld, int64_t rows,
                       int64_t first, int64_t end, key_rows values, real *result) {
    if (first >= end) return;
    for (int64_t column = 0; column < t->pad; column += PANEL) {
        tile_operands o = {.x = weights + first,
                           .x_row = weight_ld,
                           .x_step = 1,
                           .panel = values.data + first * values.ld + column,
                           .panel_ld = values.ld,
                           .y = result + column,
                           .y_ld = t->pad,
                           .is_one_chain = true};
        multiply_panel(rows, PANEL, end - first, o, true);
    }
}

/* Keys that all queries of i0 .. i1-1 see; an empty stretch after all keys when none is. */
static void core_keys(const task *t, int64_t i0, int64_t i1, int64_t *first, int64_t *end) {
    int64_t unused;
    visible_keys(t, i1 - 1, first, &unused);
    visible_keys(t, i0, &unused, end);
    if (*first >= *end) *first = *end = INT64_MAX;
}

/* result = weights values over what each query sees: ragged start, core, ragged end, in key order. */
static void weigh_block(const task *t, const workspace *ws, const real *weights, int64_t i0,
                        int64_t i1, key_rows values, real *result) {
    const int64_t G = t->group, rows = (i1 - i0) * G;
    int64_t core_first, core_end;
    core_keys(t, i0, i1, &core_first, &core_end);
    memset(result, 0, (size_t)(rows * t->pad) * sizeof(real));
    for (int64_t i = i0; i < i1; i++) {
        int64_t first, end, row = (i - i0) * G;
        visible_keys(t, i, &first, &end);
        weigh_rows(t, weights + row * ws->score_ld, ws->score_ld, G, first,
                   least(end, core_first), values, result + row * t->pad);
    }
    weigh_rows(t, weights, ws->score_ld, rows, core_first, core_end, values, result);
    for (int64_t i = i0; i < i1; i++) {
        int64_t first, end, row = (i - i0) * G;
        visible_keys(t, i, &first, &end);
        weigh_rows(t, weights + row * ws->score_ld, ws->score_ld, G, most(first, core_end), end,
                   values, result + row * t->pad);
    }
}

/*
 * s[j] = exp(scale (s[j] - top)) for j < n, top the score whose multiple is the largest; the sum's log and inverse.
 * The difference comes first: of scale s[j] - scale top one product would be fused and the other rounded, and
 * beside a score of 1e10 the rounding alone is more than an exponential takes.
 */
static real softmax_row(real scale, real *s, int64_t n, real *inverse) {
    const real sign = scale < 0 ? -1 : 1;
    vec tops = splat(-(real)INFINITY);
    for (int64_t j = 0; j < n; j += VL) {
        vec turned = first_lanes(load_some(s + j, n - j) * sign, n - j, -(real)INFINITY);
        tops = larger(turned, tops);
    }
    real top = lane_max(tops) * sign;
    vec sums = {0};
    for (int64_t j = 0; j < n; j += VL) {
        vec p = vector_exp((load_some(s + j, n - j) - top) * scale);
        store_some(s + j, p, n - j);
        sums += first_lanes(p, n - j, 0);
    }
    real sum = lane_sum(sums);
    *inverse = 1 / sum;
    return scale * top + (real)log((double)sum);
}

static void forward_block(const task *t, const workspace *ws, key_rows values, int64_t i0,
                          int64_t i1, const real *q, real *out, real *lse) {
    const int64_t G = t->group, rows = (i1 - i0) * G, H = t->shape->heads;
    int64_t first, end, unused;
    visible_keys(t, i0, &first, &unused);
    visible_keys(t, i1 - 1, &unused, &end);
    copy_block(t, q, i0, i1, ws->queries);
    score_block(t, ws->queries, rows, first, end, ws->key_panels, ws->scores, ws->score_ld);
    for (int64_t i = i0; i < i1; i++) {
        visible_keys(t, i, &first, &end);
        for (int64_t g = 0; g < G; g++) {
            int64_t row = (i - i0) * G + g;
            /* The query is not read again: the row's 1 / sum waits in its place. */
            lse[(t->span->query_start + i) * H + t->head + g] =
                softmax_row(t->shape->scale, ws->scores + row * ws->score_ld + first,
                            end - first, &ws->queries[row * t->pad]);
        }
    }
    weigh_block(t, ws, ws->scores, i0, i1, values, ws->result);
    for (int64_t row = 0; row < rows; row++) {
        real inverse = ws->queries[row * t->pad];
        real *to = out + t->q_offset + (i0 + row / G) * t->q_row + row % G * t->width;
        for (int64_t e = 0; e < t->width; e++)
            to[e] = ws->result[row * t->pad + e] * inverse;
    }
}

static void forward_task(const task *t, const workspace *ws, int64_t from, int64_t to,
                         const real *q, real *out, real *lse) {
    int64_t first, end, unused, step = block_queries(t->group);
    visible_keys(t, from, &first, &unused);
    visible_keys(t, to - 1, &unused, &end);
    first = first / PANEL * PANEL;
    pack_panels(t, t->span->keys, first, end, ws->key_panels);
    key_rows values = {t->span->values + t->kv_offset, t->kv_row};
    if (t->width != t->pad || to - from > FEW_QUERIES) {
        copy_padded(values.data + first * t->kv_row, t->kv_row, end - first, t->width, t->pad,
                    ws->values + first * t->pad);
        values = (key_rows){ws->values, t->pad};
    }
    for (int64_t i = from; i < to; i += step)
        forward_block(t, ws, values, i, least(i + step, to), q, out, lse);
}

static task task_of(const icae_attention_shape *shape, const icae_attention_span *spans,
                    int64_t index) {
    const icae_attention_span *span = &spans[index / shape->kv_heads];
    int64_t kv = index % shape->kv_heads, E = shape->width, q_row = shape->heads * E;
    int64_t group = shape->heads / shape->kv_heads;
    return (task){.shape = shape,
                  .span = span,
                  .group = group,
                  .head = kv * group,
                  .width = E,
                  .pad = round_up(E, PANEL),
                  .q_row = q_row,
                  .q_offset = span->query_start * q_row + kv * group * E,
                  .kv_row = shape->kv_heads * E,
                  .kv_offset = kv * E};
}

/* The most keys of any span, and multiply-adds of one product over all. */
static int64_t measure(const icae_attention_shape *shape, int64_t n_spans,
                       const icae_attention_span *spans, int64_t *work) {
    int64_t keys = 1;
    *work = 0;
    for (int64_t s = 0; s < n_spans; s++) {
        assert(spans[s].n_queries <= spans[s].n_keys);
        keys = most(keys, spans[s].n_keys);
        *work += spans[s].n_queries * spans[s].n_keys * shape->heads * shape->width;
    }
    return keys;
}

static void attention(icae_backend *be, const icae_attention_shape *shape, int64_t n_spans,
                      const icae_attention_span *spans, const real *q, real *out, real *lse) {
    int64_t work, keys = measure(shape, n_spans, spans, &work);
    workspace sizes;
    size_t stride, bytes = lay_out(shape, keys, false, NULL, &sizes);
    char *scratch = icae_backend_scratch(be, bytes, &stride);
    if (!scratch) return;
    const int threads = work >= WORTH_THREADS ? be->n_threads : 1;
    const int64_t pairs = n_spans * shape->kv_heads;
    const int64_t chunks =
        pairs >= 4 * threads || pairs == 0 ? 1 : (4 * threads - 1) / pairs + 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t index = 0; index < pairs * chunks; index++) {
        task t = task_of(shape, spans, index / chunks);
        /* Chunks of whole blocks, as every chunk packs the keys anew. */
        int64_t step =
            round_up((t.span->n_queries + chunks - 1) / chunks, block_queries(t.group));
        int64_t from = index % chunks * step, to = least(from + step, t.span->n_queries);
        if (from >= to) continue;
        workspace ws;
        lay_out(shape, keys, false, scratch + (size_t)icae_cpu_thread() * stride, &ws);
        forward_task(&t, &ws, from, to, q, out, lse);
    }
}

/* ---- backward ---- */

/* In: p = scores, d_p = d_scores, of one row. Out: p and dS. */
static void backward_row(real scale, real lse, real delta, real *p, real *d_p, int64_t n) {
    for (int64_t j = 0; j < n; j += VL) {
        vec weight = vector_exp(load_some(p + j, n - j) * scale - lse);
        store_some(p + j, weight, n - j);
        store_some(d_p + j, weight * (load_some(d_p + j, n - j) - delta) * scale, n - j);
    }
}

static real row_dot(const real *a, const real *b, int64_t n) {
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL)
        sum += load_some(a + i, n - i) * load_some(b + i, n - i);
    return lane_sum(sum);
}

/* sums[j,:] += weights[r, j] x[r,:] over rows first_row .. end_row-1, for keys first .. end-1 */
static void collect_rows(const task *t, const real *weights, int64_t weight_ld, int64_t first,
                         int64_t end, int64_t first_row, int64_t end_row, const real *x,
                         real *sums) {
    if (first >= end || first_row >= end_row) return;
    for (int64_t column = 0; column < t->pad; column += PANEL) {
        tile_operands o = {.x = weights + first_row * weight_ld + first,
                           .x_row = 1,
                           .x_step = weight_ld,
                           .panel = x + first_row * t->pad + column,
                           .panel_ld = t->pad,
                           .y = sums + first * t->pad + column,
                           .y_ld = t->pad,
                           .is_one_chain = true};
        multiply_panel(end - first, PANEL, end_row - first_row, o, true);
    }
}

/* Keys before or after the core, one by one, each with the queries that see it: one stretch. */
static void collect_ragged(const task *t, const workspace *ws, const real *weights, int64_t i0,
                           int64_t i1, int64_t first, int64_t end, const real *x, real *sums) {
    const int64_t earlier = t->span->n_keys - t->span->n_queries, window = t->shape->window;
    for (int64_t j = first; j < end; j++) {
        int64_t from = most(i0, j - earlier), to = i1;
        if (window > 0) to = least(i1, j + window - earlier);
        collect_rows(t, weights, ws->score_ld, j, j + 1, (from - i0) * t->group,
                     (to - i0) * t->group, x, sums);
    }
}

/* sums[j,:] += weights^T x over the queries of the block that see key j */
static void collect_block(const task *t, const workspace *ws, const real *weights, int64_t i0,
                          int64_t i1, const real *x, real *sums) {
    int64_t first, end, core_first, core_end, unused;
    visible_keys(t, i0, &first, &unused);
    visible_keys(t, i1 - 1, &unused, &end);
    core_keys(t, i0, i1, &core_first, &core_end);
    collect_ragged(t, ws, weights, i0, i1, first, least(end, core_first), x, sums);
    collect_rows(t, weights, ws->score_ld, core_first, core_end, 0, (i1 - i0) * t->group, x,
                 sums);
    collect_ragged(t, ws, weights, i0, i1, core_end, end, x, sums);
}

static void backward_block(const task *t, const workspace *ws, int64_t i0, int64_t i1,
                           const real *q, const real *out, const real *lse, const real *d_out,
                           bool add, real *dq) {
    const int64_t G = t->group, rows = (i1 - i0) * G, H = t->shape->heads;
    int64_t first, end, unused;
    visible_keys(t, i0, &first, &unused);
    visible_keys(t, i1 - 1, &unused, &end);
    copy_block(t, q, i0, i1, ws->queries);
    copy_block(t, d_out, i0, i1, ws->d_out);
    score_block(t, ws->queries, rows, first, end, ws->key_panels, ws->scores, ws->score_ld);
    score_block(t, ws->d_out, rows, first, end, ws->value_panels, ws->d_scores, ws->score_ld);
    for (int64_t row = 0; row < rows; row++) {
        int64_t i = i0 + row / G, head = t->head + row % G;
        int64_t at = t->q_offset + i * t->q_row + row % G * t->width;
        real delta = row_dot(d_out + at, out + at, t->width);
        visible_keys(t, i, &first, &end);
        backward_row(t->shape->scale, lse[(t->span->query_start + i) * H + head], delta,
                     ws->scores + row * ws->score_ld + first,
                     ws->d_scores + row * ws->score_ld + first, end - first);
    }
    collect_block(t, ws, ws->scores, i0, i1, ws->d_out, ws->d_values);
    collect_block(t, ws, ws->d_scores, i0, i1, ws->queries, ws->d_keys);
    key_rows keys = {ws->keys, t->pad};
    weigh_block(t, ws, ws->d_scores, i0, i1, keys, ws->result);
    for (int64_t row = 0; row < rows; row++) {
        real *to = dq + t->q_offset + (i0 + row / G) * t->q_row + row % G * t->width;
        const real *from = ws->result + row * t->pad;
        for (int64_t e = 0; e < t->width; e++)
            to[e] = add ? to[e] + from[e] : from[e];
    }
}

/* The task's sums -> the span's d_keys or d_values. */
static void hand_out(const task *t, const real *sums, bool add, real *to) {
    for (int64_t j = 0; j < t->span->n_keys; j++) {
        real *row = to + t->kv_offset + j * t->kv_row;
        for (int64_t e = 0; e < t->width; e++)
            row[e] = add ? row[e] + sums[j * t->pad + e] : sums[j * t->pad + e];
    }
}

static void backward_task(const task *t, const workspace *ws, const real *q, const real *out,
                          const real *lse, const real *d_out, bool add, real *dq) {
    const icae_attention_span *span = t->span;
    const size_t sum_bytes = (size_t)(span->n_keys * t->pad) * sizeof(real);
    pack_panels(t, span->keys, 0, span->n_keys, ws->key_panels);
    pack_panels(t, span->values, 0, span->n_keys, ws->value_panels);
    copy_padded(span->keys + t->kv_offset, t->kv_row, span->n_keys, t->width, t->pad, ws->keys);
    memset(ws->d_keys, 0, sum_bytes);
    memset(ws->d_values, 0, sum_bytes);
    int64_t step = block_queries(t->group);
    for (int64_t i = 0; i < span->n_queries; i += step) {
        backward_block(t, ws, i, least(i + step, span->n_queries), q, out, lse, d_out, add, dq);
    }
    hand_out(t, ws->d_keys, add, span->d_keys);
    hand_out(t, ws->d_values, add, span->d_values);
}

static void attention_dx(icae_backend *be, const icae_attention_shape *shape, int64_t n_spans,
                         const icae_attention_span *spans, const real *q, const real *out,
                         const real *lse, const real *d_out, bool add, real *dq) {
    int64_t work, keys = measure(shape, n_spans, spans, &work);
    workspace sizes;
    size_t stride, bytes = lay_out(shape, keys, true, NULL, &sizes);
    char *scratch = icae_backend_scratch(be, bytes, &stride);
    if (!scratch) return;
    const int threads = work >= WORTH_THREADS ? be->n_threads : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t index = 0; index < n_spans * shape->kv_heads; index++) {
        task t = task_of(shape, spans, index);
        if (t.span->n_keys == 0) continue;
        workspace ws;
        lay_out(shape, keys, true, scratch + (size_t)icae_cpu_thread() * stride, &ws);
        backward_task(&t, &ws, q, out, lse, d_out, add, dq);
    }
}

void LEVEL_NAME(icae_cpu_attention_)(icae_kernels *table) {
    table->attention = attention;
    table->attention_dx = attention_dx;
}
