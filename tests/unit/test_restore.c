/* SPDX-License-Identifier: MIT */
/* Texts of many spans restored through <icae.h>: span after span, and together. */
#include <icae.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "icae/api_internal.h"
#include "icae/file.h"
#include "icae/generate.h"
#include "icae/refine.h"
#include "icae/text.h"

static icae_error error;

static const icae_sampling greedy = {.top_p = 1};

static const char words[] = "The harbour was empty when we came, and the wind had gone. ";

typedef struct scene {
    icae_base *base;
    icae_session *session;
    icae_slots *slots; /* of `text`, in more spans than a group has */
    icae_text text;
    int64_t n_spans;
} scene;

static void scene_open(scene *s) {
    *s = (scene){0};
    ck_ok(icae_base_open(&s->base, TINY_BASE, &error));
    ck_ok(icae_session_open(&s->session, s->base, TINY_ADAPTER, NULL, &error));
    for (int i = 0; i < 12; i++) {
        icae_text_append(&s->text, words + 3 * i, sizeof words - 1 - 3 * (size_t)i);
        icae_text_append_string(&s->text, "\xE2\x82\xAC "); /* three bytes */
    }
    ck_ok(icae_session_compress(s->session, s->text.data, s->text.length, &s->slots, &error));
    s->n_spans = icae_slots_describe(s->slots).spans;
    ck_assert_int_gt(s->n_spans, 9);
}

static void scene_close(scene *s) {
    icae_text_release(&s->text);
    icae_slots_free(s->slots);
    icae_session_close(s->session);
    icae_base_close(s->base);
}

/* What one request yields, as text at the end of `out`. */
typedef struct spoken {
    icae_token_stream stream;
    icae_text text;
    int64_t tokens;
} spoken;

static void say(const scene *s, const int32_t *ids, int64_t n, spoken *out) {
    const icae_tokenizer *tokenizer = s->base->model->tokenizer;
    for (int64_t i = 0; i < n; i++) {
        if (!icae_tokenizer_is_special(tokenizer, ids[i]))
            icae_token_stream_push(&out->stream, tokenizer, ids[i], &out->text);
    }
    out->tokens += n;
}

/* From the slots alone, up to `most` tokens; returns whether it ended by itself. */
static bool speak(const scene *s, const icae_slots *slots, int64_t most, spoken *out) {
    const icae_session *session = s->session;
    icae_request request = {
        .slots = slots,
        .task = ICAE_TASK_AE,
        .max_tokens = most,
        .stop = icae_adapter_stop(&session->adapter->settings, s->base->model->tokenizer)};
    icae_result made;
    ck_ok(icae_generate(session->graph, s->base->model, session->adapter, &request, 1, &greedy,
                        NULL, NULL, &made, &error));
    bool is_complete = made.is_stopped;
    say(s, made.ids, made.n, out);
    icae_results_release(&made, 1);
    return is_complete;
}

static int64_t longest(int64_t n) {
    return n + n / 8 + 8;
}

static void spoken_is(const scene *s, const icae_generation *wish, spoken *wanted,
                      bool is_complete) {
    icae_generated made;
    icae_token_stream_finish(&wanted->stream, &wanted->text);
    ck_ok(icae_session_generate(s->session, s->slots, wish, NULL, NULL, &made, &error));
    ck_assert_str_eq(made.text, icae_text_string(&wanted->text));
    ck_assert_int_eq(made.generated_tokens, wanted->tokens);
    ck_assert(made.is_complete == is_complete);
    icae_generated_release(&made);
    icae_text_release(&wanted->text);
}

START_TEST(each_span_is_restored_from_its_own_slots) {
    scene s;
    scene_open(&s);
    spoken wanted = {.tokens = 0};
    icae_slots view = {0};
    bool is_complete = true;
    int64_t n = 0, tokens = 0;
    for (; icae_slots_next_span(s.slots, &view); n++) {
        ck_assert_int_eq(icae_slots_vectors(&view), view.slots_per_span);
        tokens += view.n_tokens;
        is_complete &= speak(&s, &view, longest(view.n_tokens), &wanted);
    }
    ck_assert_int_eq(n, s.n_spans);
    ck_assert_int_eq(tokens, s.slots->n_tokens);
    icae_generation wish = {.mode = ICAE_RECONSTRUCT};
    spoken_is(&s, &wish, &wanted, is_complete);
    scene_close(&s);
}
END_TEST

START_TEST(spans_together_are_one_context) {
    scene s;
    scene_open(&s);
    spoken wanted = {.tokens = 0};
    bool is_complete = speak(&s, s.slots, 30, &wanted);
    icae_generation wish = {.mode = ICAE_RECONSTRUCT, .spans_together = true, .max_tokens = 30};
    spoken_is(&s, &wish, &wanted, is_complete);
    scene_close(&s);
}
END_TEST

