/* SPDX-License-Identifier: MIT */
/*
 * What stands around the model in tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder.
 *
 * Hugging Face's tokenizers are built from parts; the families that this program knows use a few
 * combinations of them. Each combination is recognised as a whole and everything else is refused by
 * the name of the part.
 */
#include <string.h>

#include "quote.h"
#include "tokenizer_json.h"

typedef icae_json_loader loader;

/* ---- small helpers ---- */

icae_status icae_loader_refuse(const icae_json_loader *l, const icae_json_value *at,
                               icae_status status, const char *what, const char *detail) {
    return icae_fail(l->error, status, "%s:%d: %s%s%s", l->path, icae_json_line(l->json, at),
                     what, detail, icae_remedy(status, what));
}

const char *icae_string_of(const icae_json_value *object, const char *key) {
    const char *string = icae_json_as_string(icae_json_member(object, key));
    return string ? string : "";
}

bool icae_bool_of(const icae_json_value *object, const char *key, bool default_value) {
    bool value = default_value;
    icae_json_as_bool(icae_json_member(object, key), &value);
    return value;
}

icae_status icae_loader_check_keys(const icae_json_loader *l, const icae_json_value *object,
                                   const char *what, const char *keys) {
    if (!icae_json_is_object(object))
        return icae_fail(l->error, ICAE_FORMAT, "%s: %s is missing or not an object", l->path,
                         what);
    for (const icae_json_value *at = icae_json_first(object); at; at = icae_json_next(at)) {
        const char *key = icae_json_key(at), *found = keys;
        size_t length = strlen(key);
        bool is_word = length && !strchr(key, ' '); /* not several names that stand in a row */
        do {
            found = is_word ? strstr(found + 1, key) : NULL;
        } while (found && (found[-1] != ' ' || found[length] != ' '));
        if (!found)
            return icae_fail(l->error, ICAE_UNSUPPORTED,
                             "%s:%d: %s has the key \"%s\", which this program does not know",
                             l->path, icae_json_line(l->json, at), what,
                             icae_quote_string(key).text);
    }
    return ICAE_OK;
}

/* ---- pre_tokenizer ---- */

static const char bytelevel_keys[] = " type add_prefix_space trim_offsets use_regex ";

/* use_regex: whether it shall cut text itself, and not only spell what a split before it left. */
static icae_status check_bytelevel(const loader *l, const icae_json_value *value,
                                   bool use_regex) {
    icae_status status =
        icae_loader_check_keys(l, value, "pre_tokenizer ByteLevel", bytelevel_keys);
    if (status) return status;
    if (icae_bool_of(value, "add_prefix_space", true))
        return icae_loader_refuse(
            l, value, ICAE_UNSUPPORTED,
            "pre_tokenizer ByteLevel with add_prefix_space = true is not known", "");
    if (icae_bool_of(value, "use_regex", true) != use_regex)
        return icae_loader_refuse(l, value, ICAE_UNSUPPORTED,
                                  "pre_tokenizer ByteLevel with use_regex = ",
                                  use_regex ? "false and no Split before it is not known"
                                            : "true after a Split is not known");
    return ICAE_OK;
}

static icae_status read_digits(const loader *l, const icae_json_value *digits) {
    icae_status status =
        icae_loader_check_keys(l, digits, "pre_tokenizer Digits", " type individual_digits ");
    if (status) return status;
    if (!icae_bool_of(digits, "individual_digits", false))
        return icae_loader_refuse(
            l, digits, ICAE_UNSUPPORTED,
            "pre_tokenizer Digits with individual_digits = false is not known", "");
    l->tokenizer->pretokenizer = icae_pretokenizer_find("smollm");
    return ICAE_OK;
}

/* One of the regular expressions that pretokenize.c has an automaton for. */
static icae_status read_split(const loader *l, const icae_json_value *split) {
    icae_status status = icae_loader_check_keys(l, split, "pre_tokenizer Split",
                                                " type pattern behavior invert ");
    if (status) return status;
    const icae_json_value *pattern = icae_json_member(split, "pattern");
    if ((status = icae_loader_check_keys(l, pattern, "the pattern of pre_tokenizer Split",
                                         " Regex ")))
        return status;
    if (strcmp(icae_string_of(split, "behavior"), "Isolated") != 0 ||
        icae_bool_of(split, "invert", false))
        return icae_loader_refuse(
            l, split, ICAE_UNSUPPORTED,
            "expected the pre_tokenizer Split with behavior Isolated and not inverted", "");
    const char *regex = icae_string_of(pattern, "Regex");
    l->tokenizer->pretokenizer = icae_pretokenizer_find_regex(regex);
    if (l->tokenizer->pretokenizer) return ICAE_OK;
    return icae_loader_refuse(l, pattern, ICAE_UNSUPPORTED,
                              "pre_tokenizer Split by a regular expression that is not known: ",
                              icae_quote_string(regex).text);
}

