/* SPDX-License-Identifier: MIT */
/* See disk.h. Nodes are never freed before the disk is: the flushed state may still name them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "icae/file.h"

enum { MOST_NODES = 8192, MOST_ENTRIES = 64, MOST_FD = 1024 };

typedef struct entry {
    char name[96];
    int node;
} entry;

typedef struct listing {
    entry entries[MOST_ENTRIES];
    int n;
} listing;

typedef struct content {
    unsigned char *bytes;
    size_t n;
} content;

typedef struct node {
    bool is_folder;
    listing *now, *flushed; /* of a folder */
    content data, kept;     /* of a file */
} node;

struct disk {
    char *root;
    node nodes[MOST_NODES]; /* 0 is the root */
    int n_nodes;
    int open_node[MOST_FD]; /* -1: none */
};

static void must(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "disk: %s\n", what);
    abort();
}

static int new_node(disk *d, bool is_folder) {
    must(d->n_nodes < MOST_NODES, "too many files");
    node *n = &d->nodes[d->n_nodes];
    n->is_folder = is_folder;
    if (is_folder) {
        n->now = calloc(1, sizeof *n->now);
        n->flushed = calloc(1, sizeof *n->flushed);
        must(n->now && n->flushed, "not enough memory");
    }
    return d->n_nodes++;
}

disk *disk_create(const char *root) {
    disk *d = calloc(1, sizeof *d);
    must(d, "not enough memory");
    d->root = strdup(root);
    memset(d->open_node, -1, sizeof d->open_node);
    new_node(d, true);
    return d;
}

void disk_free(disk *d) {
    for (int i = 0; i < d->n_nodes; i++) {
        free(d->nodes[i].now);
        free(d->nodes[i].flushed);
        free(d->nodes[i].data.bytes);
        free(d->nodes[i].kept.bytes);
    }
    free(d->root);
    free(d);
}

/* ---- names ---- */

static entry *find(listing *list, const char *name) {
    for (int i = 0; i < list->n; i++) {
        if (!strcmp(list->entries[i].name, name)) return &list->entries[i];
    }
    return NULL;
}

static void set(listing *list, const char *name, int number) {
    entry *e = find(list, name);
    if (!e) {
        must(list->n < MOST_ENTRIES, "too many names in a folder");
        e = &list->entries[list->n++];
        snprintf(e->name, sizeof e->name, "%s", name);
    }
    e->node = number;
}

static void unset(listing *list, const char *name) {
    entry *e = find(list, name);
    if (e) *e = list->entries[--list->n];
}

/* The folder that a path's last name is in, and that name; a path ending in a slash means the folder. */
static node *parent_of(disk *d, const char *path, char *name, size_t bytes) {
    size_t skip = strlen(d->root);
    must(!strncmp(path, d->root, skip), "a path outside");
    char rest[4096];
    snprintf(rest, sizeof rest, "%s", path + skip);
    node *folder = &d->nodes[0];
    char *save, *word = strtok_r(rest, "/", &save);
    *name = 0;
    while (word) {
        char *next = strtok_r(NULL, "/", &save);
        if (!next) {
            snprintf(name, bytes, "%s", word);
            break;
        }
        if (strcmp(word, ".") != 0) {
            entry *e = find(folder->now, word);
            must(e && d->nodes[e->node].is_folder, "a folder is missing");
            folder = &d->nodes[e->node];
        }
        word = next;
    }
    return folder;
}

static int node_at(disk *d, const char *path) {
    char name[128];
    node *folder = parent_of(d, path, name, sizeof name);
    if (!*name || !strcmp(name, ".")) return (int)(folder - d->nodes);
    entry *e = find(folder->now, name);
    return e ? e->node : -1;
}

/* ---- events ---- */

static void put_data(content *c, const unsigned char *data, size_t n, bool append) {
    size_t start = append ? c->n : 0;
    c->bytes = realloc(c->bytes, start + n + 1);
    must(c->bytes, "not enough memory");
    if (n) memcpy(c->bytes + start, data, n);
    c->n = start + n;
}

