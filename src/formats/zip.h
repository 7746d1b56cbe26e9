/* SPDX-License-Identifier: MIT */
/*
 * Zip archives that only store: what torch.save writes. Private to this folder.
 *
 *     entry    local header "PK\3\4" (30 bytes, name, extra field), bytes [, data descriptor]
 *     ...
 *     central directory: "PK\1\2" headers (46 bytes, name, extra field, comment), one an entry
 *     [zip64 end record "PK\6\6" (56 bytes), its locator "PK\6\7" (20 bytes)]
 *     end record "PK\5\6" (22 bytes, comment)
 *
 * Source: PKWARE, APPNOTE.TXT 6.3, sections 4.3 and 4.5.3. The central directory decides; each local
 * header must agree with it. Refused: compression, encryption, several disks, two entries of one name,
 * entries that share bytes, anything outside the file. Entries take 48 bytes each in memory, and one takes
 * at least 76 in the file.
 */
#ifndef ICAE_FORMATS_ZIP_H
#define ICAE_FORMATS_ZIP_H

#include "icae/file.h"
#include "icae/memory.h"

typedef struct zip_entry {
    const char *name; /* in the mapping, not ended by 0 */
    size_t name_bytes;
    const unsigned char *data;
    size_t bytes;
    size_t place; /* of the local header, in the file */
    uint32_t crc;
} zip_entry;

typedef struct zip_archive {
    const icae_mapping *mapping;
    zip_entry *entries; /* sorted by name, in the arena given */
    size_t n_entries;
} zip_archive;

/* Views into the mapping, which must outlive the archive. */
icae_status icae_zip_read(zip_archive *zip, const icae_mapping *mapping, icae_arena *arena,
                          icae_error *error);
/* The entry folder[0..folder_bytes) + name, or NULL. */
const zip_entry *icae_zip_find(const zip_archive *zip, const char *folder, size_t folder_bytes,
                               const char *name);
/* Reads the entry once and compares its CRC-32 with the directory's. */
icae_status icae_zip_check(const zip_archive *zip, const zip_entry *entry, icae_error *error);

#endif