/* Spans 0, 4, 8 ... and the last are kept as text; the others are refined, so that some end by themselves. */
static void keep_some_raw(scene *s, int64_t refine_steps) {
    const icae_session *session = s->session;
    int32_t *ids;
    int64_t n = s->n_spans;
    icae_slots made = {0};
    bool *is_raw = calloc((size_t)n, sizeof *is_raw);
    int32_t *lengths = calloc((size_t)n, sizeof *lengths);
    memcpy(lengths, s->slots->span_lengths, (size_t)n * sizeof *lengths);
    for (int64_t i = 0; i < n; i++)
        is_raw[i] = i % 4 == 0 || i == n - 1;
    ck_ok(icae_compress_text(session->graph, s->base->model, session->adapter, s->text.data,
                             s->text.length, NULL, &made, &ids, &error));
    icae_slots_release(&made);
    icae_slots_release(s->slots);
    ck_ok(icae_compress_spans(session->graph, s->base->model, session->adapter, ids, n, lengths,
                              is_raw, NULL, s->slots, &error));
    ck_ok(icae_refine(session->graph, s->base->model, session->adapter, ids, refine_steps, NULL,
                      s->slots, NULL, &error));
    free(ids);
    free(is_raw);
    free(lengths);
}

START_TEST(raw_spans_come_back_as_they_are) {
    scene s;
    scene_open(&s);
    keep_some_raw(&s, 0);
    int64_t generated = 0, room = 0;
    /* every limit, so that some end within a raw span, some at its edges */
    for (int64_t most = 0; most < s.slots->n_tokens; most += 17) {
        spoken wanted = {.tokens = 0};
        icae_slots view = {0};
        bool is_complete = true;
        int64_t raw = 0;
        while (icae_slots_next_span(s.slots, &view)) {
            room = most ? most - wanted.tokens : INT64_MAX;
            if (room <= 0) break;
            if (view.n_raw) {
                ck_assert_int_eq(icae_slots_vectors(&view), 0);
                int64_t n = view.n_tokens < room ? view.n_tokens : room;
                say(&s, view.raw_ids, n, &wanted);
                raw += n;
                is_complete &= n == view.n_tokens;
                continue;
            }
            int64_t n = longest(view.n_tokens);
            is_complete &= speak(&s, &view, n < room ? n : room, &wanted);
        }
        is_complete &= room > 0 && (!most || wanted.tokens < most);
        wanted.tokens -= raw;
        generated = wanted.tokens;
        icae_generation wish = {.mode = ICAE_RECONSTRUCT, .max_tokens = most};
        spoken_is(&s, &wish, &wanted, is_complete);
    }
    ck_assert_int_gt(generated, 0);
    scene_close(&s);
}
END_TEST

START_TEST(raw_spans_are_as_they_were_in_a_file) {
    scene s;
    scene_open(&s);
    keep_some_raw(&s, 0);
    const char *path = test_path(test_folder("restore-raw"), "a.slots");
    icae_slots *loaded;
    ck_ok(icae_slots_save(s.slots, path, &error));
    ck_ok(icae_session_load_slots(s.session, path, &loaded, &error));
    int64_t n = icae_slots_raw_tokens(s.slots);
    ck_assert_int_gt(s.slots->n_raw, 2);
    ck_assert_int_eq(loaded->n_raw, s.slots->n_raw);
    ck_assert_int_eq(icae_slots_raw_tokens(loaded), n);
    ck_assert_mem_eq(loaded->raw_ids, s.slots->raw_ids, (size_t)n * sizeof *loaded->raw_ids);
    ck_assert_mem_eq(loaded->is_raw, s.slots->is_raw,
                     (size_t)s.n_spans * sizeof *loaded->is_raw);
    icae_slots_free(loaded);
    scene_close(&s);
}
END_TEST

typedef struct collected {
    icae_text text;
    int left;
} collected;

static bool collect(void *user, const char *piece, size_t bytes) {
    collected *c = user;
    ck_assert_uint_eq(icae_utf8_complete((const unsigned char *)piece, bytes), bytes);
    icae_text_append(&c->text, piece, bytes);
    return c->left-- > 0;
}

