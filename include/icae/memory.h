/* SPDX-License-Identifier: MIT */
/*
 * Memory by lifetime.
 *
 * icae_arena: many small things that die together (a tokenizer's tables, a model's description).
 * Allocation is a pointer bump; nothing is freed singly. 64-byte aligned, zeroed.
 *
 * icae_pool: large buffers of few sizes that come and go inside a training step. A released buffer
 * waits in a free list of its own size class, so from the second step on nothing is asked of the
 * system. 64-byte aligned, NOT zeroed.
 *
 * Neither is safe for use by two threads at once. Every allocator returns NULL when memory ends.
 */
#ifndef ICAE_MEMORY_H
#define ICAE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ICAE_ALIGNMENT 64u /* a cache line, and the widest vector register */

/* a * b (and a + b) when it fits in size_t: true and *result; else false. */
bool icae_size_mul(size_t a, size_t b, size_t *result);
bool icae_size_add(size_t a, size_t b, size_t *result);

/* 64-byte aligned; freed with icae_aligned_free. The first is not zeroed, the second is. */
void *icae_aligned_alloc(size_t bytes);
void *icae_aligned_calloc(size_t count, size_t bytes);
void icae_aligned_free(void *memory);

typedef struct icae_arena_block icae_arena_block;
typedef struct icae_arena {
    icae_arena_block *blocks; /* newest first */
    size_t total_bytes;       /* asked from the system so far */
} icae_arena;

/* A zeroed struct is an empty arena. release frees everything and leaves an empty arena. */
void icae_arena_release(icae_arena *arena);
/* Forgets everything but keeps the memory, as one block from the second time on. */
void icae_arena_clear(icae_arena *arena);
void *icae_arena_alloc(icae_arena *arena, size_t bytes);
void *icae_arena_array(icae_arena *arena, size_t count,
                       size_t bytes_each);       /* checked product */
size_t icae_arena_used(const icae_arena *arena); /* bytes given out: pages that were touched */
char *icae_arena_copy(icae_arena *arena, const char *text, size_t length); /* adds a final 0 */

/* Gives freed memory back to the system now, where malloc would keep it for later. Takes milliseconds. */
void icae_memory_return(void);

typedef struct icae_pool icae_pool;
icae_pool *icae_pool_create(void);
void icae_pool_free(icae_pool *pool); /* asserts that nothing is out */
void *icae_pool_acquire(icae_pool *pool, size_t bytes);
void icae_pool_release(icae_pool *pool, void *buffer); /* NULL is allowed */
void icae_pool_trim(icae_pool *pool);                  /* gives waiting buffers to the system */
size_t icae_pool_bytes_out(const icae_pool *pool);     /* held by callers now */
size_t icae_pool_bytes_peak(const icae_pool *pool);    /* the most that was held at one time */
size_t icae_pool_buffers_out(const icae_pool *pool);
/* What a buffer for so many bytes really has: its size class. 0: more than a pool gives. */
size_t icae_pool_capacity(size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