static void apply_open(disk *d, const file_event *event) {
    char name[128];
    node *folder = parent_of(d, event->a, name, sizeof name);
    int number = node_at(d, event->a);
    if (number < 0) {
        number = new_node(d, false);
        set(folder->now, name, number);
    } else if (event->is_new && !d->nodes[number].is_folder) {
        d->nodes[number].data.n = 0;
    }
    must(event->fd < MOST_FD, "a high descriptor");
    d->open_node[event->fd] = number;
}

static void apply_move(disk *d, const file_event *event) {
    char from_name[128], to_name[128];
    node *from = parent_of(d, event->a, from_name, sizeof from_name);
    node *to = parent_of(d, event->b, to_name, sizeof to_name);
    int a = node_at(d, event->a), b = node_at(d, event->b);
    must(a >= 0, "a renamed file is missing");
    unset(from->now, from_name);
    set(to->now, to_name, a);
    if (event->act == ACT_EXCHANGE) set(from->now, from_name, b);
}

void disk_apply(disk *d, const file_event *event) {
    char name[128];
    int number = event->fd >= 0 && event->fd < MOST_FD ? d->open_node[event->fd] : -1;
    node *n = number >= 0 ? &d->nodes[number] : NULL;
    switch (event->act) {
    case ACT_OPEN:
        apply_open(d, event);
        break;
    case ACT_WRITE:
        must(n, "a write to nowhere");
        put_data(&n->data, event->data, event->bytes, true);
        break;
    case ACT_SYNC:
        must(n, "a flush of nothing");
        if (n->is_folder)
            *n->flushed = *n->now;
        else
            put_data(&n->kept, n->data.bytes, n->data.n, false);
        break;
    case ACT_CLOSE:
        d->open_node[event->fd] = -1;
        break;
    case ACT_RENAME:
    case ACT_EXCHANGE:
        apply_move(d, event);
        break;
    case ACT_FOLDER:
        set(parent_of(d, event->a, name, sizeof name)->now, name, new_node(d, true));
        break;
    case ACT_REMOVE:
        unset(parent_of(d, event->a, name, sizeof name)->now, name);
        break;
    case ACT_TRUNCATE:
        number = node_at(d, event->a);
        must(number >= 0, "a truncated file is missing");
        d->nodes[number].data.n = event->bytes;
        break;
    case ACT_SAVED:
        break;
    }
}

/* ---- after the power cut ---- */

static bool is_flushed_one(disk_loss loss, bool is_folder, icae_rng *rng) {
    if (loss == LOSS_ALL) return true;
    if (loss == LOSS_DATA) return !is_folder;
    return icae_rng_uniform(rng) < 0.5;
}

static icae_status write_node(disk *d, int number, disk_loss loss, icae_rng *rng,
                              const char *path, icae_error *error) {
    node *n = &d->nodes[number];
    bool flushed = is_flushed_one(loss, n->is_folder, rng);
    if (!n->is_folder) {
        const content *c = flushed ? &n->kept : &n->data;
        return icae_file_write(path, c->bytes ? c->bytes : (const unsigned char *)"", c->n,
                               error);
    }
    const listing *list = flushed ? n->flushed : n->now;
    icae_status status = icae_folder_make(path, error);
    for (int i = 0; i < list->n && !status; i++) {
        char *inner = icae_path_join(path, list->entries[i].name);
        must(inner, "not enough memory");
        status = write_node(d, list->entries[i].node, loss, rng, inner, error);
        free(inner);
    }
    return status;
}

icae_status disk_survivors(disk *d, disk_loss loss, icae_rng *rng, const char *to,
                           icae_error *error) {
    icae_status status = icae_folder_remove(to, error);
    return status ? status : write_node(d, 0, loss, rng, to, error);
}
