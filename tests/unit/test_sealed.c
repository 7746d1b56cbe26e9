/* SPDX-License-Identifier: MIT */
/*
 * Our own files byte by byte: whatever single bit of a slots file, an adapter or a checkpoint is changed, and
 * wherever one is cut, it is refused; so is one that belongs to another base, adapter or tokenizer. Files from
 * before there were checksums are read.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "icae/checkpoint.h"
#include "icae/file.h"
#include "icae/log.h"
#include "icae/slots.h"
#include "suites.h"

static icae_error error;

/* All that an adapter asks of a base. */
static icae_model small_model(void) {
    static char path[] = "bases/small.gguf";
    return (icae_model){.config = {.architecture = "llama",
                                   .vocabulary = 9,
                                   .width = 2,
                                   .layers = 1,
                                   .heads = 1,
                                   .kv_heads = 1,
                                   .head_width = 2,
                                   .feed_forward = 3,
                                   .context_length = 64},
                        .fingerprint = 0xba5e,
                        .path = path};
}

static icae_backend *reference(void) {
    icae_backend *be;
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    return be;
}

static icae_adapter *small_adapter(const icae_model *model, icae_backend *be,
                                   bool for_training) {
    icae_adapter *adapter;
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 1;
    settings.rank = 1;
    settings.targets[ICAE_MODULE_V] = false;
    ck_ok(icae_adapter_create(&adapter, model, &settings, 3, be, for_training, &error));
    return adapter;
}

/* ---- changing files ---- */

/* Reads what a test looks at; ICAE_OK when it was accepted. */
typedef icae_status reading(const char *path, void *user);

static void put(int descriptor, size_t place, unsigned char byte) {
    ck_assert_int_eq(pwrite(descriptor, &byte, 1, (off_t)place), 1);
}

/* Every single-bit change of every byte of a file, and every length that is too short. `path` is what `read`
 * is given: the file, or the folder that it is part of. */
static void refuses_all_changes(const char *file, const char *path, reading *read, void *user) {
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(file, 1 << 20, &data, &bytes, &error));
    ck_assert_msg(read(path, user) == ICAE_OK, "%s", error.message);
    int descriptor = open(file, O_RDWR);
    ck_assert_int_ge(descriptor, 0);
    for (size_t i = 0; i < bytes; i++) {
        for (int bit = 0; bit < 8; bit++) {
            put(descriptor, i, (unsigned char)((unsigned char)data[i] ^ 1u << bit));
            ck_assert_msg(read(path, user) != ICAE_OK, "%s: byte %zu, bit %d", file, i, bit);
            ck_assert_uint_ge(strlen(error.message), 8);
        }
        put(descriptor, i, (unsigned char)data[i]);
    }
    for (size_t length = bytes; length-- > 0;) {
        ck_assert_int_eq(ftruncate(descriptor, (off_t)length), 0);
        ck_assert_msg(read(path, user) != ICAE_OK, "%s: %zu bytes of it", file, length);
    }
    ck_assert_int_eq(pwrite(descriptor, data, bytes, 0), (ssize_t)bytes);
    close(descriptor);
    ck_assert_msg(read(path, user) == ICAE_OK, "%s", error.message);
    free(data);
}

/* ---- slots ---- */

static icae_slots small_slots(void) {
    icae_slots slots = {0};
    ck_ok(icae_slots_allocate(&slots, 1, 1, 2, &error));
    slots.values[0] = 1;
    slots.values[1] = -2;
    slots.span_lengths[0] = 5;
    slots.n_tokens = 5;
    slots.source_bytes = 21;
    slots.source_hash = 0x123456789abcdef0;
    slots.base_fingerprint = 0xba5e;
    slots.adapter_fingerprint = 0xadab7e5;
    slots.tokenizer_fingerprint = 0x70ce;
    return slots;
}

static icae_status read_slots(const char *path, void *user) {
    (void)user;
    icae_slots slots = {0};
    icae_status status = icae_slots_load(&slots, path, NULL, NULL, &error);
    icae_slots_release(&slots);
    return status;
}

