/* SPDX-License-Identifier: MIT */
/*
 * A fidelity report as a page. What was lost has a line through it, what came back wrong is underlined, and both
 * have a colour as well: the page says the same in black and white, and to a screen reader (del, ins).
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "icae/chart.h"
#include "icae/fidelity.h"

static const char style[] =
    ".cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}.card{border:1px solid "
    "var(--line);"
    "border-radius:.5rem;padding:.6rem .9rem;min-width:9rem}.card "
    "b{display:block;font-size:1.35rem;"
    "font-weight:600}.card span{color:var(--faint);font-size:.85rem}\n"
    ".text{white-space:pre-wrap;overflow-wrap:anywhere;max-width:60rem}\n"
    "del{color:var(--series-1);text-decoration:line-through 2px;background:color-mix(in srgb,"
    "var(--series-1) 14%,transparent)}\n"
    "ins{color:var(--series-0);text-decoration:underline wavy 1px;text-underline-offset:3px}\n"
    ".mark{outline:1px solid var(--faint);outline-offset:1px;border-radius:2px}\n"
    ".lost{font-weight:700}.mark.lost{outline:2px solid var(--series-1)}details{margin:.5rem "
    "0}summary{cursor:pointer}\n"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem}\n";

static void put_escaped(icae_text *out, const char *text) {
    icae_html_escape(out, text, strlen(text));
}

static void put_card(icae_text *out, const char *label, const char *format, ...)
    ICAE_PRINTF(3, 4);
static void put_card(icae_text *out, const char *label, const char *format, ...) {
    char value[96];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    icae_text_append_string(out, "<div class=\"card\"><b>");
    put_escaped(out, value);
    icae_text_printf(out, "</b><span>%s</span></div>\n", label);
}

static void write_cards(icae_text *out, const icae_fidelity *f) {
    icae_text_append_string(out, "<div class=\"cards\">\n");
    put_card(out, "tokens kept, in order", "%.1f %%", 100 * icae_fidelity_kept(f));
    put_card(out, "tokens at their very place", "%.1f %%", 100 * icae_fidelity_in_place(f));
    put_card(out, "spans restored exactly", "%lld of %lld", (long long)f->n_exact,
             (long long)(f->n_spans - f->n_raw));
    put_card(out, "numbers lost", "%lld of %lld", (long long)f->n_numbers_lost,
             (long long)f->n_numbers);
    put_card(out, "names lost", "%lld of %lld", (long long)f->n_names_lost,
             (long long)f->n_names);
    if (f->n_targets) {
        put_card(out, "perplexity of the text given its slots", "%.3f",
                 exp(f->nll / (double)f->n_targets));
    }
    icae_text_append_string(out, "</div>\n");
}

static void write_continuation(icae_text *out, const icae_fidelity *f) {
    icae_text_append_string(out, "<h2>What the slots are worth to a reader</h2>\n");
    if (f->n_continuation < 1) {
        icae_text_printf(out,
                         "<p>Not measured: of fewer than %d tokens neither half says "
                         "enough.</p>\n",
                         2 * ICAE_FIDELITY_LEAST_HALF);
        return;
    }
    double n = (double)f->n_continuation;
    double gap = f->continuation_none - f->continuation_raw;
    /* as many as were scored, and the first of the half that were not */
    int64_t half = f->n_continuation + ICAE_FIDELITY_LEAST_HALF / 2;
    if (f->n_tokens > 2 * half + 1) {
        icae_text_printf(out, "<p>Of the text's first %lld tokens the second half",
                         (long long)(2 * half));
    } else {
        icae_text_append_string(out, "<p>The second half of the text");
    }
    icae_text_append_string(out,
                            ", predicted by the frozen model behind the "
                            "first half (all of it in slots, in spans of the adapter's own "
                            "length).</p>\n<table><tr><th>first half</th><th>"
                            "perplexity</th></tr>\n");
    icae_text_printf(out, "<tr><td>as it is</td><td>%.3f</td></tr>\n",
                     exp(f->continuation_raw / n));
    icae_text_printf(out, "<tr><td>in slots</td><td>%.3f</td></tr>\n",
                     exp(f->continuation_slots / n));
    icae_text_printf(out, "<tr><td>not at all</td><td>%.3f</td></tr>\n</table>\n",
                     exp(f->continuation_none / n));
    double recovered = 100 * (f->continuation_none - f->continuation_slots) / gap;
    if (gap > 0 && recovered > 0) {
        icae_text_printf(out, "<p>Slots recover %.1f %% of what the first half is worth",
                         recovered);
    } else {
        icae_text_append_string(out,
                                "<p>Slots recover nothing of what the first half is worth");
    }
    icae_text_printf(out, " (%lld tokens scored).</p>\n", (long long)f->n_continuation);
}

