/* SPDX-License-Identifier: MIT */
/*
 * A backend that only counts; what it is for stands in icae/rehearsal.h.
 *
 * Its table is made from kernels.def: every kernel does nothing, but for
 *     acquire, release      keep the book of buffers: size classes and waiting lists as the pool has them
 *     products in bfloat16  take the work space that the real ones take for the rounded rows
 *
 * A buffer is a small struct, and its address stands for the memory that it would have. Nobody reads or
 * writes there: ops touch tensors through kernels alone.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "icae/rehearsal.h"

/* ---- the book of buffers ---- */

typedef struct buffer {
    struct buffer *next; /* while it waits */
    size_t capacity;
    size_t written; /* the most that was asked of it: pages behind it are never touched */
} buffer;

enum { MOST_CLASSES = 512 }; /* as many as the pool has */

typedef struct book {
    icae_backend be; /* first: kernels get its address */
    buffer *waiting[MOST_CLASSES];
    size_t capacities[MOST_CLASSES];
    int n_classes;
    size_t held_bytes;
    icae_footprint peak;
    bool is_wide; /* rounded rows stay floats: the level has no instruction for bfloat16 */
} book;

static book *book_of(icae_backend *be) {
    return (book *)(void *)be;
}

static buffer **waiting_of(book *b, size_t capacity) {
    int i = 0;
    while (i < b->n_classes && b->capacities[i] != capacity)
        i++;
    assert(i < MOST_CLASSES);
    if (i == b->n_classes) b->capacities[b->n_classes++] = capacity;
    return &b->waiting[i];
}

static void *count_acquire(icae_backend *be, size_t bytes) {
    book *b = book_of(be);
    size_t capacity = icae_pool_capacity(bytes);
    if (!capacity) return NULL;
    buffer **waiting = waiting_of(b, capacity), *taken = *waiting;
    if (taken) {
        *waiting = taken->next;
    } else {
        taken = calloc(1, sizeof *taken);
        if (!taken) return NULL;
        taken->capacity = capacity;
    }
    if (bytes > taken->written) {
        b->peak.resident_bytes += bytes - taken->written;
        taken->written = bytes;
    }
    b->held_bytes += capacity;
    if (b->held_bytes > b->peak.held_bytes) b->peak.held_bytes = b->held_bytes;
    return taken;
}

static void count_release(icae_backend *be, void *memory) {
    book *b = book_of(be);
    if (!memory) return;
    buffer *given = memory, **waiting = waiting_of(b, given->capacity);
    b->held_bytes -= given->capacity;
    given->next = *waiting;
    *waiting = given;
}

static void free_waiting(book *b) {
    assert(b->held_bytes == 0);
    for (int i = 0; i < b->n_classes; i++) {
        while (b->waiting[i]) {
            buffer *next = b->waiting[i]->next;
            free(b->waiting[i]);
            b->waiting[i] = next;
        }
    }
}

/* ---- kernels ---- */

/* Rows of none of the names below: a body that fits every kernel, whatever it returns. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wpedantic"
#define KERNEL(type, name, arguments)                                                          \
    static type idle_##name arguments {                                                        \
        return (type)0;                                                                        \
    }
#include "backend/kernels.def"
#undef KERNEL
#pragma GCC diagnostic pop

/* The rows of x [T,K], rounded: two bytes each and an odd number of cache lines a row (cpu_bf16.c), or the
 * floats that stand for them (cpu_linear.c). */
static void count_rounded(icae_backend *be, int64_t T, int64_t K) {
    enum { LINE_VALUES = 32 };
    int64_t padded = ((K + LINE_VALUES - 1) / LINE_VALUES | 1) * LINE_VALUES;
    size_t row = book_of(be)->is_wide ? (size_t)K * sizeof(icae_real)
                                      : (size_t)padded * sizeof(uint16_t);
    count_release(be, count_acquire(be, (size_t)T * row));
}

static void count_linear_bf16(icae_backend *be, int64_t T, int64_t N, int64_t K,
                              const icae_real *x, const icae_matrix *w, bool add,
                              icae_real *y) {
    (void)N, (void)x, (void)w, (void)add, (void)y;
    count_rounded(be, T, K);
}

