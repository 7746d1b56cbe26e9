/* SPDX-License-Identifier: MIT */
/* Stored zip archives; the layout and the rules stand in zip.h. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "quote.h"
#include "zip.h"

enum {
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    LONGEST_COMMENT = 65535
};

static uint32_t get16(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get32(const unsigned char *at) {
    return get16(at) | get16(at + 2) << 16;
}

static uint64_t get64(const unsigned char *at) {
    return (uint64_t)get32(at) | (uint64_t)get32(at + 4) << 32;
}

static bool has_mark(const unsigned char *at, char third, char fourth) {
    return at[0] == 'P' && at[1] == 'K' && at[2] == (unsigned char)third &&
           at[3] == (unsigned char)fourth;
}

/* "PATH: entry 'NAME': sentence" */
static icae_status refuse(const icae_mapping *mapping, const zip_entry *entry,
                          icae_status status, const char *sentence, icae_error *error) {
    return icae_fail(error, status, "%s: zip entry '%s': %s%s", mapping->path,
                     icae_quote(entry->name, entry->name_bytes).text, sentence,
                     icae_remedy(status, sentence));
}

/* ---- the ends ---- */

typedef struct directory {
    uint64_t count, place, bytes;
    size_t limit; /* where the records behind it begin */
} directory;

/* The end record: the last one whose comment ends with the file. */
static const unsigned char *find_end(const icae_mapping *mapping) {
    const unsigned char *data = mapping->data;
    for (size_t comment = 0; comment <= LONGEST_COMMENT; comment++) {
        if (comment + END_BYTES > mapping->bytes) return NULL;
        const unsigned char *at = data + mapping->bytes - END_BYTES - comment;
        if (has_mark(at, 5, 6) && get16(at + 20) == comment) return at;
    }
    return NULL;
}

/* Replaces what the 32-bit record could not hold by what the zip64 record says. */
static icae_status read_end64(const icae_mapping *mapping, const unsigned char *locator,
                              directory *found, icae_error *error) {
    const unsigned char *data = mapping->data;
    uint64_t place = get64(locator + 8);
    size_t before = (size_t)(locator - data);
    if (place > before || before - place < END64_BYTES || !has_mark(data + place, 6, 6)) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the zip64 end record is not where its locator says; fetch the "
                         "file again",
                         mapping->path);
    }
    const unsigned char *at = data + place;
    const uint64_t wide[] = {get64(at + 32), get64(at + 40), get64(at + 48)};
    uint64_t *const narrow[] = {&found->count, &found->bytes, &found->place};
    static const uint64_t full[] = {0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF};
    for (int i = 0; i < 3; i++) {
        if (*narrow[i] != full[i] && *narrow[i] != wide[i]) {
            return icae_fail(
                error, ICAE_FORMAT,
                "%s: its two zip end records contradict each other; fetch it again",
                mapping->path);
        }
        *narrow[i] = wide[i];
    }
    if (get32(at + 16) || get32(at + 20)) {
        return icae_fail(error, ICAE_UNSUPPORTED, "%s: is one of several zip disks",
                         mapping->path);
    }
    found->limit = (size_t)place;
    return ICAE_OK;
}

static icae_status read_end(const icae_mapping *mapping, directory *found, icae_error *error) {
    const unsigned char *end = find_end(mapping);
    if (!end) {
        return icae_fail(
            error, ICAE_FORMAT,
            "%s: has no zip directory at its end: it is cut off or no zip archive; "
            "fetch it again",
            mapping->path);
    }
    size_t before = (size_t)(end - mapping->data);
    *found = (directory){get16(end + 10), get32(end + 16), get32(end + 12), before};
    icae_status status = ICAE_OK;
    if (before >= LOCATOR_BYTES && has_mark(end - LOCATOR_BYTES, 6, 7))
        status = read_end64(mapping, end - LOCATOR_BYTES, found, error);
    if (status) return status;
    if (found->place > found->limit || found->bytes > found->limit - found->place) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the zip directory lies outside the file; fetch it again",
                         mapping->path);
    }
    if (found->count > found->bytes / CENTRAL_BYTES) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the zip directory claims %llu entries, but has %llu bytes; fetch "
                         "the file again",
                         mapping->path, (unsigned long long)found->count,
                         (unsigned long long)found->bytes);
    }
    return ICAE_OK;
}

