/* SPDX-License-Identifier: MIT */
/* Words to numbers by sorting: no hash, so no collisions. See words.h. */
#include "words.h"

#include <stdlib.h>
#include <string.h>

typedef struct word {
    const char *text;
    size_t bytes;
    size_t place; /* among the words of both texts */
} word;

static int compare_texts(const word *x, const word *y) {
    int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_words(const void *a, const void *b) {
    return compare_texts(a, b);
}

static size_t count_words(const icae_text *text) {
    size_t count = text->length > 0;
    for (size_t i = 0; i < text->length; i++)
        count += text->data[i] == ' ';
    return count;
}

static void split_words(const icae_text *text, word *words, size_t first_place) {
    size_t count = 0;
    const char *at = text->data, *end = at + text->length;
    while (text->length && at <= end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        const char *stop = space ? space : end;
        words[count] = (word){at, (size_t)(stop - at), first_place + count};
        count++;
        at = stop + 1;
    }
}

icae_status icae_words_number(const icae_text texts[2], int64_t **ids, size_t counts[2],
                              icae_error *error) {
    *ids = NULL;
    for (int i = 0; i < 2; i++)
        counts[i] = count_words(&texts[i]);
    size_t total = counts[0] + counts[1];
    /* One spare element: an allocation of nothing may be NULL. */
    word *words = calloc(total + 1, sizeof *words);
    int64_t *numbers = calloc(total + 1, sizeof *numbers);
    if (texts[0].failed || texts[1].failed || !words || !numbers) {
        free(words);
        free(numbers);
        return icae_fail_memory(error, "the words of two texts");
    }
    split_words(&texts[0], words, 0);
    split_words(&texts[1], words + counts[0], counts[0]);
    if (total) qsort(words, total, sizeof *words, compare_words);
    int64_t id = 0;
    for (size_t i = 0; i < total; i++) {
        if (i && compare_texts(words + i - 1, words + i) != 0) id++;
        numbers[words[i].place] = id;
    }
    free(words);
    *ids = numbers;
    return ICAE_OK;
}
