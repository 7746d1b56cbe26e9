/* SPDX-License-Identifier: MIT */
/*
 * A whole program on libicae: compresses a text file, keeps the slots in a file, reads them back,
 * restores the beginning of the text and asks a question about it.
 *
 *     compress_and_ask BASE ADAPTER TEXT SLOTS "QUESTION"
 *     cc compress_and_ask.c $(pkg-config --cflags --libs icae)
 */
#include <icae.h>
#include <stdio.h>
#include <stdlib.h>

/* Called with every new piece of text, as soon as its characters are whole. */
static bool print_piece(void *user, const char *piece, size_t bytes) {
    (void)user;
    fwrite(piece, 1, bytes, stdout);
    fflush(stdout);
    return true; /* false would stop here */
}

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return NULL;
    }
    char *text = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file);
        rewind(file);
        text = size >= 0 ? malloc((size_t)size + 1) : NULL;
        if (text) *bytes = fread(text, 1, (size_t)size, file);
    }
    fclose(file);
    if (!text) fprintf(stderr, "%s: could not be read\n", path);
    return text;
}

static icae_status work(icae_session *session, const icae_base *base, const char *text,
                        size_t bytes, const char *file, const char *question,
                        icae_error *error) {
    icae_slots *slots = NULL;
    icae_status status = icae_session_compress(session, text, bytes, &slots, error);
    if (!status) status = icae_slots_save(slots, file, error);
    icae_slots_free(slots);
    slots = NULL;
    if (!status) status = icae_session_load_slots(session, file, &slots, error);
    if (!status) {
        icae_slots_info info = icae_slots_describe(slots);
        printf("%lld tokens in %lld slots: %zu bytes, where a key-value cache takes %zu\n",
               (long long)info.source_tokens, (long long)info.slots, info.value_bytes,
               icae_base_cache_bytes(base, info.source_tokens));
        printf("restored: ");
        icae_generation again = {.mode = ICAE_RECONSTRUCT, .max_tokens = 24};
        status = icae_session_generate(session, slots, &again, print_piece, NULL, NULL, error);
    }
    if (!status) {
        printf("\nanswer: ");
        icae_generation asked = {.mode = ICAE_ASK, .prompt = question, .max_tokens = 24};
        icae_generated answer;
        status =
            icae_session_generate(session, slots, &asked, print_piece, NULL, &answer, error);
        if (!status) {
            printf("\n%lld tokens were read, %lld written\n", (long long)answer.prompt_tokens,
                   (long long)answer.generated_tokens);
            icae_generated_release(&answer);
        }
    }
    icae_slots_free(slots);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s BASE ADAPTER TEXT SLOTS \"QUESTION\"\n", argv[0]);
        return 2;
    }
    size_t bytes = 0;
    char *text = read_file(argv[3], &bytes);
    if (!text) return 1;
    icae_error error = {0};
    icae_base *base = NULL;
    icae_session *session = NULL;
    icae_status status = icae_base_open(&base, argv[1], &error);
    if (!status) status = icae_session_open(&session, base, argv[2], NULL, &error);
    if (!status) status = work(session, base, text, bytes, argv[4], argv[5], &error);
    if (status) fprintf(stderr, "%s\n", error.message);
    icae_session_close(session);
    icae_base_close(base);
    free(text);
    return status ? 1 : 0;
}
