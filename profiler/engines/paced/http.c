/* Just enough HTTP/1.1: keep-alive, pipelined requests, content-length bodies. Bodies are searched, not parsed: a key in
 * quotes followed by a colon cannot occur inside a JSON string, where quotes are escaped. */
#define _GNU_SOURCE
#include "paced.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HEADER 65536
#define MAX_BODY (64 << 20)

static uint64_t requests, streams;

void reply(connection *c, int status, const char *type, const char *body, size_t length, int64_t retry_after_s)
{
    static const struct {
        int status;
        const char *reason;
    } REASONS[] = {{200, "OK"}, {400, "Bad Request"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {409, "Conflict"},
                   {411, "Length Required"}, {413, "Content Too Large"}, {429, "Too Many Requests"},
                   {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"}, {503, "Service Unavailable"}};
    const char *reason = "Status";
    for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++)
        if (REASONS[i].status == status)
            reason = REASONS[i].reason;
    char retry[48] = "";
    if (status == 429 || status == 503)
        snprintf(retry, sizeof retry, "Retry-After: %lld\r\n", (long long)retry_after_s);
    char head[320];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n", status, reason, type,
                     length, retry, c->close_after ? "Connection: close\r\n" : "");
    static buffer out;
    out.length = 0;
    append(&out, head, (size_t)n);
    append(&out, body, length);
    if (!send_now(c, out.data, out.length))
        return;
    if (c->close_after && !c->out.length)
        drop(c, false);
    else
        next_request(c);
}

void reply_error(connection *c, int status, const char *message, int64_t retry_after_s)
{
    char body[512];
    int n = snprintf(body, sizeof body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"code\":%d}}", message,
                     status < 500 ? "invalid_request_error" : "server_error", status);
    reply(c, status, "application/json", body, (size_t)n, retry_after_s);
}

static void reply_bad(connection *c, int status, const char *message)
{
    c->close_after = true; /* where the next request would begin is not known */
    c->in.length = 0;
    reply_error(c, status, message, 0);
}

static void reply_models(connection *c)
{
    char body[512];
    int n = snprintf(body, sizeof body,
                     "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":0,\"owned_by\":\"paced\",\"max_model_len\":%d}]}",
                     opt.model, MAX_CONTEXT);
    reply(c, 200, "application/json", body, (size_t)n, 0);
}

static void reply_metrics(connection *c)
{
    char body[1024];
    int n = snprintf(body, sizeof body,
                     "slm_server_requests_running %d\nslm_server_requests_waiting %d\nslm_server_load_seconds 0\n"
                     "slm_server_prompt_tokens_total %llu\nslm_server_generation_tokens_total %llu\n"
                     "slm_server_requests_total{outcome=\"done\"} %llu\nslm_server_requests_total{outcome=\"ended early\"} %llu\n"
                     "slm_server_start_factor %.9g\n",
                     running, waiting, (unsigned long long)prompt_tokens_total, (unsigned long long)generation_tokens_total,
                     (unsigned long long)requests_done, (unsigned long long)requests_ended_early, opt.scale);
    reply(c, 200, "text/plain; version=0.0.4", body, (size_t)n, 0);
}

/* What follows `"key":` in the body, or NULL. */
static const char *find_value(const char *body, size_t length, const char *key)
{
    char quoted[64];
    int n = snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = body, *end = body + length;
    while ((at = memmem(at, (size_t)(end - at), quoted, (size_t)n))) {
        at += n;
        const char *colon = at;
        while (colon < end && (*colon == ' ' || *colon == '\n'))
            colon++;
        if (colon < end && *colon == ':') {
            colon++;
            while (colon < end && (*colon == ' ' || *colon == '\n'))
                colon++;
            return colon < end ? colon : NULL;
        }
    }
    return NULL;
}

/* The number behind `key`, `otherwise` where there is none, INT64_MIN where it is something else. */
static int64_t find_number(const char *body, size_t length, const char *key, int64_t otherwise)
{
    const char *at = find_value(body, length, key);
    if (!at || *at == 'n') /* null */
        return otherwise;
    return *at == '-' || (*at >= '0' && *at <= '9') ? strtoll(at, NULL, 10) : INT64_MIN;
}

static bool find_true(const char *body, size_t length, const char *key)
{
    const char *at = find_value(body, length, key);
    return at && *at == 't';
}

/* Tokens of the prompt: ids are counted, a word of text is one. 0: not a prompt. */
static uint32_t count_prompt(const char *body, size_t length, bool chat)
{
    const char *at = find_value(body, length, chat ? "messages" : "prompt"), *end = body + length;
    if (!at || (*at != '[' && *at != '"'))
        return 0;
    uint32_t n = 0;
    if (*at == '[' && !chat && at[1] != '"') {
        for (at++; at < end && *at != ']'; at++) {
            if (*at >= '0' && *at <= '9')
                n += at[-1] < '0' || at[-1] > '9';
            else if (*at != ',' && *at != ' ' && *at != '[')
                return 0;
        }
        return n;
    }
    for (n = 1, at++; at < end && *at != ']' && (*at != '"' || chat || at[-1] == '\\'); at++)
        n += *at == ' ';
    return n;
}

static void complete(connection *c, const char *body, size_t length, bool chat)
{
    char message[256];
    int64_t n = find_number(body, length, "n", 1), asked = find_number(body, length, "max_tokens", -1);
    int64_t least = find_number(body, length, "min_tokens", 0);
    if (asked == -1)
        asked = find_number(body, length, "max_completion_tokens", DEFAULT_MAX_TOKENS);
    const char *name = find_value(body, length, "model"), *first = body, *last = body + length;
    while (first < last && (*first == ' ' || *first == '\n' || *first == '\r' || *first == '\t'))
        first++;
    while (last > first && (last[-1] == ' ' || last[-1] == '\n' || last[-1] == '\r' || last[-1] == '\t'))
        last--;
    size_t name_length = name && *name == '"' ? strcspn(name + 1, "\"") : 0;
    c->prompt_tokens = count_prompt(body, length, chat);
    int status = 400;
    if (first == last || *first != '{' || last[-1] != '}')
        snprintf(message, sizeof message, "the body is not a JSON object");
    else if (name && (name_length != strlen(opt.model) || strncmp(name + 1, opt.model, name_length))) {
        status = 404;
        snprintf(message, sizeof message, "there is no model %.*s", (int)(name_length > 100 ? 100 : name_length), name + 1);
    } else if (!c->prompt_tokens)
        snprintf(message, sizeof message, "prompt: must be a text or a list of token ids, not empty");
    else if (n != 1)
        snprintf(message, sizeof message, "n=%lld is not supported", (long long)n);
    else if (asked < 1)
        snprintf(message, sizeof message, "max_tokens must be at least 1");
    else if (least > asked)
        snprintf(message, sizeof message, "min_tokens is larger than max_tokens");
    else if (asked + c->prompt_tokens > MAX_CONTEXT)
        snprintf(message, sizeof message, "prompt and max_tokens are longer than the context of %d", MAX_CONTEXT);
    else if (find_number(body, length, "temperature", 0) == INT64_MIN)
        snprintf(message, sizeof message, "temperature must be a number");
    else
        status = 200;
    if (status != 200) {
        reply_error(c, status, message, 0);
        return;
    }
    c->chat = chat;
    c->stream = find_true(body, length, "stream");
    c->usage = !c->stream || find_true(body, length, "include_usage");
    c->continuous = find_true(body, length, "continuous_usage_stats");
    c->ids = find_true(body, length, "return_token_ids");
    c->max_tokens = (uint32_t)asked;
    c->received_ns = c->received_at_ns;
    c->index = requests++;
    c->stream_index = c->stream ? (int64_t)streams++ : -1;
    c->body_hash = 0xcbf29ce484222325ULL; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < length; i++)
        c->body_hash = (c->body_hash ^ (unsigned char)body[i]) * 0x100000001b3ULL;
    prompt_tokens_total += c->prompt_tokens;
    submit(c);
}

