/* SPDX-License-Identifier: MIT */
/* The adapters in adapters/ are what their cards say: made for the demo's base, whole, and of use on a text that
 * they were not trained on. */
#include <stdio.h>
#include <string.h>

#include "icae.h"
#include "suites.h"

/* Written for this test, so that no training text holds it. */
static const char sentence[] =
    "The old captain stood on the deck and watched the sea for signs of whales.";
static const char *const words[] = {"old",     "captain", "stood", "on the", "deck",  "and",
                                    "watched", "the sea", "for",   "signs",  "whales"};

static void restores_most_words(const char *adapter) {
    const char *path = test_base_model();
    ck_assert_msg(path != NULL,
                  "the base model is not there: run `make base` first, or set ICAE_BASE");
    icae_error error = {0};
    icae_base *base;
    icae_session *session;
    icae_slots *slots;
    icae_generated restored;
    ck_ok(icae_base_open(&base, path, &error));
    ck_ok(icae_session_open(&session, base, adapter, NULL, &error));
    ck_ok(icae_session_compress(session, sentence, strlen(sentence), &slots, &error));
    ck_assert_int_eq(icae_slots_describe(slots).slots, 16);
    ck_ok(icae_session_generate(session, slots, &(icae_generation){.mode = ICAE_RECONSTRUCT},
                                NULL, NULL, &restored, &error));
    int kept = 0, n = sizeof words / sizeof words[0];
    for (int i = 0; i < n; i++)
        kept += strstr(restored.text, words[i]) != NULL;
    ck_assert_msg(kept > n / 2, "%d of %d words came back: %s", kept, n, restored.text);
    icae_generated_release(&restored);
    icae_slots_free(slots);
    icae_session_close(session);
    icae_base_close(base);
}

START_TEST(restores_most_words_of_an_unseen_sentence) {
    restores_most_words("adapters/smollm2-135m-4x");
}
END_TEST

START_TEST(the_one_for_questions_restores_most_words_too) {
    restores_most_words("adapters/smollm2-135m-4x-ask");
}
END_TEST

SUITE_OF(shipped, 300, restores_most_words_of_an_unseen_sentence,
         the_one_for_questions_restores_most_words_too)
