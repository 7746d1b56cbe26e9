/* SPDX-License-Identifier: MIT */
/* Tables of characters: ascending ranges that do not overlap, with what is known of the characters in each. */
#ifndef ICAE_RANGES_H
#define ICAE_RANGES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What every row begins with: the characters first .. last, both included. */
typedef struct icae_range {
    int32_t first, last;
} icae_range;

/* The number of the row that holds point among n rows of row_bytes each, or -1. */
static inline ptrdiff_t icae_range_find(const void *rows, size_t n, size_t row_bytes,
                                        int32_t point) {
    icae_range range;
    size_t low = 0, high = n;
    while (low < high) { /* the first range whose last is not below point */
        size_t middle = low + (high - low) / 2;
        memcpy(&range, (const char *)rows + middle * row_bytes, sizeof range);
        if (range.last < point)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == n) return -1;
    memcpy(&range, (const char *)rows + low * row_bytes, sizeof range);
    return range.first <= point ? (ptrdiff_t)low : -1;
}

#endif