static void route(connection *c, const char *method, const char *path, const char *body, size_t length)
{
    bool post = !strcmp(method, "POST"), get = !strcmp(method, "GET");
    bool chat = !strcmp(path, "/v1/chat/completions"), text = !strcmp(path, "/v1/completions");
    bool known_get = !strcmp(path, "/health") || !strcmp(path, "/v1/models") || !strcmp(path, "/metrics");
    bool reset = !strcmp(path, "/reset_prefix_cache");
    if ((chat || text) && post)
        complete(c, body, length, chat);
    else if (known_get && get)
        path[1] == 'h' ? reply(c, 200, "application/json", "{\"status\":\"ok\"}", 15, 0) : path[1] == 'v' ? reply_models(c) : reply_metrics(c);
    else if (reset && post)
        running + waiting ? reply_error(c, 409, "requests are running", 0) : reply(c, 200, "application/json", "{}", 2, 0);
    else if (chat || text || known_get || reset)
        reply_error(c, 405, "wrong method", 0);
    else
        reply_error(c, 404, "no such path", 0);
}

/* Reads `name: value` of one header line into `value` (NUL ended, cut to `size`). */
static bool header_is(const char *line, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) || line[n] != ':')
        return false;
    line += n + 1;
    line += strspn(line, " \t");
    size_t length = strcspn(line, "\r\n");
    snprintf(value, size, "%.*s", (int)(length < size ? length : size - 1), line);
    return true;
}

