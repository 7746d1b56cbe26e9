/* SPDX-License-Identifier: MIT */
/* icae.h as an outsider uses it, and the example program. */
#include <icae.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "icae/file.h"
#include "icae/generate.h"
#include "icae/json.h"
#include "icae/slots.h"
#include "icae/text.h"

static icae_error error;

static const char passage[] = "The harbour was empty when we came, and the wind had gone.";

static icae_base *open_base(void) {
    icae_base *base;
    ck_ok(icae_base_open(&base, TINY_BASE, &error));
    return base;
}

static icae_session *open_session(const icae_base *base) {
    icae_session *session;
    ck_ok(icae_session_open(&session, base, TINY_ADAPTER, NULL, &error));
    return session;
}

static icae_slots *compress(icae_session *session) {
    icae_slots *slots;
    ck_ok(icae_session_compress(session, passage, strlen(passage), &slots, &error));
    return slots;
}

/* Collects pieces; stops after `most`. */
typedef struct pieces {
    icae_text text;
    int n, most;
} pieces;

static bool collect(void *user, const char *piece, size_t bytes) {
    pieces *p = user;
    ck_assert_uint_gt(bytes, 0);
    /* Whole characters only: nothing at the end waits for more bytes. */
    ck_assert_uint_eq(icae_utf8_complete((const unsigned char *)piece, bytes), bytes);
    icae_text_append(&p->text, piece, bytes);
    return ++p->n < p->most;
}

START_TEST(pieces_add_up_to_the_text) {
    icae_base *base = open_base();
    icae_session *session = open_session(base);
    icae_slots *slots = compress(session);
    static const icae_generation wishes[] = {
        {.mode = ICAE_RECONSTRUCT},
        {.mode = ICAE_CONTINUE, .max_tokens = 30},
        {.mode = ICAE_ASK, .prompt = "What of the wind?", .max_tokens = 30},
        {.mode = ICAE_CONTINUE, .max_tokens = 30, .temperature = 2, .seed = 3},
    };
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        pieces p = {.most = INT32_MAX};
        icae_generated made;
        ck_ok(icae_session_generate(session, slots, &wishes[i], collect, &p, &made, &error));
        ck_assert_int_gt(p.n, 3);
        ck_assert_uint_eq(made.bytes, p.text.length);
        ck_assert_mem_eq(made.text, p.text.data, made.bytes);
        ck_assert_int_eq(made.text[made.bytes], 0);
        ck_assert(made.is_complete || made.generated_tokens == wishes[i].max_tokens ||
                  wishes[i].max_tokens == 0);
        icae_generated_release(&made);
        icae_text_release(&p.text);
    }
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
}
END_TEST

/* The distance of two slots' values over the length of the first. */
static double distance(const icae_slots *a, const icae_slots *b) {
    double apart = 0, length = 0;
    int64_t n = icae_slots_vectors(a) * a->width;
    ck_assert_int_eq(icae_slots_vectors(b) * b->width, n);
    for (int64_t i = 0; i < n; i++) {
        apart += pow((double)a->values[i] - (double)b->values[i], 2);
        length += pow((double)a->values[i], 2);
    }
    return sqrt(apart / length);
}