/* ---- the text ---- */

/* Bytes from..to with what was lost struck out; ill-formed bytes become U+FFFD. */
static void put_text(icae_text *out, const icae_fidelity *f, size_t from, size_t to) {
    for (size_t at = from; at < to;) {
        size_t end = at;
        while (end < to && f->is_lost[end] == f->is_lost[at])
            end++;
        icae_text repaired = {0};
        icae_utf8_repair(&repaired, f->text.data + at, end - at);
        icae_text_append_string(out, f->is_lost[at] ? "<del>" : "");
        icae_html_escape(out, icae_text_string(&repaired), repaired.length);
        icae_text_append_string(out, f->is_lost[at] ? "</del>" : "");
        out->failed |= repaired.failed;
        icae_text_release(&repaired);
        at = end;
    }
}

/* The whole text, numbers and names outlined. */
static void write_text(icae_text *out, const icae_fidelity *f) {
    icae_text_append_string(out, "<h2>The text</h2>\n<p><del>Struck out</del>: not restored. "
                                 "<span class=\"mark\">Outlined</span>: numbers and names, "
                                 "<span class=\"mark lost\">in bold</span> those that were "
                                 "lost.</p>\n"
                                 "<div class=\"text\">");
    size_t at = 0;
    for (int64_t m = 0; m < f->n_marks; m++) {
        put_text(out, f, at, f->marks[m].first);
        icae_text_append_string(out, f->marks[m].is_lost ? "<span class=\"mark lost\">"
                                                         : "<span class=\"mark\">");
        put_text(out, f, f->marks[m].first, f->marks[m].end);
        icae_text_append_string(out, "</span>");
        at = f->marks[m].end;
    }
    put_text(out, f, at, f->text.length);
    icae_text_append_string(out, "</div>\n");
}

static void write_marks(icae_text *out, const icae_fidelity *f, bool are_numbers) {
    int64_t lost = are_numbers ? f->n_numbers_lost : f->n_names_lost;
    if (lost == 0) return;
    icae_text_printf(out, "<p>%s lost:", are_numbers ? "Numbers" : "Names");
    for (int64_t m = 0, shown = 0; m < f->n_marks; m++) {
        const icae_fidelity_mark *mark = &f->marks[m];
        if (!mark->is_lost || mark->is_number != are_numbers) continue;
        icae_text_append_string(out,
                                shown++ ? ", <span class=\"lost\">" : " <span class=\"lost\">");
        put_text(out, f, mark->first, mark->end);
        icae_text_append_string(out, "</span>");
    }
    icae_text_append_string(out, ".</p>\n");
}

/* ---- span by span ---- */

/* Where the character at `at` ends; *is_right when none of its bytes is marked '!'. */
static size_t character_end(const icae_text *bytes, const icae_text *marks, size_t at,
                            bool *is_right) {
    int32_t point;
    size_t length = (size_t)icae_utf8_decode((const unsigned char *)bytes->data + at,
                                             bytes->length - at, &point);
    *is_right = !memchr(marks->data + at, '!', length);
    return at + length;
}

/* A character is wrong whole, as it is lost whole: its bytes may be of several tokens. */
static icae_status put_restored(icae_text *out, const icae_fidelity_span *span,
                                const icae_tokenizer *tokenizer, icae_error *error) {
    icae_text bytes = {0}, marks = {0}; /* a mark each byte */
    for (int64_t i = 0; i < span->n_restored; i++) {
        icae_tokenizer_append_token(tokenizer, span->restored[i], true, &bytes);
        while (marks.length < bytes.length && !marks.failed)
            icae_text_append_char(&marks, span->is_right[i] ? '=' : '!');
    }
    bool is_failed = bytes.failed || marks.failed;
    for (size_t at = 0; at < bytes.length && !is_failed;) {
        bool is_right, is_next_right;
        size_t end = character_end(&bytes, &marks, at, &is_right);
        while (end < bytes.length) {
            size_t next = character_end(&bytes, &marks, end, &is_next_right);
            if (is_next_right != is_right) break;
            end = next;
        }
        icae_text repaired = {0};
        icae_utf8_repair(&repaired, bytes.data + at, end - at);
        icae_text_append_string(out, is_right ? "" : "<ins>");
        icae_html_escape(out, icae_text_string(&repaired), repaired.length);
        icae_text_append_string(out, is_right ? "" : "</ins>");
        is_failed |= repaired.failed;
        icae_text_release(&repaired);
        at = end;
    }
    icae_text_release(&bytes);
    icae_text_release(&marks);
    return is_failed ? icae_fail_memory(error, "a page") : ICAE_OK;
}