/* Marks for spaces as a pre_tokenizer, which is after normalized added tokens were looked for. */
static icae_status read_metaspace(const loader *l, const icae_json_value *value) {
    static const struct {
        const char *name;
        icae_prefix prefix;
    } schemes[] = {{"", ICAE_PREFIX_UNMARKED}, /* files from before it was there */
                   {"always", ICAE_PREFIX_UNMARKED},
                   {"first", ICAE_PREFIX_START},
                   {"never", ICAE_PREFIX_NONE}};
    enum { N_SCHEMES = sizeof schemes / sizeof schemes[0] };
    icae_status status = icae_loader_check_keys(
        l, value, "pre_tokenizer Metaspace",
        " type replacement str_rep prepend_scheme add_prefix_space split ");
    if (status) return status;
    if (strcmp(icae_string_of(value, "replacement"), ICAE_SPACE_MARK) != 0)
        return icae_loader_refuse(
            l, value, ICAE_UNSUPPORTED,
            "expected the pre_tokenizer Metaspace with replacement U+2581, "
            "got ",
            icae_quote_string(icae_string_of(value, "replacement")).text);
    const char *scheme = icae_string_of(value, "prepend_scheme");
    int found = 0;
    while (found < N_SCHEMES && strcmp(schemes[found].name, scheme) != 0)
        found++;
    if (found == N_SCHEMES)
        return icae_loader_refuse(
            l, value, ICAE_UNSUPPORTED,
            "expected pre_tokenizer Metaspace's prepend_scheme always, first or never, got ",
            icae_quote_string(scheme).text);
    if (!icae_bool_of(value, "add_prefix_space", true) &&
        schemes[found].prefix != ICAE_PREFIX_NONE) /* Hugging Face refuses that too */
        return icae_loader_refuse(l, value, ICAE_UNSUPPORTED,
                                  "pre_tokenizer Metaspace has add_prefix_space = false, but "
                                  "not prepend_scheme never",
                                  "");
    l->tokenizer->marking.is_on = l->tokenizer->marking.is_late = true;
    l->tokenizer->marking.prefix = schemes[found].prefix;
    l->tokenizer->pretokenizer = icae_pretokenizer_find(
        icae_bool_of(value, "split", true) ? "metaspace" : "sentencepiece");
    return ICAE_OK;
}

/* {"pattern": {"String": from}, "content": to}, and no other key. */
static icae_status check_replace(const loader *l, const icae_json_value *value,
                                 const char *what, const char *from, const char *to) {
    icae_status status = icae_loader_check_keys(l, value, what, " type pattern content ");
    const icae_json_value *pattern = icae_json_member(value, "pattern");
    if (!status) status = icae_loader_check_keys(l, pattern, what, " String ");
    if (status) return status;
    if (strcmp(icae_string_of(pattern, "String"), from) == 0 &&
        strcmp(icae_string_of(value, "content"), to) == 0)
        return ICAE_OK;
    return icae_fail(l->error, ICAE_UNSUPPORTED,
                     "%s:%d: expected %s of \"%s\" by \"%s\", got \"%s\" by \"%s\"", l->path,
                     icae_json_line(l->json, value), what, from, to,
                     icae_quote_string(icae_string_of(pattern, "String")).text,
                     icae_quote_string(icae_string_of(value, "content")).text);
}

/* After a normalizer that made every space a mark: nothing, or a Split at spaces (Gemma), which
 * finds none. */
static icae_status check_after_marks(const loader *l, const icae_json_value *value) {
    l->tokenizer->pretokenizer = icae_pretokenizer_find("sentencepiece");
    if (icae_json_is_null(value)) return ICAE_OK;
    const icae_json_value *pattern = icae_json_member(value, "pattern");
    if (strcmp(icae_string_of(value, "type"), "Split") != 0 ||
        strcmp(icae_string_of(pattern, "String"), " ") != 0 ||
        strcmp(icae_string_of(value, "behavior"), "MergedWithPrevious") != 0 ||
        icae_bool_of(value, "invert", false))
        return icae_loader_refuse(l, value, ICAE_UNSUPPORTED,
                                  "expected no pre_tokenizer, or Split at spaces, after the "
                                  "normalizer Replace, got ",
                                  icae_quote_string(icae_string_of(value, "type")).text);
    icae_status status = icae_loader_check_keys(l, value, "pre_tokenizer Split",
                                                " type pattern behavior invert ");
    return status ? status
                  : icae_loader_check_keys(l, pattern, "the pattern of pre_tokenizer Split",
                                           " String ");
}

static const char known_pretokenizers[] =
    "ByteLevel, Sequence[Digits, ByteLevel], Sequence[Split, ByteLevel] or Metaspace";