START_TEST(a_session_computes_and_refines_as_it_was_told) {
    icae_base *base = open_base();
    icae_session *plain = open_session(base);
    icae_slots *wanted = compress(plain);
    static const struct {
        icae_session_options options;
        double least, most; /* distance */
    } cases[] = {
        {{.compute = "auto"}, 0, 0},
        {{.compute = "f32"}, 0, 0},
        {{.compute = "f32", .n_threads = 1}, 0, 0},
        {{.compute = "bf16"}, 1e-5, 0.1},
        {{.refine_steps = 3}, 1e-5, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_session *session;
        ck_ok(icae_session_open(&session, base, TINY_ADAPTER, &cases[i].options, &error));
        icae_slots *slots = compress(session);
        double apart = distance(wanted, slots);
        ck_assert_msg(apart >= cases[i].least && apart <= cases[i].most, "case %zu: %g", i,
                      apart);
        icae_slots_free(slots);
        icae_session_close(session);
    }
    icae_slots_free(wanted);
    icae_session_close(plain);
    icae_base_close(base);
}
END_TEST

/* That two wishes give the same text of so many tokens at least. */
static void gives_the_same(icae_session *session, const icae_slots *slots,
                           const icae_generation *one, const icae_generation *other,
                           int64_t least) {
    icae_generated a, b;
    ck_ok(icae_session_generate(session, slots, one, NULL, NULL, &a, &error));
    ck_ok(icae_session_generate(session, slots, other, NULL, NULL, &b, &error));
    ck_assert_int_ge(a.generated_tokens, least);
    ck_assert_str_eq(a.text, b.text);
    icae_generated_release(&a);
    icae_generated_release(&b);
}

START_TEST(limits_beyond_what_there_is_are_none) {
    icae_base *base = open_base();
    icae_session *session = open_session(base);
    icae_slots *slots = compress(session), *more = compress(session);
    icae_generation drawn = {
        .mode = ICAE_CONTINUE, .max_tokens = 30, .temperature = 1.5, .seed = 4};
    icae_generation over = drawn;
    over.top_k = INT32_MAX; /* more than the vocabulary has */
    gives_the_same(session, slots, &drawn, &over, 1);
    /* Little room is left behind the slots: more than it is not asked for. */
    int64_t context = icae_base_describe(base).context_length;
    while (slots->n_tokens + 2 * more->n_tokens < context)
        ck_ok(icae_slots_join(slots, more, &error));
    icae_generation all = {.mode = ICAE_CONTINUE, .max_tokens = context};
    icae_generation billions = {.mode = ICAE_CONTINUE, .max_tokens = INT32_MAX};
    gives_the_same(session, slots, &all, &billions, 1);
    icae_slots_free(more);
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
}
END_TEST

/* A span has a length: what an adapter writes beyond it is nothing of the text, whatever was asked for. */
START_TEST(a_span_restored_ends_after_its_length_and_an_eighth) {
    icae_base *base = open_base();
    icae_session *session = open_session(base);
    icae_slots *slots;
    ck_ok(icae_session_compress(session, passage, 12, &slots, &error));
    icae_slots_info info = icae_slots_describe(slots);
    ck_assert_int_eq(info.spans, 1);
    static const int64_t asked[] = {0, 200, 3};
    for (int i = 0; i < 3; i++) {
        icae_generation wish = {.mode = ICAE_RECONSTRUCT, .max_tokens = asked[i]};
        icae_generated made;
        ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, &made, &error));
        int64_t limit = icae_restored_limit(info.source_tokens);
        ck_assert_int_le(made.generated_tokens, i == 2 ? 3 : limit);
        icae_generated_release(&made);
    }
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
}
END_TEST

START_TEST(callback_stops_generation) {
    icae_base *base = open_base();
    icae_session *session = open_session(base);
    icae_slots *slots = compress(session);
    pieces p = {.most = 3};
    icae_generated made;
    icae_generation wish = {.mode = ICAE_CONTINUE, .max_tokens = 100};
    ck_assert_int_eq(icae_session_generate(session, slots, &wish, collect, &p, &made, &error),
                     ICAE_INTERRUPTED);
    ck_assert_int_eq(p.n, 3);
    ck_assert_ptr_null(made.text);
    icae_text_release(&p.text);
    /* and the session is as good as new */
    ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, NULL, &error));
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
}
END_TEST

START_TEST(slots_survive_their_file_and_join) {
    const char *folder = test_folder("api-slots");
    icae_base *base = open_base();
    icae_session *session = open_session(base);
    icae_slots *slots = compress(session), *again;
    const char *path = test_path(folder, "a.slots");
    ck_ok(icae_slots_save(slots, path, &error));
    ck_ok(icae_session_load_slots(session, path, &again, &error));
    icae_slots_info a = icae_slots_describe(slots), b = icae_slots_describe(again);
    ck_assert_mem_eq(&a, &b, sizeof a);
    ck_assert_uint_eq(a.source_bytes, strlen(passage));
    int64_t tokens;
    ck_ok(icae_base_count_tokens(base, passage, strlen(passage), &tokens, &error));
    ck_assert_int_eq(tokens, a.source_tokens);
    ck_assert_uint_gt(icae_base_cache_bytes(base, tokens), 0);
    ck_ok(icae_slots_join(again, slots, &error));
    b = icae_slots_describe(again);
    ck_assert_int_eq(b.source_tokens, 2 * a.source_tokens);
    ck_assert_int_eq(b.slots, 2 * a.slots);
    icae_generation wish = {.mode = ICAE_ASK, .prompt = "?", .max_tokens = 5};
    ck_ok(icae_session_generate(session, again, &wish, NULL, NULL, NULL, &error));
    icae_slots_free(slots);
    icae_slots_free(again);
    icae_session_close(session);
    icae_base_close(base);
}
END_TEST

