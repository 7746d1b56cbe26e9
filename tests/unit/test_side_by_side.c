/* SPDX-License-Identifier: MIT */
/* Many texts written side by side: through <icae.h>, and by icae reconstruct --into. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "icae.h"
#include "icae/file.h"
#include "icae/text.h"

#define WITH "-m " TINY_BASE " -a " TINY_ADAPTER

enum { TEXTS = 11 }; /* more than one group of eight */

static icae_error error;

static const char passage[] = "It was a bright cold day in April, and the clocks were striking "
                              "thirteen. Nobody had looked at them since morning.";

/* Text i is the passage from its i-th word on. */
static const char *text_of(int i) {
    const char *at = passage;
    for (; i > 0; i--)
        at = strchr(at, ' ') + 1;
    return at;
}

typedef struct scene {
    icae_base *base;
    icae_session *session;
    icae_slots *slots[TEXTS];
} scene;

static void scene_open(scene *s) {
    ck_ok(icae_base_open(&s->base, TINY_BASE, &error));
    ck_ok(icae_session_open(&s->session, s->base, TINY_ADAPTER, NULL, &error));
    for (int i = 0; i < TEXTS; i++) {
        ck_ok(icae_session_compress(s->session, text_of(i), strlen(text_of(i)), &s->slots[i],
                                    &error));
    }
}

static void scene_close(scene *s) {
    for (int i = 0; i < TEXTS; i++)
        icae_slots_free(s->slots[i]);
    icae_session_close(s->session);
    icae_base_close(s->base);
}

typedef struct collected {
    icae_text texts[TEXTS];
    int left; /* pieces that are taken */
} collected;

static bool collect(void *user, size_t text, const char *piece, size_t bytes) {
    collected *c = user;
    ck_assert_uint_lt(text, TEXTS);
    icae_text_append(&c->texts[text], piece, bytes);
    return c->left-- > 0;
}

START_TEST(a_batch_gives_what_each_text_gives_alone) {
    scene s;
    scene_open(&s);
    static const icae_generation wishes[] = {
        {.mode = ICAE_RECONSTRUCT},
        {.mode = ICAE_CONTINUE, .max_tokens = 12},
        {.mode = ICAE_ASK, .prompt = "Who looked?", .max_tokens = 9},
    };
    for (size_t w = 0; w < sizeof wishes / sizeof wishes[0]; w++) {
        collected c = {.left = INT32_MAX};
        icae_generated made[TEXTS], alone;
        ck_ok(icae_session_generate_batch(s.session, (const icae_slots *const *)s.slots, TEXTS,
                                          &wishes[w], collect, &c, made, &error));
        for (int i = 0; i < TEXTS; i++) {
            ck_ok(icae_session_generate(s.session, s.slots[i], &wishes[w], NULL, NULL, &alone,
                                        &error));
            ck_assert_str_eq(made[i].text, alone.text);
            ck_assert_int_eq(made[i].generated_tokens, alone.generated_tokens);
            ck_assert_int_eq(made[i].prompt_tokens, alone.prompt_tokens);
            ck_assert(made[i].is_complete == alone.is_complete);
            ck_assert_uint_eq(c.texts[i].length, made[i].bytes);
            ck_assert_mem_eq(icae_text_string(&c.texts[i]), made[i].text, made[i].bytes);
            icae_text_release(&c.texts[i]);
            icae_generated_release(&alone);
            icae_generated_release(&made[i]);
        }
    }
    scene_close(&s);
}
END_TEST

/* The slots of two texts are more rows than are read in one pass. */
START_TEST(texts_that_are_read_in_several_passes_give_what_each_gives_alone) {
    scene s;
    scene_open(&s);
    for (int i = 0; i < 2; i++) {
        while (icae_slots_describe(s.slots[i]).slots < 400)
            ck_ok(icae_slots_join(s.slots[i], s.slots[2], &error));
    }
    icae_generation wish = {.mode = ICAE_RECONSTRUCT, .spans_together = true, .max_tokens = 6};
    icae_generated made[3], alone;
    ck_ok(icae_session_generate_batch(s.session, (const icae_slots *const *)s.slots, 3, &wish,
                                      NULL, NULL, made, &error));
    for (int i = 0; i < 3; i++) {
        ck_ok(icae_session_generate(s.session, s.slots[i], &wish, NULL, NULL, &alone, &error));
        ck_assert_int_gt(alone.generated_tokens, 0);
        ck_assert_str_eq(made[i].text, alone.text);
        icae_generated_release(&alone);
        icae_generated_release(&made[i]);
    }
    scene_close(&s);
}
END_TEST

