/* SPDX-License-Identifier: MIT */
/* Released ICAE weights, and PyTorch's .pt files in general, for icae inspect. */
#include <inttypes.h>
#include <string.h>

#include "icae/adapter.h"
#include "icae/released.h"
#include "icae/torch_file.h"
#include "inspect.h"

static icae_status read_weights(icae_adapter **adapter, const char *path,
                                const icae_model *model, icae_backend *be, icae_error *error) {
    return icae_released_convert(adapter, path, model, NULL, be, false, error);
}

icae_status inspect_released(facts *f, const char *path, const options *given,
                             icae_error *error) {
    icae_released_facts r;
    icae_status status = icae_released_describe(&r, path, error);
    if (status) return status;
    bool is_v1 = r.kind == ICAE_RELEASED_V1;
    fact_text(f, "kind", "this is", "an ICAE as its authors released it, %s",
              is_v1 ? "v1 (PyTorch's .pt)" : "v2 (safetensors)");
    fact_count(f, "layers", "layers", r.layers);
    fact_count(f, "width", "width", r.width);
    fact_count(f, "rank", "LoRA rank", r.rank);
    icae_text targets = {0};
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (!r.targets[m]) continue;
        icae_text_printf(&targets, "%s%s [%" PRId64 ", %" PRId64 "]",
                         targets.length ? ", " : "", icae_module_name((icae_module)m),
                         r.rows[m], r.cols[m]);
    }
    fact_text(f, "targets", "LoRA on", "%s", icae_text_string(&targets));
    icae_text_release(&targets);
    fact_count(f, "memory_slots", "memory slots", r.memory_slots);
    fact_count(f, "tensors", "tensors", r.tensors);
    if (is_v1) fact_count(f, "placeholders", "0.0 for weights", r.placeholders);
    fact_text(f, "base", "shapes of", "%s", r.base);
    fact_text(f, "assumed", "not in the file", "layout append, 4 tokens a slot, LoRA alpha 32");
    return given->base ? try_on_base(f, path, given->base, read_weights, error) : ICAE_OK;
}

icae_status inspect_torch(facts *f, const char *path, icae_error *error) {
    icae_torch_file file = {0};
    icae_status status = icae_torch_file_open(&file, path, error);
    if (status) return status;
    fact_text(f, "kind", "this is", "a PyTorch file (.pt), no released ICAE");
    size_t tensors = 0, bytes = 0;
    for (size_t i = 0; i < file.n_entries; i++) {
        tensors += file.entries[i].kind == ICAE_TORCH_TENSOR;
        bytes += file.entries[i].bytes;
    }
    fact_count(f, "keys", "keys", (int64_t)file.n_entries);
    fact_count(f, "tensors", "tensors", (int64_t)tensors);
    fact_bytes(f, "bytes", "bytes in them", bytes);
    enum { SHOWN = 8 };
    for (size_t i = 0; i < file.n_entries && i < SHOWN; i++)
        fact_note(f, "  %s, a %s", file.entries[i].name, file.entries[i].type);
    if (file.n_entries > SHOWN) fact_note(f, "  and %zu more", file.n_entries - SHOWN);
    icae_torch_file_close(&file);
    return ICAE_OK;
}