/* The tiny adapter with a chat template of its own, whose answers end with this text. */
static void copy_adapter(const char *folder, const char *end) {
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "memory.safetensors"};
    for (size_t i = 0; i < 3; i++) {
        static char *data; /* static, as gcc 12 sees a dangling pointer in a local one */
        size_t bytes;
        ck_ok(
            icae_file_read(test_path(TINY_ADAPTER, names[i]), 1 << 20, &data, &bytes, &error));
        ck_ok(icae_file_write(test_path(folder, names[i]), data, bytes, &error));
        free(data);
    }
    icae_text text = {0};
    icae_text_append_string(
        &text, "{\"format\": \"icae-adapter\", \"version\": 1, \"memory_slots\": 8, "
               "\"compression_rate\": 4, \"layout\": \"uniform\", \"chat_template\": "
               "\"custom\", \"chat_prefix\": \"\", \"chat_suffix\": \"\", \"chat_turn\": "
               "\"|\", \"chat_end\": ");
    icae_json_write_string(&text, end, strlen(end));
    icae_text_append_string(&text, "}");
    ck_ok(icae_file_write(test_path(folder, "icae.json"), text.data, text.length, &error));
    icae_text_release(&text);
}

START_TEST(an_answer_ends_at_the_templates_token) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("api-end"));
    static const char *const questions[] = {"Why?", "Who?", "When was it?", "a", "Is it so?"};
    icae_base *base = open_base();
    int n_tried = 0;
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        icae_session *session = open_session(base);
        icae_slots *slots = compress(session);
        icae_generation wish = {.mode = ICAE_ASK, .prompt = questions[i], .max_tokens = 1};
        icae_generated made, ended;
        ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, &made, &error));
        icae_slots_free(slots);
        icae_session_close(session);
        int64_t tokens = 0;
        ck_ok(icae_base_count_tokens(base, made.text, made.bytes, &tokens, &error));
        if (tokens == 1) { /* a text that is this token again */
            copy_adapter(folder, made.text);
            ck_ok(icae_session_open(&session, base, folder, NULL, &error));
            slots = compress(session);
            wish.max_tokens = 5;
            ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, &ended, &error));
            ck_assert_int_eq(ended.generated_tokens, 0);
            ck_assert(ended.is_complete);
            icae_generated_release(&ended);
            wish.mode = ICAE_CONTINUE; /* is no answer, and does not end there */
            ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, &ended, &error));
            ck_assert(ended.generated_tokens > 0);
            icae_generated_release(&ended);
            icae_slots_free(slots);
            icae_session_close(session);
            n_tried++;
        }
        icae_generated_release(&made);
    }
    ck_assert_int_ge(n_tried, 1);
    icae_base_close(base);
}
END_TEST

START_TEST(a_dialogue_stands_before_its_question) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("api-turns"));
    copy_adapter(folder, "");
    icae_base *base = open_base();
    icae_session *session;
    ck_ok(icae_session_open(&session, base, folder, NULL, &error));
    icae_slots *slots = compress(session);
    static const icae_turn turns[] = {{"Who came?", "We."}, {"Where?", "To the harbour."}};
    icae_generated plain, after;
    icae_generation wish = {.mode = ICAE_ASK, .prompt = "Why?", .max_tokens = 8};
    ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, &plain, &error));
    wish.turns = turns;
    wish.n_turns = 2;
    ck_ok(icae_session_generate(session, slots, &wish, NULL, NULL, &after, &error));
    int64_t wanted = plain.prompt_tokens + 2, tokens; /* each turn ends with one "|" */
    for (size_t i = 0; i < 2; i++) {
        ck_ok(icae_base_count_tokens(base, turns[i].question, strlen(turns[i].question),
                                     &tokens, &error));
        wanted += tokens;
        ck_ok(icae_base_count_tokens(base, turns[i].answer, strlen(turns[i].answer), &tokens,
                                     &error));
        wanted += tokens;
    }
    ck_assert_int_eq(after.prompt_tokens, wanted);
    ck_assert_str_ne(after.text, plain.text);
    icae_generated_release(&plain);
    icae_generated_release(&after);
    wish.turns = &(icae_turn){"Who?", NULL};
    wish.n_turns = 1;
    ck_refused(icae_session_generate(session, slots, &wish, NULL, NULL, NULL, &error),
               "turn 0 lacks");
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
}
END_TEST