/* Sequence[Digits or Split, ByteLevel]. */
static icae_status read_sequence(const loader *l, const icae_json_value *value) {
    icae_status status =
        icae_loader_check_keys(l, value, "pre_tokenizer", " type pretokenizers ");
    if (status) return status;
    const icae_json_value *list = icae_json_member(value, "pretokenizers");
    const icae_json_value *first = icae_json_is_array(list) ? icae_json_first(list) : NULL;
    const icae_json_value *bytelevel = first ? icae_json_next(first) : NULL;
    bool is_split = strcmp(icae_string_of(first, "type"), "Split") == 0;
    bool is_digits = strcmp(icae_string_of(first, "type"), "Digits") == 0;
    if (bytelevel && !icae_json_next(bytelevel) && (is_split || is_digits) &&
        strcmp(icae_string_of(bytelevel, "type"), "ByteLevel") == 0) {
        if ((status = is_split ? read_split(l, first) : read_digits(l, first))) return status;
        return check_bytelevel(l, bytelevel, is_digits);
    }
    icae_text types = {0};
    if (!icae_json_is_array(list)) list = NULL;
    for (const icae_json_value *at = list ? icae_json_first(list) : NULL; at;
         at = icae_json_next(at))
        icae_text_printf(&types, "%s%s", types.length ? ", " : "", icae_string_of(at, "type"));
    status = icae_fail(l->error, ICAE_UNSUPPORTED,
                       "%s:%d: expected the pre_tokenizer %s, got Sequence of %s", l->path,
                       icae_json_line(l->json, value), known_pretokenizers,
                       types.length ? icae_quote(types.data, types.length).text : "nothing");
    icae_text_release(&types);
    return status;
}

static icae_status read_pretokenizer(const loader *l, const icae_json_value *value) {
    if (l->tokenizer->marking.is_on) return check_after_marks(l, value);
    if (icae_json_is_null(value))
        return icae_fail(l->error, ICAE_UNSUPPORTED,
                         "%s: there is no pre_tokenizer, expected %s", l->path,
                         known_pretokenizers);
    const char *type = icae_string_of(value, "type");
    if (strcmp(type, "Sequence") == 0) return read_sequence(l, value);
    if (strcmp(type, "Metaspace") == 0 && !l->tokenizer->nfc) return read_metaspace(l, value);
    if (strcmp(type, "ByteLevel") == 0) {
        l->tokenizer->pretokenizer = icae_pretokenizer_find("gpt2");
        return check_bytelevel(l, value, true);
    }
    return icae_fail(l->error, ICAE_UNSUPPORTED, "%s:%d: expected the pre_tokenizer %s, got %s",
                     l->path, icae_json_line(l->json, value), known_pretokenizers,
                     *type ? icae_quote_string(type).text : "one without a type");
}

/* ---- the other parts ---- */

/* NFC; Replace of spaces by marks (Gemma); Sequence[Prepend a mark, that Replace] (Llama 2). */
static icae_status read_normalizer(const loader *l, const icae_json_value *value) {
    static const char replace[] = "the normalizer Replace";
    if (icae_json_is_null(value)) return ICAE_OK;
    const char *type = icae_string_of(value, "type");
    icae_marking *marking = &l->tokenizer->marking;
    icae_status status;
    if (strcmp(type, "NFC") == 0) {
        l->tokenizer->nfc = true;
        return icae_loader_check_keys(l, value, "normalizer NFC", " type ");
    }
    if (strcmp(type, "Replace") == 0) {
        marking->is_on = true;
        return check_replace(l, value, replace, " ", ICAE_SPACE_MARK);
    }
    const icae_json_value *list = icae_json_member(value, "normalizers");
    const icae_json_value *prepend = icae_json_is_array(list) ? icae_json_first(list) : NULL;
    const icae_json_value *second = prepend ? icae_json_next(prepend) : NULL;
    if (strcmp(type, "Sequence") != 0 || !second || icae_json_next(second) ||
        strcmp(icae_string_of(prepend, "type"), "Prepend") != 0 ||
        strcmp(icae_string_of(second, "type"), "Replace") != 0)
        return icae_loader_refuse(
            l, value, ICAE_UNSUPPORTED,
            "expected normalizer null, NFC, Replace or Sequence[Prepend, Replace], got ",
            icae_quote_string(type).text);
    if ((status = icae_loader_check_keys(l, value, "normalizer", " type normalizers ")) ||
        (status = icae_loader_check_keys(l, prepend, "normalizer Prepend", " type prepend ")))
        return status;
    if (strcmp(icae_string_of(prepend, "prepend"), ICAE_SPACE_MARK) != 0)
        return icae_loader_refuse(l, prepend, ICAE_UNSUPPORTED,
                                  "expected the normalizer Prepend of U+2581, got ",
                                  icae_quote_string(icae_string_of(prepend, "prepend")).text);
    marking->is_on = true;
    marking->prefix = ICAE_PREFIX_ALWAYS;
    return check_replace(l, second, replace, " ", ICAE_SPACE_MARK);
}