/* Here all 255 other values, since a slots file is what travels. */
START_TEST(every_other_value_of_every_byte_of_slots_is_refused) {
    const char *path = test_path(test_folder("sealed-slots"), "a.slots");
    icae_slots slots = small_slots();
    ck_ok(icae_slots_save(&slots, path, &error));
    icae_slots_release(&slots);
    char *data, memory[64];
    size_t bytes;
    ck_ok(icae_file_read(path, 1 << 20, &data, &bytes, &error));
    int descriptor = memfd_create("slots", 0);
    ck_assert_int_ge(descriptor, 0);
    snprintf(memory, sizeof memory, "/proc/self/fd/%d", descriptor);
    ck_assert_int_eq(pwrite(descriptor, data, bytes, 0), (ssize_t)bytes);
    ck_ok(read_slots(memory, NULL));
    for (size_t i = 0; i < bytes; i++) {
        for (unsigned value = 0; value < 256; value++) {
            if (value == (unsigned char)data[i]) continue;
            put(descriptor, i, (unsigned char)value);
            ck_assert_msg(read_slots(memory, NULL) != ICAE_OK, "byte %zu as 0x%02x", i, value);
        }
        put(descriptor, i, (unsigned char)data[i]);
    }
    ck_ok(read_slots(memory, NULL));
    close(descriptor);
    free(data);
    refuses_all_changes(path, path, read_slots, NULL);
}
END_TEST

START_TEST(slots_of_another_base_adapter_or_tokenizer_are_refused) {
    const char *path = test_path(test_folder("sealed-swaps"), "a.slots");
    icae_model model = small_model();
    icae_tokenizer *tokenizer, *other;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, "tests/golden/llama/model", &error));
    ck_ok(icae_tokenizer_open_folder(&other, "tests/golden/qwen2/model", &error));
    model.tokenizer = tokenizer;
    icae_adapter adapter = {.settings = {.memory_slots = 1}, .fingerprint = 0xadab7e5};
    icae_slots slots = small_slots(), read = {0};
    slots.tokenizer_fingerprint = icae_tokenizer_fingerprint(tokenizer);
    ck_ok(icae_slots_save(&slots, path, &error));
    icae_slots_release(&slots);
    ck_ok(icae_slots_load(&read, path, &model, &adapter, &error));
    icae_slots_release(&read);
    adapter.fingerprint++;
    ck_refused(icae_slots_load(&read, path, &model, &adapter, &error), "was made by adapter");
    adapter.fingerprint--;
    model.fingerprint++;
    ck_refused(icae_slots_load(&read, path, &model, &adapter, &error), "was made for base");
    model.fingerprint--;
    model.tokenizer = other;
    ck_refused(icae_slots_load(&read, path, &model, &adapter, &error),
               "was made with tokenizer");
    ck_assert_ptr_null(read.values);
    icae_tokenizer_free(tokenizer);
    icae_tokenizer_free(other);
}
END_TEST

/* ---- adapters ---- */

static const char *const adapter_files[] = {"icae.json", "adapter_config.json",
                                            "adapter_model.safetensors", "memory.safetensors"};
enum { N_ADAPTER_FILES = sizeof adapter_files / sizeof adapter_files[0] };

static icae_status read_adapter(const char *path, void *user) {
    icae_model model = small_model();
    icae_adapter *adapter;
    icae_status status = icae_adapter_load(&adapter, path, &model, user, false, &error);
    icae_adapter_free(adapter);
    return status;
}

static void save_small(const char *folder, const icae_model *model, icae_backend *be) {
    icae_adapter *adapter = small_adapter(model, be, false);
    ck_ok(icae_adapter_save(adapter, folder, model, &error));
    icae_adapter_free(adapter);
}

START_TEST(every_changed_bit_of_an_adapter_is_refused) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s/a", test_folder("sealed-adapter"));
    icae_backend *be = reference();
    icae_model model = small_model();
    save_small(folder, &model, be);
    for (int i = 0; i < N_ADAPTER_FILES; i++)
        refuses_all_changes(test_path(folder, adapter_files[i]), folder, read_adapter, be);
    icae_backend_free(be);
}
END_TEST