static icae_status write_span(icae_text *out, const icae_fidelity *f, int64_t s,
                              const icae_tokenizer *tokenizer, icae_error *error) {
    const icae_fidelity_span *span = &f->spans[s];
    icae_text_printf(out, "<details%s><summary>Span %lld: ", span->is_exact ? "" : " open",
                     (long long)s + 1);
    if (span->is_raw) {
        icae_text_printf(out, "%lld tokens, kept as text</summary></details>\n",
                         (long long)span->n);
        return ICAE_OK;
    }
    icae_text_printf(out,
                     "%lld of %lld tokens kept%s</summary>\n<div class=\"pair\"><div><p "
                     "class=\"faint\">original</p><div class=\"text\">",
                     (long long)span->n_kept, (long long)span->n,
                     span->is_exact ? ", exact" : "");
    put_text(out, f, f->starts[s], f->starts[s + 1]);
    icae_text_append_string(out,
                            "</div></div><div><p class=\"faint\">restored (<ins>wavy</ins>: "
                            "not in the original)</p><div class=\"text\">");
    icae_status status = put_restored(out, span, tokenizer, error);
    icae_text_append_string(out, "</div></div></div></details>\n");
    return status;
}

static void write_head(icae_text *out, const icae_fidelity *f,
                       const icae_fidelity_source *source) {
    icae_text title = {0};
    icae_text_printf(&title, ICAE_FIDELITY_TITLE " of %s", source->text);
    icae_html_begin(out, icae_text_string(&title), style);
    icae_text_append_string(out, "<h1>");
    put_escaped(out, icae_text_string(&title));
    out->failed |= title.failed;
    icae_text_release(&title);
    int64_t n_spans = f->n_spans - f->n_raw;
    icae_text_printf(out,
                     "</h1>\n<p class=\"faint\">%lld tokens in %lld slots, %lld span%s, each "
                     "restored from its own slots by the frozen base, always the likeliest "
                     "token.",
                     (long long)(f->n_tokens - f->n_raw_tokens), (long long)f->n_slots,
                     (long long)n_spans, n_spans == 1 ? "" : "s");
    if (f->n_raw) {
        icae_text_printf(out,
                         " %lld other tokens, in %lld span%s, are kept as text and in none of "
                         "the shares.",
                         (long long)f->n_raw_tokens, (long long)f->n_raw,
                         f->n_raw == 1 ? "" : "s");
    }
    icae_text_append_string(out, " Base <code>");
    put_escaped(out, source->base);
    icae_text_append_string(out, "</code>, adapter <code>");
    put_escaped(out, source->adapter);
    icae_text_append_string(out, "</code>. Made by <code>");
    put_escaped(out, source->command);
    icae_text_append_string(out, "</code>.</p>\n");
}

icae_status icae_fidelity_write_page(icae_text *out, const icae_fidelity *fidelity,
                                     const icae_tokenizer *tokenizer,
                                     const icae_fidelity_source *source, icae_error *error) {
    const icae_fidelity *f = fidelity;
    write_head(out, f, source);
    write_cards(out, f);
    write_marks(out, f, true);
    write_marks(out, f, false);
    icae_text_append_string(
        out,
        "<p class=\"faint\">A number is a word with a digit; a name is a word with a capital "
        "that does not begin a sentence, \"I\" and phrases in capitals left out. Either is "
        "kept when it comes back as the same word, and lost when one of its characters is, or "
        "when others came into it.</p>\n");
    write_text(out, f);
    write_continuation(out, f);
    icae_text_append_string(out, "<h2>Span by span</h2>\n");
    icae_status status = ICAE_OK;
    for (int64_t s = 0; s < f->n_spans && !status; s++)
        status = write_span(out, f, s, tokenizer, error);
    icae_html_end(out);
    if (!status && out->failed) status = icae_fail_memory(error, "a page");
    return status;
}