START_TEST(pieces_come_in_the_order_of_the_text) {
    scene s;
    scene_open(&s);
    keep_some_raw(&s, 0);
    icae_generation wish = {.mode = ICAE_RECONSTRUCT};
    collected c = {.left = INT32_MAX};
    icae_generated made;
    ck_ok(icae_session_generate(s.session, s.slots, &wish, collect, &c, &made, &error));
    ck_assert_uint_eq(c.text.length, made.bytes);
    ck_assert_mem_eq(c.text.data, made.text, made.bytes);
    icae_text_release(&c.text);
    /* stopped in the middle: what was told is the beginning */
    c.left = 40;
    icae_generated none;
    ck_assert_int_eq(
        icae_session_generate(s.session, s.slots, &wish, collect, &c, &none, &error),
        ICAE_INTERRUPTED);
    ck_assert_ptr_null(none.text);
    ck_assert_uint_lt(c.text.length, made.bytes);
    ck_assert_mem_eq(c.text.data, made.text, c.text.length);
    icae_text_release(&c.text);
    icae_generated_release(&made);
    scene_close(&s);
}
END_TEST

/* Whether it ends with U+FFFD, what is left of a character that was cut. */
static bool ends_cut(const icae_generated *made) {
    return made->bytes >= 3 && !memcmp(made->text + made->bytes - 3, "\xEF\xBF\xBD", 3);
}

START_TEST(a_caller_may_stop_at_the_first_piece_and_at_the_last) {
    scene s;
    scene_open(&s);
    keep_some_raw(&s, 300);
    int cut = 0;
    /* the whole text, whose last span is raw; tokens of the first span, which is raw, too, some that end within
     * a character; and a few written ones */
    for (int64_t most = 0; most < s.slots->span_lengths[0] + 4; most++) {
        icae_generation wish = {.mode = ICAE_RECONSTRUCT, .max_tokens = most};
        collected c = {.left = INT32_MAX};
        icae_generated made, none;
        ck_ok(icae_session_generate(s.session, s.slots, &wish, collect, &c, &made, &error));
        int pieces = INT32_MAX - c.left;
        ck_assert_int_gt(pieces, 0);
        cut += ends_cut(&made);
        icae_text_release(&c.text);
        for (int last = 0; last < 2; last++) {
            c.left = last ? pieces - 1 : 0;
            ck_assert_int_eq(
                icae_session_generate(s.session, s.slots, &wish, collect, &c, &none, &error),
                ICAE_INTERRUPTED);
            ck_assert_ptr_null(none.text);
            ck_assert_int_eq(c.left, -1);
            ck_assert(last ? c.text.length == made.bytes : c.text.length <= made.bytes);
            ck_assert_mem_eq(c.text.data, made.text, c.text.length);
            icae_text_release(&c.text);
        }
        icae_generated_release(&made);
    }
    ck_assert_int_gt(cut, 0);
    scene_close(&s);
}
END_TEST

/* Span by span a text of any length fits. */
START_TEST(a_text_longer_than_the_context_is_restored) {
    scene s;
    scene_open(&s);
    icae_slots *more;
    ck_ok(icae_session_compress(s.session, s.text.data, s.text.length, &more, &error));
    int64_t context = icae_base_describe(s.base).context_length;
    while (s.slots->n_tokens <= context)
        ck_ok(icae_slots_join(s.slots, more, &error));
    icae_generation wish = {.mode = ICAE_RECONSTRUCT};
    icae_generated made;
    ck_ok(icae_session_generate(s.session, s.slots, &wish, NULL, NULL, &made, &error));
    ck_assert_int_gt(made.generated_tokens, 0);
    icae_generated_release(&made);
    icae_slots_free(more);
    scene_close(&s);
}
END_TEST

START_TEST(together_is_an_option_of_the_command) {
    const char *folder = test_folder("restore");
    scene s;
    scene_open(&s);
    ck_ok(icae_slots_save(s.slots, test_path(folder, "a.slots"), &error));
    for (int together = 0; together < 2; together++) {
        icae_generation wish = {
            .mode = ICAE_RECONSTRUCT, .spans_together = together, .max_tokens = 100};
        icae_generated made;
        ck_ok(icae_session_generate(s.session, s.slots, &wish, NULL, NULL, &made, &error));
        outcome r = run_in(folder,
                           "$ICAE reconstruct -m " TINY_BASE " -a " TINY_ADAPTER
                           " %s/a.slots -n 100 %s",
                           folder, together ? "--together" : "");
        ck_assert_msg(r.code == 0, "%s", r.err);
        ck_assert_str_eq(r.out, made.text);
        ck_assert_ptr_nonnull(strstr(r.err, "cut after 100 tokens"));
        icae_generated_release(&made);
    }
    scene_close(&s);
}
END_TEST

SUITE_OF(restore, 60, each_span_is_restored_from_its_own_slots, spans_together_are_one_context,
         raw_spans_come_back_as_they_are, raw_spans_are_as_they_were_in_a_file,
         pieces_come_in_the_order_of_the_text,
         a_caller_may_stop_at_the_first_piece_and_at_the_last,
         a_text_longer_than_the_context_is_restored, together_is_an_option_of_the_command)