START_TEST(slots_of_another_session_are_refused_by_all_names) {
    const char *folder = test_folder("api-others");
    char *data;
    size_t bytes;
    copy_adapter(folder, "");
    const char *memory = test_path(folder, "memory.safetensors");
    ck_ok(icae_file_read(memory, 1 << 20, &data, &bytes, &error));
    data[bytes - 2] = (char)(data[bytes - 2] ^ 1);
    ck_ok(icae_file_write(memory, data, bytes, &error));
    free(data);
    icae_base *base = open_base();
    icae_session *session = open_session(base), *other;
    ck_ok(icae_session_open(&other, base, folder, NULL, &error));
    icae_slots *slots = compress(other);
    const icae_generation wish = {.mode = ICAE_CONTINUE, .max_tokens = 2};
    char sentence[64];
    snprintf(sentence, sizeof sentence, "the slots are of base %016llx and adapter",
             (unsigned long long)icae_base_describe(base).fingerprint);
    ck_refused(icae_session_generate(session, slots, &wish, NULL, NULL, NULL, &error),
               sentence);
    ck_ok(icae_session_generate(other, slots, &wish, NULL, NULL, NULL, &error));
    ck_ok(icae_session_generate_batch(other, NULL, 0, &wish, NULL, NULL, NULL, &error));
    icae_session_close(other);
    /* and of another base */
    icae_base *qwen3;
    ck_ok(icae_base_open(&qwen3, "tests/golden/qwen3/model", &error));
    ck_ok(icae_session_open(&other, qwen3, "tests/golden/qwen3/adapter", NULL, &error));
    ck_refused(icae_session_generate(other, slots, &wish, NULL, NULL, NULL, &error), sentence);
    icae_slots_free(slots);
    icae_session_close(session);
    icae_session_close(other);
    icae_base_close(qwen3);
    icae_base_close(base);
}
END_TEST

START_TEST(refuses_what_makes_no_sense) {
    icae_base *base;
    icae_session *session;
    icae_slots *slots = NULL, *none;
    ck_refused(icae_base_open(&base, "no/such/model.gguf", &error), "no/such/model.gguf");
    ck_assert_ptr_null(base);
    base = open_base();
    ck_refused(icae_session_open(&session, base, "no/such/adapter", NULL, &error),
               "no/such/adapter");
    ck_assert_ptr_null(session);
    ck_refused(icae_session_open(&session, base, TINY_ADAPTER,
                                 &(icae_session_options){.n_threads = -1}, &error),
               "-1 threads");
    ck_refused(icae_session_open(&session, base, TINY_ADAPTER,
                                 &(icae_session_options){.refine_steps = -1}, &error),
               "-1 steps");
    ck_refused(icae_session_open(&session, base, TINY_ADAPTER,
                                 &(icae_session_options){.compute = "f8"}, &error),
               "compute 'f8': expected f32, bf16 or auto");
    session = open_session(base);
    ck_refused(icae_session_compress(session, "", 0, &none, &error), "empty");
    ck_assert_ptr_null(none);
    ck_refused(icae_session_load_slots(session, "no/such.slots", &none, &error),
               "no/such.slots");
    slots = compress(session);
    static const icae_turn unasked = {NULL, "Yes."}, unanswered = {"Is it?", NULL};
    static const struct {
        icae_generation wish;
        const char *part;
    } wrong[] = {
        {{.mode = ICAE_ASK}, "needs a prompt"},
        {{.mode = ICAE_ASK, .prompt = "?", .n_turns = 1}, "turn 0 lacks"},
        {{.mode = ICAE_ASK, .prompt = "?", .turns = &unasked, .n_turns = 1}, "turn 0 lacks"},
        {{.mode = ICAE_ASK, .prompt = "?", .turns = &unanswered, .n_turns = 1}, "its answer"},
        {{.mode = (icae_mode)7}, "mode 7"},
        {{.mode = (icae_mode)-1}, "mode -1"},
        {{.mode = ICAE_CONTINUE, .max_tokens = -1}, "cannot be negative"},
        {{.mode = ICAE_CONTINUE, .top_k = -1}, "cannot be negative"},
        {{.mode = ICAE_CONTINUE, .least_tokens = -1}, "cannot be negative"},
        {{.mode = ICAE_CONTINUE, .least_tokens = 2048}, "expected room for 2048"},
        {{.mode = ICAE_CONTINUE, .temperature = -1}, "temperature of 0 or more"},
        {{.mode = ICAE_CONTINUE, .top_p = 2}, "top_p from 0 to 1"},
        {{.mode = ICAE_CONTINUE, .top_p = -0.5}, "top_p from 0 to 1"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ck_refused(
            icae_session_generate(session, slots, &wrong[i].wish, NULL, NULL, NULL, &error),
            wrong[i].part);
    }
    icae_generation nan_wish = {.mode = ICAE_CONTINUE, .temperature = (double)NAN};
    ck_refused(icae_session_generate(session, slots, &nan_wish, NULL, NULL, NULL, &error),
               "temperature");
    char *essay = malloc(20001);
    for (int i = 0; i < 20000; i++)
        essay[i] = "a1 "[i % 3];
    essay[20000] = 0;
    icae_generation long_wish = {.mode = ICAE_ASK, .prompt = essay};
    ck_refused(icae_session_generate(session, slots, &long_wish, NULL, NULL, NULL, &error),
               "context ends at 2048");
    free(essay);
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
    icae_base_close(NULL);
    icae_session_close(NULL);
    icae_slots_free(NULL);
}
END_TEST

/* Longer than a sentence may be: the middle of the path is left out, not what is wrong with it. */
START_TEST(what_is_wrong_with_a_long_path_is_told) {
    static const struct {
        const char *unit; /* repeated */
        const char *last; /* of the sentence */
    } paths[] = {
        {"a folder/", ": cannot open: No such file or directory"},
        {"\xe6\xb8\xaf/", ": cannot open: No such file or directory"},
        {"a", ": cannot open: File name too long"},
    };
    char path[4000];
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        size_t unit = strlen(paths[i].unit), at = 0;
        for (; at + unit < sizeof path; at += unit)
            memcpy(path + at, paths[i].unit, unit);
        memcpy(path + at - 1, "x", 2);
        icae_base *base;
        ck_assert_int_eq(icae_base_open(&base, path, &error), ICAE_IO);
        const char *gap = strstr(error.message, " ... ");
        ck_assert_ptr_nonnull(gap);
        ck_assert_mem_eq(error.message, path, (size_t)(gap - error.message));
        ck_assert_str_eq(error.message + strlen(error.message) - strlen(paths[i].last),
                         paths[i].last);
        ck_assert(icae_utf8_is_valid(error.message, strlen(error.message)));
    }
}
END_TEST