START_TEST(a_batch_that_fails_leaves_nothing) {
    scene s;
    scene_open(&s);
    icae_generation wish = {.mode = ICAE_CONTINUE, .max_tokens = 12};
    icae_generated made[TEXTS];
    const icae_slots *const *slots = (const icae_slots *const *)s.slots;
    collected c = {.left = 5};
    ck_assert_int_eq(
        icae_session_generate_batch(s.session, slots, TEXTS, &wish, collect, &c, made, &error),
        ICAE_INTERRUPTED);
    for (int i = 0; i < TEXTS; i++) {
        ck_assert_ptr_null(made[i].text);
        icae_text_release(&c.texts[i]);
    }
    wish.top_p = 2;
    ck_refused(
        icae_session_generate_batch(s.session, slots, TEXTS, &wish, NULL, NULL, made, &error),
        "top_p");
    ck_ok(icae_session_generate_batch(s.session, slots, 0, &wish, NULL, NULL, NULL, &error));
    scene_close(&s);
}
END_TEST

/* A folder with in/0.slots and so on. */
static const char *folder_with_slots(const char *name) {
    const char *folder = test_folder(name);
    scene s;
    scene_open(&s);
    ck_ok(icae_folder_make(test_path(folder, "in"), &error));
    for (int i = 0; i < TEXTS; i++) {
        char file[32];
        snprintf(file, sizeof file, "in/%d.slots", i);
        ck_ok(icae_slots_save(s.slots[i], test_path(folder, file), &error));
    }
    scene_close(&s);
    return folder;
}

START_TEST(reconstruct_writes_every_text_into_its_file) {
    const char *folder = folder_with_slots("into");
    outcome all = run_in(folder, "$ICAE reconstruct " WITH " %s/in/*.slots --into %s/out",
                         folder, folder);
    ck_assert_msg(all.code == 0, "%s", all.err);
    ck_assert_ptr_nonnull(strstr(all.out, "11 texts"));
    for (int i = 0; i < TEXTS; i++) {
        char file[32], *text;
        snprintf(file, sizeof file, "out/%d.txt", i);
        ck_ok(icae_file_read(test_path(folder, file), 1 << 20, &text, NULL, &error));
        outcome one = run_in(folder, "$ICAE reconstruct " WITH " %s/in/%d.slots", folder, i);
        ck_assert_str_eq(one.out, text);
        free(text);
    }
}
END_TEST

/* What is there may be the very text that was compressed. */
START_TEST(reconstruct_replaces_no_text_unasked) {
    const char *folder = folder_with_slots("into-there");
    char *text;
    ck_ok(icae_file_write(test_path(folder, "in/2.txt"), passage, strlen(passage), &error));
    outcome r =
        run_in(folder, "$ICAE reconstruct " WITH " %s/in/1.slots %s/in/2.slots --into %s/in",
               folder, folder, folder);
    ck_assert_int_eq(r.code, 1);
    ck_assert_ptr_nonnull(strstr(r.err, "in/2.txt: is there already"));
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "in/1.txt")), -1);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "in/2.txt")), (int64_t)strlen(passage));
    r = run_in(folder, "$ICAE reconstruct " WITH " %s/in/2.slots --into %s/in --force", folder,
               folder);
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_assert_int_eq(strncmp(r.out, "1 text, ", 8), 0);
    ck_ok(icae_file_read(test_path(folder, "in/2.txt"), 1 << 20, &text, NULL, &error));
    ck_assert_str_ne(text, passage);
    free(text);
}
END_TEST

START_TEST(reconstruct_says_what_it_cannot_do) {
    const char *folder = folder_with_slots("into-refused");
    outcome r = run_in(folder, "$ICAE reconstruct " WITH " %s/in/1.slots %s/in/2.slots", folder,
                       folder);
    ck_assert_int_eq(r.code, 2);
    ck_assert_ptr_nonnull(strstr(r.err, "Give --into FOLDER"));
    r = run_in(folder,
               "$ICAE reconstruct " WITH
               " %s/in/1.slots %s/in/2.slots %s/in/1.slots --into %s/out",
               folder, folder, folder, folder);
    ck_assert_int_eq(r.code, 1);
    ck_assert_ptr_nonnull(strstr(r.err, "would both become"));
    r = run_in(folder,
               "$ICAE reconstruct " WITH " %s/in/[0-8].slots %s/in/none.slots --into %s/out",
               folder, folder, folder);
    ck_assert_int_eq(r.code, 1);
    ck_assert_ptr_nonnull(strstr(r.err, "none.slots"));
    ck_assert_ptr_nonnull(strstr(r.err, "8 of 10 texts are whole"));
    ck_assert_int_gt(icae_file_bytes(test_path(folder, "out/7.txt")), -1);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "out/8.txt")), -1);
}
END_TEST

SUITE_OF(side_by_side, 60, a_batch_gives_what_each_text_gives_alone,
         texts_that_are_read_in_several_passes_give_what_each_gives_alone,
         a_batch_that_fails_leaves_nothing, reconstruct_writes_every_text_into_its_file,
         reconstruct_replaces_no_text_unasked, reconstruct_says_what_it_cannot_do)
