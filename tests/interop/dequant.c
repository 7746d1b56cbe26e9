/* SPDX-License-Identifier: MIT */
/*
 * Blocks of a storage type as floats, for dequant.py.
 *
 *     dequant            prints every type: name, values and bytes of a block, ggml's number (-1: none)
 *     dequant NAME       standard input: whole blocks; standard output: their values, f32
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/dtype.h"

int main(int argc, char **argv) {
    const icae_dtype_info *info = NULL;
    icae_dtype dtype = 0;
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        const icae_dtype_info *each = icae_dtype_describe((icae_dtype)d);
        if (argc < 2) {
            printf("%s %lld %zu %d\n", each->name, (long long)each->block_values,
                   each->block_bytes, each->ggml_type);
        } else if (!strcmp(argv[1], each->name)) {
            info = each;
            dtype = (icae_dtype)d;
        }
    }
    if (argc < 2) return 0;
    if (!info) {
        fprintf(stderr, "dequant: no type %s\n", argv[1]);
        return 1;
    }
    enum { MOST_VALUES = 256, MOST_BYTES = 256 };
    unsigned char block[MOST_BYTES];
    float values[MOST_VALUES];
    while (fread(block, info->block_bytes, 1, stdin) == 1) {
        icae_dtype_widen_f32(dtype, block, info->block_values, values);
        fwrite(values, sizeof *values, (size_t)info->block_values, stdout);
    }
    return fflush(stdout) ? 1 : 0;
}