static void count_linear_bf16_dx(icae_backend *be, int64_t T, int64_t N, int64_t K,
                                 const icae_real *dy, const icae_matrix *w, bool add,
                                 icae_real *dx) {
    (void)K, (void)dy, (void)w, (void)add, (void)dx;
    count_rounded(be, T, N);
}

static void fill_table(icae_kernels *table) {
#define KERNEL(type, name, arguments) table->name = idle_##name;
#include "backend/kernels.def"
#undef KERNEL
    table->acquire = count_acquire;
    table->release = count_release;
    table->linear_bf16 = count_linear_bf16;
    table->linear_bf16_dx = count_linear_bf16_dx;
}

/* ---- the pass ---- */

/* Copies with ids where there were none: token 0, as no number is looked at. */
typedef struct stand_in {
    icae_batch batch;
    icae_context *contexts;
    icae_job *jobs;
    int32_t *ids;
} stand_in;

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static void stand_in_release(stand_in *s) {
    free(s->contexts);
    free(s->jobs);
    free(s->ids);
}

static icae_status stand_in_make(stand_in *s, const icae_batch *batch, icae_error *error) {
    size_t n_contexts = (size_t)batch->n_contexts, n_jobs = (size_t)batch->n_jobs;
    int64_t longest = 1;
    *s = (stand_in){.contexts = calloc(n_contexts + 1, sizeof *s->contexts),
                    .jobs = calloc(n_jobs + 1, sizeof *s->jobs)};
    for (size_t i = 0; i < n_contexts; i++)
        longest = larger(longest, batch->contexts[i].n);
    for (size_t i = 0; i < n_jobs; i++) {
        const icae_job *job = &batch->jobs[i];
        longest = larger(larger(longest, job->n_prefix), larger(job->n_prompt, job->n_target));
    }
    s->ids = calloc((size_t)longest, sizeof *s->ids);
    if (!s->contexts || !s->jobs || !s->ids) {
        stand_in_release(s);
        return icae_fail_memory(error, "the rehearsal of a step");
    }
    for (size_t i = 0; i < n_contexts; i++) {
        s->contexts[i] = batch->contexts[i];
        s->contexts[i].ids = s->ids;
    }
    for (size_t i = 0; i < n_jobs; i++) {
        s->jobs[i] = batch->jobs[i];
        s->jobs[i].prefix = s->jobs[i].prompt = s->jobs[i].target = s->ids;
    }
    s->batch = (icae_batch){s->contexts, batch->n_contexts, s->jobs, batch->n_jobs};
    return ICAE_OK;
}

icae_status icae_rehearse(icae_footprint *footprint, const icae_backend *like,
                          const icae_model *model, const icae_adapter *adapter,
                          const icae_batch *batch, icae_compute compute, bool is_recording,
                          bool is_checkpointed, icae_error *error) {
    *footprint = (icae_footprint){0};
    book *b = calloc(1, sizeof *b);
    if (!b) return icae_fail_memory(error, "the rehearsal of a step");
    b->be =
        (icae_backend){.name = "rehearsal", .compute = compute, .n_threads = like->n_threads};
    b->is_wide = !like->has_fast_bf16;
    fill_table(&b->be.k);
    stand_in s;
    icae_graph *graph = NULL;
    icae_status status = stand_in_make(&s, batch, error);
    if (status) {
        free(b);
        return status;
    }
    status = icae_graph_create(&graph, &b->be, error);
    if (!status) {
        icae_graph_begin(graph, is_recording, false);
        icae_run run = {.is_training = is_recording, .is_checkpointed = is_checkpointed};
        icae_tensor *loss = icae_batch_loss(graph, model, adapter, &s.batch, &run, NULL, NULL);
        status = icae_graph_status(graph, error);
        if (!status && is_recording) status = icae_graph_backward(graph, loss, error);
    }
    if (!status) *footprint = b->peak;
    icae_graph_free(graph);
    free_waiting(b);
    stand_in_release(&s);
    free(b);
    return status;
}
