/* One JSON line per request, kept in memory and written when nothing runs, when it grows large, and at the end: a disk must not
 * disturb the pace. Chunk times are [before, after, tokens] with the times relative to received_ns. */
#define _GNU_SOURCE
#include "paced.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPILL_BYTES (64u << 20)

static int file = -1;
static buffer lines;

void record_open(void)
{
    if (!opt.record)
        return;
    file = open(opt.record, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) {
        fprintf(stderr, "%s: %s\n", opt.record, strerror(errno));
        exit(2);
    }
}

void record_flush(void)
{
    size_t done = 0;
    while (done < lines.length) {
        ssize_t n = write(file, lines.data + done, lines.length - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fprintf(stderr, "%s: %s\n", opt.record, strerror(errno));
            _exit(1);
        }
        done += (size_t)n;
    }
    lines.length = 0;
}

static void field(const char *name, int64_t value)
{
    append_text(&lines, name);
    append_number(&lines, value);
}

void record_request(const connection *c, const char *ended)
{
    if (file < 0)
        return;
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)c->body_hash);
    field("{\"index\":", (int64_t)c->index);
    field(",\"stream_index\":", c->stream_index);
    field(",\"connection\":", c->number);
    append_text(&lines, ",\"body_fnv1a\":\"");
    append_text(&lines, hash);
    append_text(&lines, "\",\"request_id\":\"");
    append_text(&lines, c->request_id);
    field("\",\"received_ns\":", c->received_ns);
    field(",\"waited_ns\":", c->began_ns ? c->began_ns - c->received_ns : -1);
    field(",\"prompt_tokens\":", c->prompt_tokens);
    field(",\"asked_tokens\":", c->max_tokens);
    field(",\"tokens\":", c->tokens);
    field(",\"blocked\":", c->blocked);
    append_text(&lines, ",\"fault\":\"");
    append_text(&lines, fault_name(c->timing.fault));
    append_text(&lines, "\",\"ended\":\"");
    append_text(&lines, ended);
    append_text(&lines, "\",\"chunks\":[");
    for (uint32_t k = 0; k < c->n_chunks; k++) {
        const chunk_sent *sent = &c->chunks[k];
        field(k ? ",[" : "[", sent->before_ns - c->received_ns);
        field(",", sent->after_ns - c->received_ns);
        field(",", sent->tokens);
        append_text(&lines, "]");
    }
    append_text(&lines, "]}\n");
    if (lines.length > SPILL_BYTES)
        record_flush();
}
