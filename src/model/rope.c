/* SPDX-License-Identifier: MIT */
/*
 * Rotary positions: the frequency of every pair, and cosines and sines for given positions.
 *
 * The plain frequency of pair i of E/2 is f = theta^(-2i/E), its wave 2 pi / f tokens long. The kinds of
 * scaling that stretch a base over longer texts, by the factor s:
 *
 *     linear   f / s
 *     llama3   f for waves shorter than original / high_frequency, f / s for waves longer than
 *              original / low_frequency, between the two a blend that is linear in original / wave
 *     yarn     f for pairs below `low`, f / s above `high`, a linear ramp over the pair's number between;
 *              low and high are where a pair turns beta_fast and beta_slow times within the original
 *              length. Cosines and sines are multiplied by the magnitude, 0.1 ln s + 1 unless given.
 *
 * Sources: Su et al., arXiv 2104.09864; Chen et al., arXiv 2306.15595 (linear); the Llama 3.1 model
 * card; Peng et al., arXiv 2309.00071 (yarn). The conventions (which end is rounded, what a missing
 * key means) are those of Hugging Face's configs.
 */
#include <math.h>
#include <string.h>

#include "model/model_internal.h"

static const double PI = 3.14159265358979323846;

static const char *const names[] = {"default", "linear", "llama3", "yarn"};

bool icae_rope_type_from_name(const char *name, icae_rope_type *type) {
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++) {
        if (strcmp(names[i], name)) continue;
        *type = (icae_rope_type)i;
        return true;
    }
    return false;
}

const char *icae_rope_check(const icae_rope_scaling *rope) {
    if (rope->type == ICAE_ROPE_DEFAULT) return NULL;
    if (!(rope->factor >= 1)) return "its factor is missing or less than 1";
    if (rope->type == ICAE_ROPE_LINEAR) return NULL;
    if (rope->original_length < 1) return "its original_max_position_embeddings is missing";
    if (rope->type == ICAE_ROPE_LLAMA3 &&
        !(rope->low_frequency > 0 && rope->high_frequency > rope->low_frequency)) {
        return "expected 0 < low_freq_factor < high_freq_factor";
    }
    if (rope->type == ICAE_ROPE_YARN &&
        !(rope->beta_slow > 0 && rope->beta_fast >= rope->beta_slow && rope->magnitude > 0)) {
        return "expected 0 < beta_slow <= beta_fast and attention_factor > 0";
    }
    return NULL;
}

double icae_rope_yarn_magnitude(double factor, double multiplier) {
    return factor <= 1 ? 1 : 0.1 * multiplier * log(factor) + 1;
}

static double llama3_frequency(const icae_rope_scaling *rope, double plain) {
    double turns = (double)rope->original_length * plain / (2 * PI); /* original / wave */
    if (turns < rope->low_frequency) return plain / rope->factor;
    if (turns > rope->high_frequency) return plain;
    double smooth =
        (turns - rope->low_frequency) / (rope->high_frequency - rope->low_frequency);
    return (1 - smooth) * plain / rope->factor + smooth * plain;
}

/* The pair, as a real number, that turns `turns` times within the original length. */
static double pair_of_turns(const icae_model_config *config, double turns) {
    double E = (double)config->head_width;
    return E * log((double)config->rope.original_length / (turns * 2 * PI)) /
           (2 * log(config->rope_theta));
}

static double yarn_frequency(const icae_model_config *config, int64_t i, double plain) {
    const icae_rope_scaling *rope = &config->rope;
    double low = pair_of_turns(config, rope->beta_fast);
    double high = pair_of_turns(config, rope->beta_slow);
    if (!rope->has_exact_ramp) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)config->head_width - 1);
    if (low == high) high += 0.001; /* no division by zero */
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
    return plain / rope->factor * ramp + plain * (1 - ramp);
}

void icae_rope_frequencies(const icae_model_config *config, bool is_local, double *out) {
    bool is_own = is_local && config->local_rope_theta > 0;
    double theta = is_own ? config->local_rope_theta : config->rope_theta;
    for (int64_t i = 0; i < config->head_width / 2; i++) {
        double plain = pow(theta, -2.0 * (double)i / (double)config->head_width);
        switch (is_own ? ICAE_ROPE_DEFAULT : config->rope.type) {
        case ICAE_ROPE_DEFAULT:
            out[i] = plain;
            break;
        case ICAE_ROPE_LINEAR:
            out[i] = plain / config->rope.factor;
            break;
        case ICAE_ROPE_LLAMA3:
            out[i] = llama3_frequency(&config->rope, plain);
            break;
        case ICAE_ROPE_YARN:
            out[i] = yarn_frequency(config, i, plain);
            break;
        }
    }
}

icae_tensor *icae_rope_angles(icae_graph *graph, const icae_model *model, bool is_local,
                              int64_t T, const int32_t *positions) {
    bool is_own = is_local && model->local_rope_frequencies;
    const double *frequencies =
        is_own ? model->local_rope_frequencies : model->rope_frequencies;
    int64_t E = model->config.head_width, half = E / 2;
    double magnitude =
        model->config.rope.type == ICAE_ROPE_YARN && !is_own ? model->config.rope.magnitude : 1;
    icae_real *host = icae_graph_arena(graph, (size_t)(T * E) * sizeof *host);
    if (!host) return NULL;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)positions[t] * frequencies[i];
            host[t * E + i] = (icae_real)(magnitude * cos(angle));
            host[t * E + half + i] = (icae_real)(magnitude * sin(angle));
        }
    }
    int64_t shape[2] = {T, E};
    return icae_constant(graph, 2, shape, host);
}
