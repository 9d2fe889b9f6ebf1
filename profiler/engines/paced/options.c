/* Options, the script, and the random numbers of the distributed timings. */
#define _GNU_SOURCE
#include "paced.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

options opt = {.host = "127.0.0.1", .model = "paced", .port = 8000, .scale = 1,
               .timing = {20 * NS_PER_MS, 5 * NS_PER_MS, 1, FAULT_NONE, 0}};

static timing *script;
static size_t script_lines;

static const char *const FAULT_NAMES[FAULTS] = {"none", "refuse", "reset-before", "reset-in", "reset-after", "stall",
                                                "half", "bad-json", "status", "longer", "shorter", "die"};
static const char *const DISTRIBUTIONS[] = {"fixed", "lognormal", "exponential", "gamma"};

const char *fault_name(fault which)
{
    return FAULT_NAMES[which];
}

/* splitmix64 (Steele, Lea, Flood 2014), in (0, 1). */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

/* Box and Muller 1958. */
static double normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(2 * 3.14159265358979323846 * uniform(state));
}

/* Marsaglia and Tsang 2000; below shape 1 by their boost. */
static double gamma_draw(double shape, uint64_t *state)
{
    if (shape < 1)
        return gamma_draw(shape + 1, state) * pow(uniform(state), 1 / shape);
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = normal(state), v = 1 + c * x;
        v = v * v * v;
        if (v > 0 && log(uniform(state)) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

double draw(int distribution, double cv, uint64_t *state)
{
    double sigma2 = log1p(cv * cv);
    if (distribution == 2)
        return -log(uniform(state)); /* its coefficient of variation is 1 */
    if (distribution == 0 || cv <= 0)
        return 1;
    if (distribution == 1)
        return exp(sqrt(sigma2) * normal(state) - sigma2 / 2);
    return gamma_draw(1 / (cv * cv), state) * cv * cv;
}

timing timing_of(int64_t stream_index)
{
    return stream_index >= 0 && (size_t)stream_index < script_lines ? script[stream_index] : opt.timing;
}

_Noreturn void refuse_option(const char *what, const char *text)
{
    fprintf(stderr, "paced: %s: %s\n", what, text);
    exit(2);
}

static double number(const char *name, const char *text, double least)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least))
        refuse_option(name, text);
    return value;
}

static int find_name(const char *const *names, int n, const char *text, size_t length)
{
    for (int i = 0; i < n; i++)
        if (strlen(names[i]) == length && !strncmp(names[i], text, length))
            return i;
    return -1;
}

/* `ttft_us itl_us tokens_per_chunk fault[=argument]`; `-` and what is left out: as the options say. A status is 429 or 429:SECONDS. */
static void script_line(char *text, int line)
{
    static size_t capacity;
    char *words[5] = {0}, *rest = NULL, where[64];
    snprintf(where, sizeof where, "script line %d", line);
    for (int i = 0; i < 5; i++)
        words[i] = strtok_r(i ? NULL : text, " \t\r\n", &rest);
    if (words[4])
        refuse_option(where, "more than four words");
    timing t = opt.timing;
    if (words[0] && strcmp(words[0], "-"))
        t.ttft_ns = (int64_t)(number(where, words[0], 0) * 1000);
    if (words[1] && strcmp(words[1], "-"))
        t.itl_ns = (int64_t)(number(where, words[1], 0) * 1000);
    if (words[2] && strcmp(words[2], "-"))
        t.per_chunk = (int)number(where, words[2], 1);
    if (words[3] && strcmp(words[3], "-")) {
        size_t length = strcspn(words[3], "=");
        int which = find_name(FAULT_NAMES, FAULTS, words[3], length);
        if (which < 0)
            refuse_option(where, words[3]);
        t.fault = (fault)which;
        t.argument = 1;
        if (words[3][length]) {
            char *colon = strchr(words[3], ':');
            if (colon)
                *colon = 0;
            t.argument = (int64_t)number(where, words[3] + length + 1, 0);
            if (t.fault == FAULT_STATUS)
                t.argument += 1000 * (colon ? (int64_t)number(where, colon + 1, 0) : 1);
        } else if (t.fault == FAULT_STATUS) {
            refuse_option(where, "status needs a number, such as status=503");
        }
    }
    if (script_lines == capacity) {
        capacity = 2 * capacity + 64;
        script = realloc(script, capacity * sizeof *script);
    }
    if (!script)
        refuse_option(where, "out of memory");
    script[script_lines++] = t;
}

static void read_script(void)
{
    FILE *in = fopen(opt.script, "r");
    char text[256];
    if (!in)
        refuse_option(opt.script, strerror(errno));
    for (int line = 1; fgets(text, sizeof text, in); line++)
        if (text[0] != '#')
            script_line(text, line);
    fclose(in);
}

void read_options(int argc, char **argv)
{
    static const char *const NAMES[] = {"host", "port", "served-model-name", "ttft-ms", "itl-ms", "itl-per-running-ms", "tokens-per-chunk",
                                        "distribution", "ttft-cv", "itl-cv", "scale-cv", "seed", "capacity", "script", "record", "role-first"};
    bool seeded = false;
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        int which = strncmp(argv[i], "--", 2) || !value ? -1 : find_name(NAMES, 16, argv[i] + 2, (size_t)(value - argv[i]) - 2);
        value = value ? value + 1 : "";
        switch (which) {
        case 0: opt.host = value; break;
        case 1: opt.port = (int)number("port", value, 1); break;
        case 2: opt.model = value; break;
        case 3: opt.timing.ttft_ns = (int64_t)(number("ttft-ms", value, 0) * NS_PER_MS); break;
        case 4: opt.timing.itl_ns = (int64_t)(number("itl-ms", value, 0) * NS_PER_MS); break;
        case 5: opt.itl_per_running_ns = (int64_t)(number("itl-per-running-ms", value, 0) * NS_PER_MS); break;
        case 6: opt.timing.per_chunk = (int)number("tokens-per-chunk", value, 1); break;
        case 7:
            opt.distribution = find_name(DISTRIBUTIONS, 4, value, strlen(value));
            if (opt.distribution < 0)
                refuse_option("distribution", value);
            break;
        case 8: opt.ttft_cv = number("ttft-cv", value, 0); break;
        case 9: opt.itl_cv = number("itl-cv", value, 0); break;
        case 10: opt.scale_cv = number("scale-cv", value, 0); break;
        case 11: opt.seed = strtoull(value, NULL, 10); seeded = true; break;
        case 12: opt.slots = (int)number("capacity", value, 1); break;
        case 13: opt.script = value; break;
        case 14: opt.record = value; break;
        case 15: opt.role_first = !strcasecmp(value, "true"); break;
        default: refuse_option("unknown option", argv[i]);
        }
    }
    if (!seeded && getrandom(&opt.seed, sizeof opt.seed, 0) != sizeof opt.seed)
        opt.seed = (uint64_t)now_ns();
    if (opt.script)
        read_script();
    uint64_t state = opt.seed;
    opt.scale = draw(1, opt.scale_cv, &state);
}