/* Writes the file again up to a text in it, and then `end`. */
static void cut_before(const char *path, const char *text, const char *end) {
    char *data, *place;
    size_t bytes;
    ck_ok(icae_file_read(path, 1 << 20, &data, &bytes, &error));
    place = strstr(data, text);
    ck_assert_ptr_nonnull(place);
    icae_text cut = {0};
    icae_text_append(&cut, data, (size_t)(place - data));
    icae_text_append_string(&cut, end);
    ck_ok(icae_file_write(path, cut.data, cut.length, &error));
    icae_text_release(&cut);
    free(data);
}

START_TEST(an_adapter_from_before_checksums_is_read) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s/a", test_folder("sealed-old-adapter"));
    icae_backend *be = reference();
    icae_model model = small_model();
    save_small(folder, &model, be);
    cut_before(test_path(folder, "icae.json"), ",\n  \"files\"", "\n}\n");
    ck_ok(read_adapter(folder, be));
    icae_backend_free(be);
}
END_TEST

START_TEST(an_adapter_of_another_base_or_tokenizer_is_refused) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s/a", test_folder("sealed-other"));
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter;
    icae_tokenizer *tokenizer, *other;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, "tests/golden/llama/model", &error));
    ck_ok(icae_tokenizer_open_folder(&other, "tests/golden/qwen2/model", &error));
    model.tokenizer = tokenizer;
    save_small(folder, &model, be);
    ck_ok(icae_adapter_load(&adapter, folder, &model, be, false, &error));
    icae_adapter_free(adapter);
    model.tokenizer = other;
    ck_refused(icae_adapter_load(&adapter, folder, &model, be, false, &error),
               "was made with the tokenizer");
    model.tokenizer = tokenizer;
    model.fingerprint++;
    ck_refused(icae_adapter_load(&adapter, folder, &model, be, false, &error),
               "was made for the base");
    icae_tokenizer_free(tokenizer);
    icae_tokenizer_free(other);
    icae_backend_free(be);
}
END_TEST

/* ---- checkpoints ---- */

static icae_status read_checkpoint(const char *path, void *user) {
    (void)user;
    return icae_checkpoint_verify(path, &error);
}

static void save_checkpoint(const char *folder) {
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, true);
    const icae_run_state state = {.step = 7, .feed_json = "{\"place\": [1, 2]}"};
    ck_ok(icae_checkpoint_save(folder, adapter, &model, &state, 1, &error));
    icae_adapter_free(adapter);
    icae_backend_free(be);
}

START_TEST(every_changed_bit_of_a_checkpoint_is_refused) {
    static const char *const files[] = {"hashes.json",
                                        "state.json",
                                        "optimizer.safetensors",
                                        "adapter/icae.json",
                                        "adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors",
                                        "adapter/memory.safetensors"};
    char path[700];
    snprintf(path, sizeof path, "%s", test_folder("sealed-checkpoint"));
    save_checkpoint(path);
    strncat(path, "/checkpoints/step-7", sizeof path - strlen(path) - 1);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        refuses_all_changes(test_path(path, files[i]), path, read_checkpoint, NULL);
}
END_TEST

START_TEST(a_checkpoint_from_before_checksums_is_read) {
    char path[700];
    snprintf(path, sizeof path, "%s", test_folder("sealed-old-checkpoint"));
    save_checkpoint(path);
    strncat(path, "/checkpoints/step-7", sizeof path - strlen(path) - 1);
    cut_before(test_path(path, "hashes.json"), ",\n  \"checksum\"", "\n}\n");
    ck_ok(icae_checkpoint_verify(path, &error));
}
END_TEST

SUITE_OF(sealed, 120, every_other_value_of_every_byte_of_slots_is_refused,
         slots_of_another_base_adapter_or_tokenizer_are_refused,
         every_changed_bit_of_an_adapter_is_refused, an_adapter_from_before_checksums_is_read,
         an_adapter_of_another_base_or_tokenizer_is_refused,
         every_changed_bit_of_a_checkpoint_is_refused,
         a_checkpoint_from_before_checksums_is_read)