/* ---- entries ---- */

/* The zip64 extra field: 64-bit values for those of the 32-bit fields that are full, in this order. */
static bool read_extra64(const unsigned char *extra, size_t bytes, uint64_t *const wanted[3]) {
    while (bytes >= 4) {
        size_t tag = get16(extra), length = get16(extra + 2);
        if (length > bytes - 4) return false;
        if (tag == 1) {
            const unsigned char *at = extra + 4;
            for (int i = 0; i < 3; i++) {
                if (!wanted[i]) continue;
                if (length < 8) return false;
                *wanted[i] = get64(at);
                at += 8;
                length -= 8;
            }
            return true;
        }
        extra += 4 + length;
        bytes -= 4 + length;
    }
    return !wanted[0] && !wanted[1] && !wanted[2];
}

/* What the local header says must be what the directory says. */
static icae_status read_local(const icae_mapping *mapping, zip_entry *entry, uint64_t bytes,
                              size_t limit, icae_error *error) {
    static const char outside[] = "lies outside the file; fetch it again";
    if (limit - entry->place <
        LOCAL_BYTES) /* the caller has held the place against the limit */
        return refuse(mapping, entry, ICAE_FORMAT, outside, error);
    const unsigned char *at = mapping->data + entry->place;
    size_t room = limit - entry->place - LOCAL_BYTES;
    size_t name_bytes = get16(at + 26), extra_bytes = get16(at + 28);
    if (!has_mark(at, 3, 4) || name_bytes != entry->name_bytes || name_bytes > room ||
        memcmp(at + LOCAL_BYTES, entry->name, name_bytes) != 0) {
        return refuse(mapping, entry, ICAE_FORMAT,
                      "its own header is not where the directory says", error);
    }
    if (get16(at + 8) != 0)
        return refuse(mapping, entry, ICAE_FORMAT, "its own header says that it is compressed",
                      error);
    if (extra_bytes > room - name_bytes || bytes > room - name_bytes - extra_bytes)
        return refuse(mapping, entry, ICAE_FORMAT, outside, error);
    entry->data = at + LOCAL_BYTES + name_bytes + extra_bytes;
    entry->bytes = (size_t)bytes;
    return ICAE_OK;
}

/* One header of the directory; *at moves behind it. */
static icae_status read_central(const icae_mapping *mapping, const unsigned char **at,
                                const unsigned char *end, size_t limit, zip_entry *entry,
                                icae_error *error) {
    const unsigned char *header = *at;
    size_t room = (size_t)(end - header);
    if (room < CENTRAL_BYTES || !has_mark(header, 1, 2)) {
        return icae_fail(error, ICAE_FORMAT, "%s: the zip directory is damaged; fetch it again",
                         mapping->path);
    }
    size_t name = get16(header + 28), extra = get16(header + 30), comment = get16(header + 32);
    if (name + extra + comment > room - CENTRAL_BYTES) {
        return icae_fail(error, ICAE_FORMAT, "%s: the zip directory is cut off; fetch it again",
                         mapping->path);
    }
    *at += CENTRAL_BYTES + name + extra + comment;
    *entry = (zip_entry){.name = (const char *)header + CENTRAL_BYTES,
                         .name_bytes = name,
                         .crc = get32(header + 16)};
    uint64_t stored = get32(header + 20), bytes = get32(header + 24),
             place = get32(header + 42);
    uint64_t *const wanted[] = {bytes == 0xFFFFFFFF ? &bytes : NULL,
                                stored == 0xFFFFFFFF ? &stored : NULL,
                                place == 0xFFFFFFFF ? &place : NULL};
    if (!read_extra64(header + CENTRAL_BYTES + name, extra, wanted))
        return refuse(mapping, entry, ICAE_FORMAT, "its zip64 field is damaged", error);
    if (get16(header + 8) & 1)
        return refuse(mapping, entry, ICAE_UNSUPPORTED, "is encrypted", error);
    if (get16(header + 10) != 0) {
        return refuse(
            mapping, entry, ICAE_UNSUPPORTED,
            "is compressed, which torch.save never does; unpack the archive and zip it "
            "again without compression (zip -0)",
            error);
    }
    if (stored != bytes)
        return refuse(mapping, entry, ICAE_FORMAT, "has two sizes that differ", error);
    if (get16(header + 34))
        return refuse(mapping, entry, ICAE_UNSUPPORTED, "is on another disk", error);
    if (place > limit)
        return refuse(mapping, entry, ICAE_FORMAT, "lies outside the file; fetch it again",
                      error);
    entry->place = (size_t)place;
    return read_local(mapping, entry, bytes, limit, error);
}

