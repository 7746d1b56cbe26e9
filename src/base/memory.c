/* SPDX-License-Identifier: MIT */
/*
 * Arenas and pools; see icae/memory.h.
 *
 * A pool rounds a request up to one of eight classes per power of two (at most 12.5 % waste), and
 * keeps one singly linked free list per class. A header of one cache line in front of the buffer
 * holds the class, so release needs no size.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "icae/memory.h"

bool icae_size_mul(size_t a, size_t b, size_t *result) {
    return !__builtin_mul_overflow(a, b, result);
}

bool icae_size_add(size_t a, size_t b, size_t *result) {
    return !__builtin_add_overflow(a, b, result);
}

void *icae_aligned_alloc(size_t bytes) {
    size_t padded;
    if (!icae_size_add(bytes, ICAE_ALIGNMENT - 1, &padded)) return NULL;
    padded &= ~(size_t)(ICAE_ALIGNMENT - 1);
    return aligned_alloc(ICAE_ALIGNMENT, padded ? padded : ICAE_ALIGNMENT);
}

void *icae_aligned_calloc(size_t count, size_t bytes) {
    size_t total;
    if (!icae_size_mul(count, bytes, &total)) return NULL;
    void *memory = icae_aligned_alloc(total);
    if (memory) memset(memory, 0, total);
    return memory;
}

void icae_aligned_free(void *memory) {
    free(memory);
}

void icae_memory_return(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* ---- arena ---- */

struct icae_arena_block {
    icae_arena_block *next;
    size_t used, capacity; /* bytes of data, header excluded */
};

enum {
    BLOCK_HEADER = ICAE_ALIGNMENT,
    FIRST_BLOCK_BYTES = 4 * 1024,
    MOST_BLOCK_BYTES = 256 * 1024
};

/* Blocks double, so that an arena of a few hundred bytes stays small. */
static size_t next_capacity(const icae_arena *arena) {
    size_t capacity =
        arena->total_bytes > FIRST_BLOCK_BYTES ? arena->total_bytes : FIRST_BLOCK_BYTES;
    return capacity < MOST_BLOCK_BYTES ? capacity : MOST_BLOCK_BYTES;
}

void icae_arena_release(icae_arena *arena) {
    for (icae_arena_block *block = arena->blocks; block;) {
        icae_arena_block *next = block->next;
        icae_aligned_free(block);
        block = next;
    }
    *arena = (icae_arena){0};
}

void icae_arena_clear(icae_arena *arena) {
    icae_arena_block *block = arena->blocks;
    if (!block) return;
    if (block->next) { /* it grew: next time one block holds all of it */
        size_t total = arena->total_bytes;
        icae_arena_release(arena);
        icae_arena_alloc(arena, total); /* failure shows at the next allocation */
        block = arena->blocks;
    }
    if (block) block->used = 0;
}

void *icae_arena_alloc(icae_arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + ICAE_ALIGNMENT - 1) & ~(size_t)(ICAE_ALIGNMENT - 1);
    icae_arena_block *block = arena->blocks;
    if (!block || block->capacity - block->used < bytes) {
        size_t capacity = next_capacity(arena);
        if (capacity < bytes) capacity = bytes;
        icae_arena_block *fresh = icae_aligned_alloc(BLOCK_HEADER + capacity);
        if (!fresh) return NULL;
        *fresh = (icae_arena_block){.next = block, .capacity = capacity};
        arena->total_bytes += BLOCK_HEADER + capacity;
        arena->blocks = fresh;
        block = fresh;
    }
    char *memory = (char *)block + BLOCK_HEADER + block->used;
    block->used += bytes;
    memset(memory, 0, bytes);
    return memory;
}

void *icae_arena_array(icae_arena *arena, size_t count, size_t bytes_each) {
    size_t bytes;
    return icae_size_mul(count, bytes_each, &bytes) ? icae_arena_alloc(arena, bytes) : NULL;
}

