/* When an answer's chunks are due, what they say, and the faults. */
#include "paced.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static connection *first_waiting, *last_waiting;
static const char *const WORDS[8] = {" one", " two", " three", " four", " five", " six", " seven", " eight"};

static void first_due(connection *c)
{
    c->due_ns = c->began_ns + (int64_t)((double)c->timing.ttft_ns * opt.scale * draw(opt.distribution, opt.ttft_cv, &c->random));
    heap_push(c);
}

static void begin(connection *c)
{
    c->phase = SERVED;
    running++;
    c->began_ns = now_ns();
    c->due_ns = c->began_ns;
    c->role_due = opt.role_first && c->chat && c->stream && c->timing.fault != FAULT_STATUS;
    if (c->role_due)
        heap_push(c);
    else
        first_due(c);
}

/* From the due time of the last chunk, not from now: lateness must not add up. */
static void next_due(connection *c)
{
    double itl = (double)c->timing.itl_ns + (double)opt.itl_per_running_ns * running;
    c->due_ns += (int64_t)(itl * opt.scale * draw(opt.distribution, opt.itl_cv, &c->random));
    heap_push(c);
}

void submit(connection *c)
{
    /* Each stream draws its own numbers: what it gets does not depend on how the others interleave. */
    c->random = (opt.seed ^ 0x9e3779b97f4a7c15ULL) + (uint64_t)(c->stream_index + 1) * 0xbf58476d1ce4e5b9ULL;
    c->timing = timing_of(c->stream_index);
    c->tokens = c->n_chunks = c->blocked = 0;
    c->began_ns = 0;
    if (c->timing.fault == FAULT_LONGER)
        c->max_tokens += (uint32_t)c->timing.argument;
    if (c->timing.fault == FAULT_SHORTER)
        c->max_tokens = c->max_tokens > c->timing.argument ? c->max_tokens - (uint32_t)c->timing.argument : 1;
    if (opt.slots == 0 || running < opt.slots) {
        begin(c);
        return;
    }
    c->phase = WAITING;
    waiting++;
    c->next_waiting = NULL;
    if (last_waiting)
        last_waiting->next_waiting = c;
    else
        first_waiting = c;
    last_waiting = c;
}

void leave(connection *c, const char *ended)
{
    if (c->phase == IDLE)
        return;
    heap_remove(c);
    if (c->phase == SERVED) {
        running--;
    } else {
        waiting--;
        connection *before = NULL;
        for (connection *w = first_waiting; w != c; w = w->next_waiting)
            before = w;
        *(before ? &before->next_waiting : &first_waiting) = c->next_waiting;
        if (last_waiting == c)
            last_waiting = before;
    }
    c->phase = IDLE;
    if (!strcmp(ended, "done"))
        requests_done++;
    else
        requests_ended_early++;
    record_request(c, ended);
    if (first_waiting && running < opt.slots) {
        connection *w = first_waiting;
        first_waiting = w->next_waiting;
        if (!first_waiting)
            last_waiting = NULL;
        waiting--;
        begin(w);
    }
}

static void append_usage(buffer *b, const connection *c)
{
    append_text(b, ",\"usage\":{\"prompt_tokens\":");
    append_number(b, c->prompt_tokens);
    append_text(b, ",\"total_tokens\":");
    append_number(b, c->prompt_tokens + c->tokens);
    append_text(b, ",\"completion_tokens\":");
    append_number(b, c->tokens);
    append_text(b, "}");
}

static void append_words(buffer *b, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        append_text(b, WORDS[i % 8]);
}

static void append_ids(buffer *b, const connection *c, uint32_t first, uint32_t n)
{
    if (!c->ids)
        return;
    append_text(b, ",\"token_ids\":[");
    for (uint32_t i = first; i < first + n; i++) {
        if (i > first)
            append_text(b, ",");
        append_number(b, i);
    }
    append_text(b, "]");
}