/* Those that only put special tokens around the text, or only move offsets. */
static icae_status check_postprocessor(const loader *l, const icae_json_value *value) {
    if (icae_json_is_null(value)) return ICAE_OK;
    const char *type = icae_string_of(value, "type");
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "TemplateProcessing") == 0)
        return ICAE_OK;
    if (strcmp(type, "Sequence") != 0)
        return icae_loader_refuse(
            l, value, ICAE_UNSUPPORTED,
            "expected the post_processor ByteLevel or TemplateProcessing, got ",
            icae_quote_string(type).text);
    const icae_json_value *list = icae_json_member(value, "processors");
    if (!icae_json_is_array(list))
        return icae_loader_refuse(l, value, ICAE_FORMAT,
                                  "post_processor Sequence has no processors", "");
    for (const icae_json_value *at = icae_json_first(list); at; at = icae_json_next(at)) {
        icae_status status = check_postprocessor(l, at);
        if (status) return status;
    }
    return ICAE_OK;
}

/* Sequence[Replace, ByteFallback, Fuse] and, with a prefix, Strip after them. */
static icae_status read_marked_decoder(const loader *l, const icae_json_value *value) {
    static const char *const types[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    static const char expected[] = "expected the decoder Sequence[Replace, ByteFallback, Fuse] "
                                   "with or without Strip, got ";
    const char *type = icae_string_of(value, "type");
    const icae_json_value *list = icae_json_member(value, "decoders");
    if (strcmp(type, "Sequence") != 0 || !icae_json_is_array(list))
        return icae_loader_refuse(l, value, ICAE_UNSUPPORTED, expected,
                                  icae_quote_string(type).text);
    icae_status status = icae_loader_check_keys(l, value, "decoder", " type decoders ");
    size_t n = 0;
    for (const icae_json_value *at = icae_json_first(list); at && !status;
         at = icae_json_next(at), n++) {
        type = icae_string_of(at, "type");
        if (n > 3 || strcmp(type, types[n]) != 0)
            return icae_loader_refuse(l, at, ICAE_UNSUPPORTED, expected,
                                      icae_quote_string(type).text);
        int64_t start = 0, stop = 1;
        if (n == 0)
            status = check_replace(l, at, "the decoder Replace", ICAE_SPACE_MARK, " ");
        else
            status = icae_loader_check_keys(l, at, "decoder",
                                            n < 3 ? " type " : " type content start stop ");
        if (n == 3 && (!icae_json_as_integer(icae_json_member(at, "start"), &start) ||
                       !icae_json_as_integer(icae_json_member(at, "stop"), &stop) ||
                       strcmp(icae_string_of(at, "content"), " ") != 0 || start != 1 || stop))
            return icae_loader_refuse(
                l, at, ICAE_UNSUPPORTED,
                "expected the decoder Strip of one space at the start and none at the end", "");
    }
    if (!status && n < 3)
        return icae_loader_refuse(l, value, ICAE_UNSUPPORTED, expected, "fewer");
    l->tokenizer->marking.strips_first = n == 4;
    return status;
}

static icae_status read_decoder(const loader *l, const icae_json_value *value) {
    if (icae_json_is_null(value))
        return icae_fail(l->error, ICAE_UNSUPPORTED, "%s: expected the decoder %s, got none",
                         l->path, l->tokenizer->marking.is_on ? "Sequence" : "ByteLevel");
    if (l->tokenizer->marking.is_on) return read_marked_decoder(l, value);
    const char *type = icae_string_of(value, "type");
    if (strcmp(type, "ByteLevel") != 0)
        return icae_loader_refuse(l, value, ICAE_UNSUPPORTED,
                                  "expected the decoder ByteLevel, got ",
                                  icae_quote_string(type).text);
    return icae_loader_check_keys(l, value, "decoder ByteLevel", bytelevel_keys);
}

icae_status icae_loader_read_pipeline(const loader *l, const icae_json_value *root) {
    icae_status status = icae_loader_check_keys(
        l, root, "the file",
        " version truncation padding added_tokens normalizer pre_tokenizer "
        "post_processor decoder model ");
    if (status) return status;
    status = read_normalizer(l, icae_json_member(root, "normalizer"));
    if (status) return status;
    if ((status = read_pretokenizer(l, icae_json_member(root, "pre_tokenizer")))) return status;
    status = check_postprocessor(l, icae_json_member(root, "post_processor"));
    if (status) return status;
    return read_decoder(l, icae_json_member(root, "decoder"));
}