size_t icae_arena_used(const icae_arena *arena) {
    size_t sum = 0;
    for (const icae_arena_block *block = arena->blocks; block; block = block->next)
        sum += block->used;
    return sum;
}

char *icae_arena_copy(icae_arena *arena, const char *text, size_t length) {
    char *copy = length < SIZE_MAX ? icae_arena_alloc(arena, length + 1) : NULL;
    if (copy && length) memcpy(copy, text, length);
    return copy;
}

/* ---- pool ---- */

enum { CLASS_COUNT = 64 * 8, BUFFER_HEADER = ICAE_ALIGNMENT };

typedef struct pool_buffer {
    struct pool_buffer *next; /* while it waits */
    size_t capacity;
    int size_class;
} pool_buffer;

struct icae_pool {
    pool_buffer *waiting[CLASS_COUNT];
    size_t bytes_out, bytes_peak, buffers_out;
};

/* The class of a size: its power of two, then which eighth of the way to the next one. */
static int size_class_of(size_t bytes, size_t *capacity) {
    if (bytes < 1024) bytes = 1024;
    int power = 63 - __builtin_clzll((unsigned long long)bytes);
    size_t step = (size_t)1 << (power - 3);
    size_t eighth = (bytes - ((size_t)1 << power) + step - 1) / step;
    if (eighth == 8) {
        power++;
        eighth = 0;
        step *= 2;
    }
    *capacity = ((size_t)1 << power) + eighth * step;
    return power * 8 + (int)eighth;
}

size_t icae_pool_capacity(size_t bytes) {
    size_t capacity;
    if (bytes > SIZE_MAX / 4) return 0;
    size_class_of(bytes, &capacity);
    return capacity;
}

icae_pool *icae_pool_create(void) {
    return calloc(1, sizeof(icae_pool));
}

void icae_pool_free(icae_pool *pool) {
    if (!pool) return;
    assert(pool->buffers_out == 0);
    icae_pool_trim(pool);
    free(pool);
}

void *icae_pool_acquire(icae_pool *pool, size_t bytes) {
    if (bytes > SIZE_MAX / 4) return NULL;
    size_t capacity;
    int size_class = size_class_of(bytes, &capacity);
    pool_buffer *buffer = pool->waiting[size_class];
    if (buffer) {
        pool->waiting[size_class] = buffer->next;
    } else {
        buffer = icae_aligned_alloc(BUFFER_HEADER + capacity);
        if (!buffer) { /* what waits in other classes may be what is missing */
            icae_pool_trim(pool);
            buffer = icae_aligned_alloc(BUFFER_HEADER + capacity);
        }
        if (!buffer) return NULL;
        *buffer = (pool_buffer){.capacity = capacity, .size_class = size_class};
    }
    pool->bytes_out += buffer->capacity;
    pool->buffers_out++;
    if (pool->bytes_out > pool->bytes_peak) pool->bytes_peak = pool->bytes_out;
    return (char *)buffer + BUFFER_HEADER;
}

void icae_pool_release(icae_pool *pool, void *memory) {
    if (!memory) return;
    pool_buffer *buffer = (pool_buffer *)(void *)((char *)memory - BUFFER_HEADER);
    assert(pool->buffers_out > 0 && pool->bytes_out >= buffer->capacity);
    pool->bytes_out -= buffer->capacity;
    pool->buffers_out--;
    buffer->next = pool->waiting[buffer->size_class];
    pool->waiting[buffer->size_class] = buffer;
}

void icae_pool_trim(icae_pool *pool) {
    for (int c = 0; c < CLASS_COUNT; c++) {
        while (pool->waiting[c]) {
            pool_buffer *buffer = pool->waiting[c];
            pool->waiting[c] = buffer->next;
            icae_aligned_free(buffer);
        }
    }
}

size_t icae_pool_bytes_out(const icae_pool *pool) {
    return pool->bytes_out;
}

size_t icae_pool_bytes_peak(const icae_pool *pool) {
    return pool->bytes_peak;
}

size_t icae_pool_buffers_out(const icae_pool *pool) {
    return pool->buffers_out;
}
