/* SPDX-License-Identifier: MIT */
/* Numbers and names on a table of texts; reports of the golden llama by identity: against the suite ae, and the
 * parts of a report against each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/evaluate.h"
#include "icae/fidelity.h"
#include "scene_support.h"
#include "suites.h"

static icae_error error;

/* ---- numbers and names ---- */

START_TEST(numbers_and_names_are_what_the_rule_says) {
    /* What is found, a space between; numbers in brackets. */
    static const struct {
        const char *text, *found;
    } cases[] = {
        {"In 1912 the Titanic sank.", "[1912] Titanic"},
        {"Anna met Bob. Carl met Dora! Emil? \"Fritz,\" said Gustav.", "Bob Dora Gustav"},
        {"I think I'm with Mr O'Brien-Smith, and I'll stay", "Mr O'Brien-Smith"},
        {"It cost 3.14, 1,000 or 24/7 on the 18th (B2).", "[3.14] [1,000] [24/7] [18th] [B2]"},
        {"we ate\nYesterday they ate Crêpes", "Crêpes"},
        {"Sie fuhr nach Österreich und Ägypten; der Москва Hof",
         "Österreich Ägypten Москва Hof"},
        {"Chapter 7: The End", "[7] The End"},
        {"NASA said NASA", "NASA"},
        {"It is PROVIDED \"AS IS\", WITHOUT 2 OF A KIND, says MIT", "[2] MIT"},
        {"from IBM PC to UN, of US NAVY MEN", "IBM PC UN"},
        {"to whom it may ΑΒΓ ДЕЖ ÄÖÜ", ""},
        {"of the E\xCC\x81TAT DE DROIT", ""}, /* an accent by itself */
        {"of 東京 大阪 京都 NASA HQ", "NASA HQ"},
        {"a... Then (Then) 'Then", "Then Then"},
        {"x = y_2, e^3", "[2] [3]"},
        {"", ""},
        {"no such thing", ""},
        {"U.S. troops saw the U.S. flag", "U.S"},
        {"ends with 42", "[42]"},
        {"\xF0\x9F Bad \xC3( Bytes 5\xE2", "Bad Bytes [5]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_fidelity_mark *marks;
        int64_t n;
        icae_text found = {0};
        const char *text = cases[i].text;
        ck_ok(icae_fidelity_find_marks(text, strlen(text), &marks, &n, &error));
        for (int64_t m = 0; m < n; m++) {
            icae_text_printf(&found, marks[m].is_number ? "%s[%.*s]" : "%s%.*s", m ? " " : "",
                             (int)(marks[m].end - marks[m].first), text + marks[m].first);
            ck_assert(!marks[m].is_lost);
        }
        ck_assert_str_eq(icae_text_string(&found), cases[i].found);
        icae_text_release(&found);
        free(marks);
    }
}
END_TEST

START_TEST(a_mark_is_kept_as_a_word_of_its_own) {
    /* [lost] of the text, {added} to what was restored; the rest stands in both. */
    static const struct {
        const char *text, *restored;
        bool is_lost;
    } cases[] = {
        {"is 1205 m", "is 1205 m", false},
        {"is 1205 m", "is{ about} 1205{ long} m", false},
        {"is 1205 m", "is 1205{, and} m", false},
        {"is 1205 m", "is {(}1205{)} m", false},
        {"is 12[0]5 m", "is 125 m", true},
        {"is 1205 m", "is 12{0}05 m", true},
        {"is 1205 m", "is 1205{5} m", true},
        {"is 1205 m", "is 1205{.5} m", true},
        {"is 1205 m", "is {1}1205 m", true},
        {"is 1205[ ]m", "is 1205m", true},
        {"of Anna", "of {the }Anna", false},
        {"of Anna", "of Anna{s}", true},
        {"of Malm\xC3\xB6", "of Malm\xC3\xB6", false},
        {"of [M]alm\xC3\xB6", "of {H}alm\xC3\xB6", true},
        {"of [Bob]", "of ", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_text text = {0}, restored = {0};
        size_t places[64], n_kept = 0, at_kept[64];
        bool is_out = false;
        for (const char *c = cases[i].restored; *c; c++) {
            if (*c == '{' || *c == '}') {
                is_out = *c == '{';
                continue;
            }
            if (!is_out) at_kept[n_kept++] = restored.length;
            icae_text_append_char(&restored, *c);
        }
        size_t next = 0;
        is_out = false;
        for (const char *c = cases[i].text; *c; c++) {
            if (*c == '[' || *c == ']') {
                is_out = *c == '[';
                continue;
            }
            places[text.length] = is_out ? SIZE_MAX : at_kept[next++];
            icae_text_append_char(&text, *c);
        }
        ck_assert_uint_eq(next, n_kept);
        icae_fidelity_mark *marks;
        int64_t n;
        ck_ok(icae_fidelity_find_marks(text.data, text.length, &marks, &n, &error));
        ck_assert_int_eq(n, 1);
        ck_ok(icae_fidelity_judge_marks(marks, n, restored.data, restored.length, places,
                                        &error));
        ck_assert_msg(marks[0].is_lost == cases[i].is_lost, "%s -> %s", cases[i].text,
                      cases[i].restored);
        free(marks);
        icae_text_release(&text);
        icae_text_release(&restored);
    }
}
END_TEST

/* ---- reports ---- */

static const icae_fidelity_how quietly = {0};

START_TEST(a_report_agrees_with_itself) {
    scene s;
    scene_open(&s, 0);
    icae_fidelity f = {0};
    ck_ok(icae_fidelity_measure(s.graph, s.model, s.adapter, s.ids, &s.slots, &quietly, &f,
                                &error));
    ck_assert_str_eq(icae_text_string(&f.text), scene_text);
    ck_assert_int_gt(f.n_spans, 1);
    ck_assert_int_eq(f.n_tokens, s.slots.n_tokens);
    ck_assert_uint_eq(f.starts[0], 0);
    ck_assert_uint_eq(f.starts[f.n_spans], f.text.length);
    int64_t kept = 0, tokens = 0;
    for (int64_t i = 0; i < f.n_spans; i++) {
        const icae_fidelity_span *span = &f.spans[i];
        ck_assert_int_eq(span->first, tokens);
        tokens += span->n;
        kept += span->n_kept;
        ck_assert_int_ge(span->n_kept, span->n_in_place);
        /* The kept tokens of the span, in order, are the right ones of what was restored. */
        int64_t at = 0, right = 0;
        for (int64_t j = 0; j < span->n_restored; j++) {
            if (!span->is_right[j]) continue;
            while (!f.is_kept[span->first + at])
                ck_assert_int_lt(++at, span->n);
            ck_assert_int_eq(span->restored[j], s.ids[span->first + at++]);
            right++;
        }
        ck_assert_int_eq(right, span->n_kept);
    }
    ck_assert_int_eq(kept, f.n_kept);
    ck_assert_int_eq(tokens, f.n_tokens);
    ck_assert_int_eq(f.n_numbers, 2);
    ck_assert_int_eq(f.n_names, 4);                         /* Anna, Malmö, May, Olaf */
    ck_assert_int_gt(f.n_numbers_lost + f.n_names_lost, 0); /* nobody trained it */
    ck_assert_int_gt(f.n_continuation, 10);
    icae_fidelity_release(&f);
    scene_close(&s);
}
END_TEST

START_TEST(a_span_is_what_the_suite_measures_of_it) {
    scene s;
    scene_open(&s, 0);
    icae_fidelity f = {0};
    ck_ok(icae_fidelity_measure(s.graph, s.model, s.adapter, s.ids, &s.slots, &quietly, &f,
                                &error));
    const icae_eval_suite *ae = icae_eval_suite_find("ae");
    const icae_eval_engine engine = {s.graph, s.model, s.adapter};
    double nll = 0;
    for (int64_t i = 0; i < f.n_spans; i++) {
        const icae_fidelity_span *span = &f.spans[i];
        icae_eval_settings settings = {.samples = 0};
        icae_eval_item item = {.ids = s.ids + span->first, .n = span->n};
        icae_eval_row row = {.texts = NULL};
        ck_ok(ae->measure(&engine, &settings, &item, 1, &row, &error));
        free(row.texts);
        ck_assert_double_eq(span->nll, row.values[icae_eval_value(ae, "nll")]);
        ck_assert_double_eq((double)span->n_restored,
                            row.values[icae_eval_value(ae, "restored_tokens")]);
        nll += span->nll;
    }
    ck_assert_double_eq_tol(f.nll, nll, 1e-9 * nll);
    ck_assert_int_eq(f.n_targets, f.n_tokens + f.n_spans);
    /* and of the whole text, the same spans one after the other */
    icae_eval_settings settings = {.samples = 0};
    icae_eval_item item = {.ids = s.ids, .n = f.n_tokens};
    icae_eval_row row = {.texts = NULL};
    ck_ok(ae->measure(&engine, &settings, &item, 1, &row, &error));
    free(row.texts);
    ck_assert_double_eq_tol(row.values[icae_eval_value(ae, "nll")], nll, 1e-6 * nll);
    ck_assert_double_eq(row.values[icae_eval_value(ae, "targets")], (double)f.n_targets);
    double restored = 0;
    for (int64_t i = 0; i < f.n_spans; i++)
        restored += (double)f.spans[i].n_restored;
    ck_assert_double_eq(row.values[icae_eval_value(ae, "restored_tokens")], restored);
    icae_fidelity_release(&f);
    scene_close(&s);
}
END_TEST

static bool stop(void *user, const char *verb, int64_t done, int64_t total) {
    ck_assert_str_eq(verb, "restored");
    ck_assert_int_le(done, total);
    return (*(int *)user)-- > 0;
}

START_TEST(a_page_marks_what_was_lost_and_escapes_the_text) {
    scene s;
    scene_open(&s, 0);
    icae_fidelity f = {0};
    ck_ok(icae_fidelity_measure(s.graph, s.model, s.adapter, s.ids, &s.slots, &quietly, &f,
                                &error));
    icae_text page = {0};
    const icae_fidelity_source source = {"a<b>.txt", "base", "adapter", "icae compress <x>"};
    ck_ok(icae_fidelity_write_page(&page, &f, s.model->tokenizer, &source, &error));
    ck_assert_ptr_nonnull(strstr(page.data, "icae compress &lt;x&gt;"));
    ck_assert_ptr_nonnull(strstr(page.data, "a&lt;b&gt;.txt"));
    ck_assert_ptr_nonnull(strstr(page.data, "<del>"));
    ck_assert_ptr_nonnull(strstr(page.data, "line-through"));
    ck_assert_ptr_nonnull(strstr(page.data, "&lt;"));
    ck_assert_ptr_null(strstr(page.data, "<Anna>"));
    ck_assert_ptr_null(strstr(page.data, "<script"));
    ck_assert_ptr_null(strstr(page.data, "http"));
    icae_text_release(&page);
    icae_fidelity_release(&f);
    int left = 0;
    const icae_span_watch watch = {stop, &left};
    icae_fidelity_how how = {.watch = &watch};
    ck_assert_int_eq(
        icae_fidelity_measure(s.graph, s.model, s.adapter, s.ids, &s.slots, &how, &f, &error),
        ICAE_INTERRUPTED);
    ck_assert_ptr_null(f.spans);
    scene_close(&s);
}
END_TEST

/* U+4EAC is of several tokens here, as most of its kind are in small vocabularies. */
START_TEST(a_restored_character_is_wrong_whole) {
    scene s;
    scene_open(&s, 0);
    static const char text[] = "\xE4\xBA\xAC";
    int32_t *ids;
    size_t n;
    ck_ok(icae_tokenizer_encode(s.model->tokenizer, text, 3, false, &ids, &n, &error));
    ck_assert_uint_ge(n, 2);
    bool is_right[8] = {true};
    size_t starts[2] = {0, 0};
    icae_fidelity_span span = {.restored = ids, .n_restored = (int64_t)n, .is_right = is_right};
    icae_fidelity f = {.spans = &span, .n_spans = 1, .starts = starts};
    const icae_fidelity_source source = {"a.txt", "base", "adapter", "command"};
    for (int whole = 0; whole < 2; whole++) {
        icae_text page = {0};
        ck_ok(icae_fidelity_write_page(&page, &f, s.model->tokenizer, &source, &error));
        const char *at = strstr(page.data, text);
        ck_assert_msg(at != NULL, "the character is torn");
        ck_assert_int_eq(strncmp(at - 5, "<ins>", 5) == 0, !whole);
        ck_assert_int_eq(strncmp(at + 3, "</ins>", 6) == 0, !whole);
        icae_text_release(&page);
        for (size_t i = 0; i < n; i++)
            is_right[i] = true;
    }
    free(ids);
    scene_close(&s);
}
END_TEST

START_TEST(a_page_says_which_half_was_predicted) {
    scene s;
    scene_open(&s, 0);
    const icae_fidelity_source source = {"a.txt", "base", "adapter", "command"};
    static const struct {
        int64_t n_tokens, n_scored;
        const char *said;
    } cases[] = {{101, 42, "<p>The second half of the text, "},
                 {1025, 504, "<p>The second half of the text, "},
                 {1026, 504, "<p>Of the text's first 1024 tokens the second half, "}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_fidelity f = {.n_tokens = cases[i].n_tokens, .n_continuation = cases[i].n_scored};
        icae_text page = {0};
        ck_ok(icae_fidelity_write_page(&page, &f, s.model->tokenizer, &source, &error));
        ck_assert_msg(strstr(page.data, cases[i].said) != NULL, "%s", cases[i].said);
        icae_text_release(&page);
    }
    scene_close(&s);
}
END_TEST

/* ---- compressing well enough ---- */

START_TEST(spans_that_lose_too_much_are_halved_or_kept_as_text) {
    scene s;
    scene_open(&s, 0);
    icae_fidelity plain = {0}, f = {0};
    ck_ok(icae_fidelity_measure(s.graph, s.model, s.adapter, s.ids, &s.slots, &quietly, &plain,
                                &error));
    double best = 0;
    for (int64_t i = 0; i < plain.n_spans; i++)
        best = fmax(best, (double)plain.spans[i].n_kept / (double)plain.spans[i].n);
    ck_assert(best > 0 && best < 1);
    icae_slots slots = {0};
    /* All are good enough: what icae_compress_ids gives. */
    ck_ok(icae_fidelity_compress(s.graph, s.model, s.adapter, s.ids, s.slots.n_tokens, &quietly,
                                 &slots, &f, &error));
    ck_assert_int_eq(slots.n_raw, 0);
    ck_assert_int_eq(slots.n_spans, s.slots.n_spans);
    ck_assert_mem_eq(slots.values, s.slots.values,
                     (size_t)(icae_slots_vectors(&slots) * slots.width) * sizeof(float));
    ck_assert_int_eq(f.n_kept, plain.n_kept);
    icae_slots_release(&slots);
    icae_fidelity_release(&f);
    /* Only the best is: the others are halved, and kept as text at last. */
    icae_fidelity_how as_the_best = {.least = best}, whole = {.least = 1};
    ck_ok(icae_fidelity_compress(s.graph, s.model, s.adapter, s.ids, s.slots.n_tokens,
                                 &as_the_best, &slots, &f, &error));
    ck_assert_int_gt(slots.n_raw, 0);
    ck_assert_int_gt(slots.n_spans, s.slots.n_spans);
    int64_t first = 0, raw = 0, kept = 0;
    for (int64_t i = 0; i < slots.n_spans; i++) {
        const icae_fidelity_span *span = &f.spans[i];
        kept += span->is_raw ? 0 : span->n_kept;
        ck_assert_int_eq(span->n, slots.span_lengths[i]);
        ck_assert(span->is_raw == slots.is_raw[i]);
        ck_assert((double)span->n_kept >= best * (double)span->n - 1e-9);
        for (int64_t j = 0; slots.is_raw[i] && j < span->n; j++)
            ck_assert_int_eq(slots.raw_ids[raw++], s.ids[first + j]);
        first += span->n;
    }
    ck_assert_int_eq(first, s.slots.n_tokens);
    ck_assert_int_eq(raw, icae_slots_raw_tokens(&slots));
    /* What is kept as text adds nothing to the shares. */
    ck_assert_int_eq(f.n_raw, slots.n_raw);
    ck_assert_int_eq(f.n_raw_tokens, raw);
    ck_assert_int_eq(f.n_kept, kept);
    ck_assert_double_eq(icae_fidelity_kept(&f), (double)kept / (double)(first - raw));
    ck_assert_int_le(f.n_exact, f.n_spans - f.n_raw);
    ck_assert_str_eq(icae_text_string(&f.text), scene_text);
    icae_slots_release(&slots);
    icae_fidelity_release(&f);
    /* Nothing is: a sentence, and nothing left behind. */
    ck_refused(icae_fidelity_compress(s.graph, s.model, s.adapter, s.ids, s.slots.n_tokens,
                                      &whole, &slots, &f, &error),
               "better kept as it is");
    ck_assert(!slots.values && !f.spans);
    icae_fidelity_release(&plain);
    scene_close(&s);
}
END_TEST

SUITE_OF(fidelity, 60, spans_that_lose_too_much_are_halved_or_kept_as_text,
         numbers_and_names_are_what_the_rule_says, a_mark_is_kept_as_a_word_of_its_own,
         a_report_agrees_with_itself, a_span_is_what_the_suite_measures_of_it,
         a_page_marks_what_was_lost_and_escapes_the_text, a_restored_character_is_wrong_whole,
         a_page_says_which_half_was_predicted)
