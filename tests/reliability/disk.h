/* SPDX-License-Identifier: MIT */
/*
 * A disk that forgets. It replays a record of file_events and knows of every file and folder two states:
 * what programs see now, and what was flushed (fsync of the file for its bytes, of the folder for its
 * names). After a power cut any mixture of the two may be found.
 */
#ifndef ICAE_TESTS_DISK_H
#define ICAE_TESTS_DISK_H

#include "fault_layer.h"
#include "icae/rng.h"
#include "icae/status.h"

typedef struct disk disk;

/* `root`: the folder as the record spells it, which is taken to be there and empty. */
disk *disk_create(const char *root);
void disk_free(disk *d);
void disk_apply(disk *d, const file_event *event);

/* What a power cut leaves. */
typedef enum disk_loss {
    LOSS_ALL,    /* nothing that was not flushed is there */
    LOSS_DATA,   /* names are as they are now, bytes as they were flushed */
    LOSS_CHANCE, /* every file and folder is as now or as flushed, by lot */
    LOSS_COUNT
} disk_loss;

/* Writes it into the folder `to`, which is made anew. */
icae_status disk_survivors(disk *d, disk_loss loss, icae_rng *rng, const char *to,
                           icae_error *error);

#endif