void next_request(connection *c)
{
    if (c->gone || c->phase != IDLE || c->close_after || !c->in.length)
        return;
    char *end = memmem(c->in.data, c->in.length, "\r\n\r\n", 4);
    if (!end) {
        if (c->in.length > MAX_HEADER)
            reply_bad(c, 431, "the header is too large");
        return;
    }
    char method[16], path[256], version[16], value[80], digits[32];
    long long length = 0;
    bool expects = false;
    *end = 0; /* so that the string functions stop here; put back below */
    bool fine = sscanf(c->in.data, "%15s %255s %15s", method, path, version) == 3 && !strncmp(version, "HTTP/1.", 7);
    c->request_id[0] = 0;
    for (const char *line = strstr(c->in.data, "\r\n"); fine && line; line = strstr(line + 2, "\r\n")) {
        const char *text = line + 2;
        if (header_is(text, "content-length", digits, sizeof digits)) {
            length = digits[strspn(digits, "0123456789")] || !digits[0] ? -1 : atoll(digits);
            if (length < 0 || length > MAX_BODY) {
                reply_bad(c, length < 0 ? 400 : 413, length < 0 ? "content-length is not a number" : "the body is too large");
                return;
            }
        } else if (header_is(text, "transfer-encoding", value, sizeof value)) {
            reply_bad(c, 411, "send a content-length");
            return;
        } else if (header_is(text, "connection", value, sizeof value)) {
            c->close_after = !strcasecmp(value, "close");
        } else if (header_is(text, "expect", value, sizeof value)) {
            expects = !strcasecmp(value, "100-continue");
        } else if (header_is(text, "x-request-id", value, sizeof value)) {
            size_t n = 0;
            for (const char *p = value; *p && n < sizeof c->request_id - 1; p++)
                if ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '-' || *p == '_')
                    c->request_id[n++] = *p;
            c->request_id[n] = 0;
        }
    }
    *end = '\r';
    if (!fine) {
        reply_bad(c, 400, "not an HTTP/1 request");
        return;
    }
    size_t head = (size_t)(end - c->in.data) + 4;
    if (c->in.length - head < (size_t)length) {
        c->close_after = false; /* said again when the rest is there */
        if (expects && c->in.length == head)
            send_now(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        return;
    }
    static buffer body; /* copied: answering may take the next request out of c->in */
    body.length = 0;
    append(&body, c->in.data + head, (size_t)length);
    append(&body, "", 1);
    consume(&c->in, head + (size_t)length);
    char *query = strchr(path, '?');
    if (query)
        *query = 0;
    route(c, method, path, body.data, (size_t)length);
}
