/* SPDX-License-Identifier: MIT */
/* Writes every case of the tables named as FOLDER/TABLE/CASE, for the fuzz programs to begin with:
 * write_broken FOLDER TABLE.txt... */
#include <stdio.h>
#include <string.h>

#include "../unit/broken.h"
#include "icae/file.h"

int main(int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        const char *slash = strrchr(argv[i], '/'), *name = slash ? slash + 1 : argv[i];
        char folder[512], path[640];
        icae_error error = {0};
        snprintf(folder, sizeof folder, "%s/%.*s", argv[1], (int)strcspn(name, "."), name);
        broken_table table = broken_table_read(argv[i]);
        icae_status status = icae_folder_make(folder, &error);
        for (size_t k = 0; k < table.n_cases && !status; k++) {
            const broken_case *c = &table.cases[k];
            snprintf(path, sizeof path, "%s/%s", folder, c->name);
            status =
                icae_file_write(path, icae_text_string(&c->bytes), c->bytes.length, &error);
        }
        broken_table_release(&table);
        if (!status) continue;
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    return 0;
}