START_TEST(example_program_works_and_fails_politely) {
    const char *folder = test_folder("api-example");
    const char *text = test_path(folder, "text.txt");
    ck_ok(icae_file_write(text, passage, strlen(passage), &error));
    const char *program = test_path(test_build_folder(), "tests/example/compress_and_ask");
    outcome good = run_in(folder, "%s " TINY_BASE " " TINY_ADAPTER " %s %s/a.slots 'Why?'",
                          program, text, folder);
    ck_assert_msg(good.code == 0, "%s", good.err);
    ck_assert_ptr_nonnull(strstr(good.out, "restored: "));
    const char *answer = strstr(good.out, "answer: ");
    ck_assert_ptr_nonnull(answer);
    ck_assert_msg(strlen(answer) > strlen("answer: \n 0 tokens were read, 0 written") + 5, "%s",
                  good.out);
    program = test_path(test_build_folder(), "tests/example/compress_and_ask");
    outcome missing = run_in(
        folder, "%s no-model.gguf " TINY_ADAPTER " LICENSE %s/b.slots 'Why?'", program, folder);
    ck_assert_int_eq(missing.code, 1);
    ck_assert_ptr_nonnull(strstr(missing.err, "no-model.gguf"));
    program = test_path(test_build_folder(), "tests/example/compress_and_ask");
    ck_assert_int_eq(run_in(folder, "%s", program).code, 2);
}
END_TEST

SUITE_OF(api, 120, pieces_add_up_to_the_text, a_session_computes_and_refines_as_it_was_told,
         limits_beyond_what_there_is_are_none,
         a_span_restored_ends_after_its_length_and_an_eighth, callback_stops_generation,
         slots_survive_their_file_and_join, an_answer_ends_at_the_templates_token,
         a_dialogue_stands_before_its_question,
         slots_of_another_session_are_refused_by_all_names, refuses_what_makes_no_sense,
         what_is_wrong_with_a_long_path_is_told, example_program_works_and_fails_politely)