static void append_head(buffer *b, const connection *c, const char *kind)
{
    static time_t created;
    if (!created)
        created = time(NULL);
    append_text(b, c->chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-");
    append_number(b, (int64_t)c->index);
    append_text(b, "\",\"object\":\"");
    append_text(b, kind);
    append_text(b, "\",\"created\":");
    append_number(b, created);
    append_text(b, ",\"model\":\"");
    append_text(b, opt.model);
    append_text(b, "\",\"choices\":[");
}

/* One HTTP chunk that holds the server-sent event `event`. */
static void append_event(buffer *b, const char *event, size_t length)
{
    char size[20];
    append(b, size, (size_t)snprintf(size, sizeof size, "%zx\r\ndata: ", length + 8));
    append(b, event, length);
    append(b, "\n\n\r\n", 4);
}

static const char *chunk_kind(const connection *c)
{
    return c->chat ? "chat.completion.chunk" : "text_completion";
}

static void append_role(buffer *b, const connection *c)
{
    static buffer event;
    event.length = 0;
    append_head(&event, c, chunk_kind(c));
    append_text(&event, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}");
    append_event(b, event.data, event.length);
}

static void append_tokens(buffer *b, connection *c, uint32_t n, bool last, bool spoil)
{
    static buffer event;
    event.length = 0;
    append_head(&event, c, chunk_kind(c));
    append_text(&event, c->chat ? "{\"index\":0,\"delta\":{\"content\":\"" : "{\"index\":0,\"text\":\"");
    append_words(&event, c->tokens, n);
    append_text(&event, c->chat ? "\"}" : "\"");
    append_text(&event, last ? ",\"logprobs\":null,\"finish_reason\":\"length\"" : ",\"logprobs\":null,\"finish_reason\":null");
    append_ids(&event, c, c->tokens, n);
    append_text(&event, "}]");
    c->tokens += n;
    if (c->continuous)
        append_usage(&event, c);
    append_text(&event, "}");
    append_event(b, event.data, spoil ? event.length / 2 : event.length);
}

static void append_end(buffer *b, const connection *c)
{
    static buffer event;
    if (c->usage) {
        event.length = 0;
        append_head(&event, c, chunk_kind(c));
        append_text(&event, "]");
        append_usage(&event, c);
        append_text(&event, "}");
        append_event(b, event.data, event.length);
    }
    append_event(b, "[DONE]", 6);
    append_text(b, "0\r\n\r\n");
}

static void append_header(buffer *b, const connection *c)
{
    append_text(b, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n");
    append_text(b, c->close_after ? "Connection: close\r\n\r\n" : "\r\n");
}

/* Sends and notes when; false when the connection is lost. */
static bool send_chunk(connection *c, const buffer *b, uint32_t tokens)
{
    if (c->n_chunks == c->chunks_capacity) {
        c->chunks_capacity = c->chunks_capacity ? 2 * c->chunks_capacity : 128;
        c->chunks = realloc(c->chunks, c->chunks_capacity * sizeof *c->chunks);
        if (!c->chunks)
            quit(1);
    }
    c->blocked += c->out.length > 0; /* the client does not read: this chunk waits in our memory */
    int64_t before = now_ns();
    bool alive = send_now(c, b->data, b->length);
    if (alive && c->phase == SERVED) {
        c->chunks[c->n_chunks++] = (chunk_sent){before, now_ns(), tokens};
        generation_tokens_total += tokens;
    }
    return alive;
}

/* Not a stream: the answer comes when its last token would. */
static void answer_whole(connection *c)
{
    static buffer body;
    body.length = 0;
    uint32_t n = c->max_tokens;
    if (c->tokens == 0 && n > 1) {
        c->tokens = n;
        c->due_ns += (int64_t)((double)c->timing.itl_ns * opt.scale) * (n - 1);
        heap_push(c);
        return;
    }
    append_head(&body, c, c->chat ? "chat.completion" : "text_completion");
    append_text(&body, c->chat ? "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" : "{\"index\":0,\"text\":\"");
    append_words(&body, 0, n);
    append_text(&body, c->chat ? "\"}" : "\"");
    append_text(&body, ",\"logprobs\":null,\"finish_reason\":\"length\"");
    append_ids(&body, c, 0, n);
    append_text(&body, "}]");
    c->tokens = n;
    append_usage(&body, c);
    append_text(&body, "}");
    generation_tokens_total += n;
    leave(c, "done");
    reply(c, 200, "application/json", body.data, body.length, 0);
}

/* A fault that keeps the next chunk from being sent. True when there is nothing more to do. */
static bool faulty(connection *c)
{
    int64_t k = c->n_chunks;
    const timing *t = &c->timing;
    switch (t->fault) {
    case FAULT_REFUSE:
        stop_listening(t->argument * NS_PER_MS);
        leave(c, "refused");
        drop(c, true);
        return true;
    case FAULT_RESET_BEFORE:
        leave(c, "reset");
        drop(c, true);
        return true;
    case FAULT_STATUS:
        leave(c, "status");
        reply_error(c, (int)(t->argument % 1000), "asked for by the script", t->argument / 1000);
        return true;
    case FAULT_RESET_IN:
        if (k < t->argument)
            return false;
        leave(c, "reset");
        drop(c, true);
        return true;
    case FAULT_STALL:
        return k >= t->argument; /* no next event: silent until the client leaves */
    case FAULT_DIE:
        if (k < t->argument)
            return false;
        leave(c, "died");
        quit(3);
    default:
        return false;
    }
}

void on_due(connection *c)
{
    static buffer out;
    out.length = 0;
    if (c->role_due) {
        c->role_due = false;
        append_header(&out, c);
        append_role(&out, c);
        if (send_now(c, out.data, out.length))
            first_due(c);
        return;
    }
    if (c->n_chunks && c->tokens >= c->max_tokens) { /* reset-after: the answer is complete */
        leave(c, "reset");
        drop(c, true);
        return;
    }
    if (faulty(c))
        return;
    if (!c->stream) {
        answer_whole(c);
        return;
    }
    if (c->n_chunks == 0 && !(opt.role_first && c->chat)) {
        append_header(&out, c);
        if (c->chat)
            append_role(&out, c);
    }
    uint32_t left = c->max_tokens - c->tokens;
    uint32_t n = left < (uint32_t)c->timing.per_chunk ? left : (uint32_t)c->timing.per_chunk;
    bool last = n == left;
    int64_t k = c->n_chunks;
    size_t start = out.length;
    append_tokens(&out, c, n, last, c->timing.fault == FAULT_BAD_JSON && k == c->timing.argument);
    if (c->timing.fault == FAULT_HALF && k == c->timing.argument) {
        out.length = start + (out.length - start) / 2;
        if (send_chunk(c, &out, 0)) {
            leave(c, "half");
            drop(c, false);
        }
        return;
    }
    if (last)
        append_end(&out, c);
    if (!send_chunk(c, &out, n))
        return;
    if (!last || c->timing.fault == FAULT_RESET_AFTER) {
        next_due(c);
        return;
    }
    leave(c, "done");
    if (c->close_after && !c->out.length)
        drop(c, false);
    else
        next_request(c);
}
