/* SPDX-License-Identifier: MIT */
/* Slots that icae convert writes for other programs: input embeddings, and tensors as torch.save's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "cli_support.h"
#include "icae/file.h"
#include "icae/layout.h"
#include "icae/safetensors.h"
#include "icae/slots.h"
#include "icae/torch_write.h"

static icae_error error;

/* Row `row` of an adapter's memory table, width 64. */
static void check_memory_row(const char *adapter, int64_t row, const void *values) {
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, test_path(adapter, "memory.safetensors"), &error));
    const icae_safetensors_entry *table =
        icae_safetensors_find(&file, "memory_token_embed.weight");
    ck_assert(table && table->shape[1] == 64);
    ck_assert_mem_eq(values, (const float *)table->data + row * 64, 64 * sizeof(float));
    icae_safetensors_close(&file);
}

START_TEST(embeds_are_slots_then_the_task_token) {
    static const char *const tasks[] = {"ae", "lm"};
    const char *folder = folder_with_slots("convert-embeds");
    icae_slots slots = {0};
    ck_ok(icae_slots_load(&slots, test_path(folder, "text.slots"), NULL, NULL, &error));
    int64_t n = slots.n_spans * slots.slots_per_span;
    ck_assert_int_gt(slots.n_spans, 1);
    for (int task = 0; task < 2; task++) {
        must(run_in(folder,
                    "$ICAE convert -q -m " TINY_BASE " -a " TINY_ADAPTER
                    " --task %s %s/text.slots %s/%s.safetensors",
                    tasks[task], folder, folder, tasks[task]));
        char name[32];
        snprintf(name, sizeof name, "%s.safetensors", tasks[task]);
        icae_safetensors file;
        ck_ok(icae_safetensors_open(&file, test_path(folder, name), &error));
        const icae_safetensors_entry *rows = icae_safetensors_find(&file, "inputs_embeds"),
                                     *places = icae_safetensors_find(&file, "position_ids");
        ck_assert(rows && places && rows->rank == 2 && places->rank == 1);
        ck_assert(rows->shape[0] == n + 1 && rows->shape[1] == 64 && places->shape[0] == n + 1);
        ck_assert_mem_eq(rows->data, slots.values, (size_t)n * 64 * sizeof(float));
        check_memory_row(TINY_ADAPTER, 8 + task, (const float *)rows->data + n * 64);
        int32_t expected[64];
        ck_assert_int_le(n + 2, 64);
        icae_decoder_positions(ICAE_LAYOUT_UNIFORM, (icae_task)task, 0, slots.n_spans,
                               slots.span_lengths, NULL, slots.slots_per_span, 2, expected);
        for (int64_t i = 0; i <= n; i++) {
            float place;
            memcpy(&place, (const char *)places->data + i * 4, sizeof place);
            ck_assert_int_eq((int32_t)place, expected[i]);
        }
        ck_assert_str_eq(icae_safetensors_metadata(&file, "task"), tasks[task]);
        ck_assert_int_eq(atoi(icae_safetensors_metadata(&file, "next_position")),
                         expected[n + 1]);
        ck_assert_str_eq(icae_safetensors_metadata(&file, "layout"), "uniform");
        icae_safetensors_close(&file);
    }
    icae_slots_release(&slots);
}
END_TEST

static uint32_t u32_at(const char *data, size_t at) {
    uint32_t value;
    memcpy(&value, data + at, sizeof value);
    return value;
}

static uint16_t u16_at(const char *data, size_t at) {
    uint16_t value;
    memcpy(&value, data + at, sizeof value);
    return value;
}

/* Walks the archive from its end, as a reader does. */
START_TEST(torch_tensors_are_sound_archives) {
    const char *folder = folder_with_slots_of("convert-torch", QWEN3_BASE, QWEN3_ADAPTER);
    must(run_in(folder,
                "$ICAE convert -q -m " QWEN3_BASE " -a " QWEN3_ADAPTER " %s/text.slots %s/x.pt",
                folder, folder));
    char *zip;
    size_t bytes;
    ck_ok(icae_file_read(test_path(folder, "x.pt"), 1 << 20, &zip, &bytes, &error));
    size_t end = bytes - 22, at = u32_at(zip, end + 16);
    ck_assert_uint_eq(u32_at(zip, end), 0x06054b50);
    ck_assert_uint_eq(u16_at(zip, end + 10), 4);
    ck_assert_uint_eq(at + u32_at(zip, end + 12), end);
    bool has_data = false;
    for (int i = 0; i < 4; i++) {
        ck_assert_uint_eq(u32_at(zip, at), 0x02014b50);
        size_t size = u32_at(zip, at + 24), name = u16_at(zip, at + 28),
               local = u32_at(zip, at + 42);
        ck_assert_uint_eq(u32_at(zip, local), 0x04034b50);
        ck_assert_mem_eq(zip + at + 46, zip + local + 30, name);
        size_t data = local + 30 + u16_at(zip, local + 26) + u16_at(zip, local + 28);
        ck_assert_uint_eq(data % 64, 0);
        ck_assert_uint_eq(crc32(0, (const unsigned char *)zip + data, (unsigned)size),
                          u32_at(zip, at + 16));
        if (name == 14 && !memcmp(zip + at + 46, "archive/data/0", name)) {
            icae_slots slots = {0};
            ck_ok(icae_slots_load(&slots, test_path(folder, "text.slots"), NULL, NULL, &error));
            size_t n = (size_t)(slots.n_spans * slots.slots_per_span * slots.width);
            ck_assert_uint_eq(size, (n + 64) * sizeof(float));
            ck_assert_mem_eq(zip + data, slots.values, n * sizeof(float));
            check_memory_row(QWEN3_ADAPTER, slots.slots_per_span,
                             zip + data + n * sizeof(float));
            icae_slots_release(&slots);
            has_data = true;
        }
        at += 46 + name;
    }
    ck_assert(has_data);
    ck_assert_uint_eq(at, end);
    free(zip);
}
END_TEST

START_TEST(torch_writer_refuses_what_it_cannot_hold) {
    const char *path = test_path(test_folder("convert-torch-bad"), "x.pt");
    const float one = 1;
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F64, 1, 1, &one, &error), "not F64");
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F32, 0, 1, &one, &error), "0 x 1");
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F32, 1, 0, &one, &error), "1 x 0");
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F32, INT64_MAX, INT64_MAX, &one, &error),
               "expected 1 to");
    ck_assert(!icae_path_exists(path));
}
END_TEST

START_TEST(inspect_tells_exported_slots) {
    const char *folder = folder_with_slots("convert-inspect-embeds");
    must(run_in(folder,
                "$ICAE convert -q -m " TINY_BASE " -a " TINY_ADAPTER
                " --dtype bf16 %s/text.slots %s/x.safetensors",
                folder, folder));
    must_say(run_in(folder, "$ICAE inspect %s/x.safetensors", folder),
             (const char *[]){"slots exported as input embeddings", "for bases of width 64",
                              "type               BF16", "task               ae",
                              "next position      1", NULL});
}
END_TEST

SUITE_OF(convert_slots, 60, embeds_are_slots_then_the_task_token,
         torch_tensors_are_sound_archives, torch_writer_refuses_what_it_cannot_hold,
         inspect_tells_exported_slots)
