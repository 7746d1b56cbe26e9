/* SPDX-License-Identifier: MIT */
/*
 * Spans and positions; the formulas stand in icae/layout.h.
 *
 * No span is empty. With c = k * rate, n = ceil(L / c) and l = ceil(L / n), the spans that hold
 * something are ceil(L / l). n c >= L makes l <= c, so they are no fewer than n; n l >= L makes them
 * no more than n. (A count that is not ceil(L / c) of a whole c can leave empty ones: 9 tokens in 6
 * spans are 2 2 2 2 1 0.)
 */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "icae/layout.h"

const char *const icae_layout_names[] = {"uniform", "append", NULL};
const char *const icae_task_names[] = {"ae", "lm", "ft", NULL};

static int64_t divide_up(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

int64_t icae_span_count(int64_t length, int64_t slots, int64_t rate) {
    assert(length >= 0 && slots > 0 && rate > 0);
    return length ? divide_up(length, slots * rate) : 1;
}

int64_t icae_span_length(int64_t length, int64_t count, int64_t index) {
    assert(length >= 0 && count > 0 && index >= 0 && index < count);
    int64_t each = divide_up(length, count), rest = length - index * each;
    if (rest <= 0) return 0;
    return rest < each ? rest : each;
}

/* Rounds a / b to the nearest integer, halves to the even one; b > 0. */
static int64_t divide_even(int64_t a, int64_t b) {
    int64_t quotient = a / b, rest = a % b;
    if (rest < 0) { /* C cuts towards zero; here the quotient is the floor */
        quotient--;
        rest += b;
    }
    bool is_odd = quotient % 2 != 0;
    return quotient + (2 * rest > b || (2 * rest == b && is_odd));
}

int32_t icae_slot_position(int64_t j, int64_t x1, int64_t n, int64_t k) {
    assert(k > 0 && j >= 0 && j < k && n >= 0);
    return (int32_t)(x1 + divide_even((2 * j + 1) * n - k, 2 * k));
}

void icae_slot_share(int64_t j, int64_t n, int64_t k, int64_t *first, int64_t *end) {
    assert(k > 0 && j >= 0 && j < k && n > 0);
    *first = j * n / k;
    *end = divide_up((j + 1) * n, k);
}

/* count positions from `first` on; returns where the next ones go. */
static int32_t *count_up(int32_t *out, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        *out++ = (int32_t)(first + i);
    return out;
}

static int32_t *spread_slots(int32_t *out, int64_t x1, int64_t n, int64_t k) {
    for (int64_t j = 0; j < k; j++)
        *out++ = icae_slot_position(j, x1, n, k);
    return out;
}

void icae_encoder_positions(icae_layout layout, int64_t n, int64_t k, int32_t *out) {
    if (layout == ICAE_LAYOUT_APPEND) {
        count_up(out, 0, n + k);
        return;
    }
    out = count_up(out, 1, n);
    spread_slots(out, 1, n, k);
}

void icae_decoder_positions(icae_layout layout, icae_task task, int64_t n_prefix,
                            int64_t n_spans, const int32_t *span_lengths, const bool *is_raw,
                            int64_t k, int64_t n_after, int32_t *out) {
    if (layout == ICAE_LAYOUT_APPEND) {
        int64_t rows = 0;
        for (int64_t s = 0; s < n_spans; s++)
            rows += is_raw && is_raw[s] ? span_lengths[s] : k;
        count_up(out, 0, n_prefix + rows + n_after);
        return;
    }
    /* The text begins at 1 + shift: position 0 is the AE token's, or that of the prefix's first. */
    int64_t shift = n_prefix > 1 ? n_prefix - 1 : 0, start = 0;
    out = count_up(out, 0, n_prefix);
    for (int64_t s = 0; s < n_spans; s++) {
        int64_t first = 1 + shift + start, n = span_lengths[s];
        out = is_raw && is_raw[s] ? count_up(out, first, n) : spread_slots(out, first, n, k);
        start += n;
    }
    count_up(out, task == ICAE_TASK_AE ? 0 : start + shift, n_after);
}
