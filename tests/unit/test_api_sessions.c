/* SPDX-License-Identifier: MIT */
/* Several sessions on one base: in threads, and within each other's callbacks. */
#include <icae.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

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

/* What a callback tries with the session that calls it, and with another one. */
typedef struct nested {
    icae_session *session, *other;
    const icae_slots *slots;
    int n;
} nested;

static bool use_sessions(void *user, size_t text, const char *piece, size_t bytes) {
    nested *t = user;
    (void)text, (void)piece, (void)bytes;
    const icae_generation wish = {.mode = ICAE_CONTINUE, .max_tokens = 4};
    icae_slots *made;
    ck_refused(icae_session_compress(t->session, passage, 20, &made, &error),
               "the session is writing a text");
    ck_assert_ptr_null(made);
    ck_refused(icae_session_generate(t->session, t->slots, &wish, NULL, NULL, NULL, &error),
               "the session is writing a text");
    ck_ok(icae_session_compress(t->other, passage, 20, &made, &error));
    ck_ok(icae_session_generate(t->other, t->slots, &wish, NULL, NULL, NULL, &error));
    icae_slots_free(made);
    t->n++;
    return true;
}

START_TEST(a_callback_may_use_other_sessions_but_not_its_own) {
    icae_base *base = open_base();
    nested t = {.session = open_session(base), .other = open_session(base)};
    icae_slots *slots = compress(t.session);
    const icae_slots *both[] = {slots, slots};
    icae_generated plain[2], disturbed[2];
    const icae_generation wish = {.mode = ICAE_CONTINUE, .max_tokens = 6};
    t.slots = slots;
    ck_ok(icae_session_generate_batch(t.session, both, 2, &wish, NULL, NULL, plain, &error));
    ck_ok(icae_session_generate_batch(t.session, both, 2, &wish, use_sessions, &t, disturbed,
                                      &error));
    ck_assert_int_gt(t.n, 3);
    for (int i = 0; i < 2; i++) {
        ck_assert_str_eq(plain[i].text, disturbed[i].text);
        icae_generated_release(&plain[i]);
        icae_generated_release(&disturbed[i]);
    }
    icae_slots_free(slots);
    slots = compress(t.session); /* it is free again */
    icae_slots_free(slots);
    icae_session_close(t.session);
    icae_session_close(t.other);
    icae_base_close(base);
}
END_TEST

/* Asks on a session of its own over the shared base. */
static void *ask_alone(void *base) {
    icae_error own = {0};
    icae_session *session = NULL;
    icae_slots *slots = NULL;
    icae_generated made = {0};
    icae_session_options one = {.n_threads = 1};
    icae_generation wish = {.mode = ICAE_ASK, .prompt = "Where?", .max_tokens = 20};
    icae_status status = icae_session_open(&session, base, TINY_ADAPTER, &one, &own);
    if (!status)
        status = icae_session_compress(session, passage, strlen(passage), &slots, &own);
    if (!status) status = icae_session_generate(session, slots, &wish, NULL, NULL, &made, &own);
    icae_slots_free(slots);
    icae_session_close(session);
    return status ? NULL : made.text;
}

START_TEST(sessions_in_threads_share_a_base) {
    enum { THREADS = 4 };
    icae_base *base = open_base();
    char *alone = ask_alone(base);
    ck_assert_ptr_nonnull(alone);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_alone, base), 0);
    for (int i = 0; i < THREADS; i++) {
        void *text;
        ck_assert_int_eq(pthread_join(threads[i], &text), 0);
        ck_assert_ptr_nonnull(text);
        ck_assert_str_eq(text, alone);
        free(text);
    }
    free(alone);
    icae_base_close(base);
}
END_TEST

SUITE_OF(api_sessions, 120, a_callback_may_use_other_sessions_but_not_its_own,
         sessions_in_threads_share_a_base)