/* ---- together ---- */

static int compare_places(const void *left, const void *right) {
    const zip_entry *a = left, *b = right;
    return (a->place > b->place) - (a->place < b->place);
}

static int compare_names(const void *left, const void *right) {
    const zip_entry *a = left, *b = right;
    size_t shorter = a->name_bytes < b->name_bytes ? a->name_bytes : b->name_bytes;
    int order = memcmp(a->name, b->name, shorter);
    return order ? order : (a->name_bytes > b->name_bytes) - (a->name_bytes < b->name_bytes);
}

/* No byte belongs to two entries, no name to two; leaves them sorted by name. */
static icae_status check_entries(const zip_archive *zip, icae_error *error) {
    const unsigned char *reached = zip->mapping->data;
    if (!zip->n_entries) return ICAE_OK;
    qsort(zip->entries, zip->n_entries, sizeof *zip->entries, compare_places);
    for (size_t i = 0; i < zip->n_entries; i++) {
        const zip_entry *entry = &zip->entries[i];
        if (zip->mapping->data + entry->place < reached)
            return refuse(zip->mapping, entry, ICAE_FORMAT, "overlaps with another entry",
                          error);
        reached = entry->data + entry->bytes;
    }
    qsort(zip->entries, zip->n_entries, sizeof *zip->entries, compare_names);
    for (size_t i = 1; i < zip->n_entries; i++) {
        if (!compare_names(&zip->entries[i - 1], &zip->entries[i]))
            return refuse(zip->mapping, &zip->entries[i], ICAE_FORMAT, "stands there twice",
                          error);
    }
    return ICAE_OK;
}

icae_status icae_zip_read(zip_archive *zip, const icae_mapping *mapping, icae_arena *arena,
                          icae_error *error) {
    *zip = (zip_archive){.mapping = mapping};
    directory found;
    icae_status status = read_end(mapping, &found, error);
    if (status) return status;
    zip->entries = icae_arena_array(arena, (size_t)found.count, sizeof *zip->entries);
    if (!zip->entries) return icae_fail_memory(error, mapping->path);
    const unsigned char *at = mapping->data + found.place, *end = at + found.bytes;
    for (uint64_t i = 0; i < found.count && !status; i++) {
        status = read_central(mapping, &at, end, (size_t)found.place,
                              &zip->entries[zip->n_entries], error);
        zip->n_entries++;
    }
    if (!status && at != end) {
        status = icae_fail(
            error, ICAE_FORMAT,
            "%s: the zip directory holds more than the entries it counts; fetch the file "
            "again",
            mapping->path);
    }
    return status ? status : check_entries(zip, error);
}

const zip_entry *icae_zip_find(const zip_archive *zip, const char *folder, size_t folder_bytes,
                               const char *name) {
    size_t name_bytes = strlen(name);
    for (size_t low = 0, high = zip->n_entries; low < high;) {
        size_t middle = low + (high - low) / 2;
        const zip_entry *entry = &zip->entries[middle];
        size_t first = entry->name_bytes < folder_bytes ? entry->name_bytes : folder_bytes;
        int order = memcmp(entry->name, folder, first);
        if (!order && first < folder_bytes) order = -1;
        if (!order) {
            size_t left = entry->name_bytes - folder_bytes;
            order =
                memcmp(entry->name + folder_bytes, name, left < name_bytes ? left : name_bytes);
            if (!order) order = (left > name_bytes) - (left < name_bytes);
        }
        if (!order) return entry;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

icae_status icae_zip_check(const zip_archive *zip, const zip_entry *entry, icae_error *error) {
    uint32_t crc = (uint32_t)crc32_z(0, entry->data, entry->bytes);
    if (crc == entry->crc) return ICAE_OK;
    return refuse(zip->mapping, entry, ICAE_FORMAT,
                  "its bytes do not give the checksum that the directory holds: the file is "
                  "damaged; fetch it again",
                  error);
}
