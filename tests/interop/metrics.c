/* SPDX-License-Identifier: MIT */
/*
 * Our scores of pairs of texts, for metrics.py. Standard input: JSON lines {"answer", "reference"};
 * standard output: a line of sentence BLEU, ROUGE-L, F1 and exact match each; last the corpus's BLEU.
 */
#include <stdio.h>
#include <stdlib.h>

#include "icae/json.h"
#include "icae/metrics.h"

typedef struct pair {
    const char *text[2];
    size_t bytes[2];
} pair;

static icae_status print_scores(const pair *p, icae_bleu *corpus, icae_error *error) {
    icae_bleu bleu = {0};
    double rouge, f1;
    bool is_exact;
    icae_status status =
        icae_bleu_add(&bleu, p->text[0], p->bytes[0], p->text[1], p->bytes[1], error);
    if (!status) {
        status = icae_rouge_l(p->text[0], p->bytes[0], p->text[1], p->bytes[1], &rouge, error);
    }
    if (!status) {
        status = icae_answer_score(p->text[0], p->bytes[0], p->text[1], p->bytes[1], &f1,
                                   &is_exact, error);
    }
    if (status) return status;
    icae_bleu_merge(corpus, &bleu);
    printf("%.17g %.17g %.17g %d\n", icae_bleu_sentence_score(&bleu), rouge, f1, is_exact);
    return ICAE_OK;
}

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    icae_bleu corpus = {0};
    icae_error error = {0};
    icae_status status = ICAE_OK;
    for (ssize_t n; !status && (n = getline(&line, &capacity, stdin)) > 0;) {
        icae_json *json;
        pair p = {{NULL, NULL}, {0, 0}};
        status = icae_json_parse(&json, "standard input", line, (size_t)n, &error);
        if (status) break;
        const icae_json_value *root = icae_json_root(json);
        static const char *const keys[2] = {"answer", "reference"};
        for (int i = 0; i < 2 && !status; i++) {
            const icae_json_value *text = icae_json_member(root, keys[i]);
            if (!icae_json_as_bytes(text, &p.text[i], &p.bytes[i]))
                status = icae_fail(&error, ICAE_FORMAT, "a line has no \"%s\"", keys[i]);
        }
        if (!status) status = print_scores(&p, &corpus, &error);
        icae_json_free(json);
    }
    free(line);
    if (status) fprintf(stderr, "metrics: %s\n", error.message);
    if (!status) printf("%.17g\n", icae_bleu_score(&corpus));
    return status || fflush(stdout) ? 1 : 0;
}
