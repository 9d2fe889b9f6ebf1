/* The paced server: tokens at set times, and a record of what it really sent. See __init__.py for how it is used.
 *
 * paced.c    the loop                               options.c     options, script, random times
 * answer.c   when and what an answer sends          connection.c  sockets
 * http.c     requests and plain replies             record.c      what was sent, one JSON line a request
 *
 * Times are CLOCK_MONOTONIC nanoseconds. One thread, no locks. */
#ifndef PACED_H
#define PACED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL
#define MAX_CONTEXT 131072
#define DEFAULT_MAX_TOKENS 16

typedef struct {
    char *data;
    size_t length, capacity;
} buffer;

typedef enum { /* names in paced.c */
    FAULT_NONE,
    FAULT_REFUSE,
    FAULT_RESET_BEFORE,
    FAULT_RESET_IN,
    FAULT_RESET_AFTER,
    FAULT_STALL,
    FAULT_HALF,
    FAULT_BAD_JSON,
    FAULT_STATUS,
    FAULT_LONGER,
    FAULT_SHORTER,
    FAULT_DIE,
    FAULTS
} fault;

typedef struct { /* how one request is answered: the options, or a line of the script */
    int64_t ttft_ns, itl_ns;
    int per_chunk;
    fault fault;
    int64_t argument;
} timing;

typedef struct {
    int64_t before_ns, after_ns; /* the send() that carried it: no client can have it before before_ns */
    uint32_t tokens;
} chunk_sent;

typedef enum { IDLE, WAITING, SERVED } phase;

typedef struct connection {
    int fd;
    uint32_t number;
    buffer in, out; /* received and not consumed; what the kernel did not take */
    bool wants_write, close_after, gone;
    /* the request it carries */
    phase phase;
    bool chat, stream, usage, continuous, ids, role_due;
    uint64_t index, body_hash, random;
    int64_t stream_index; /* -1: not a stream */
    char request_id[65];
    uint32_t prompt_tokens, max_tokens, tokens;
    timing timing;
    int64_t received_at_ns; /* the last read */
    int64_t received_ns, began_ns, due_ns;
    chunk_sent *chunks;
    uint32_t n_chunks, chunks_capacity, blocked;
    size_t heap_at; /* 0: in no heap */
    struct connection *next_waiting, *next_gone, *next, *previous;
} connection;

typedef struct {
    const char *host, *model, *script, *record;
    int port, slots, distribution; /* distribution: 0 fixed, 1 lognormal, 2 exponential, 3 gamma */
    timing timing;
    double ttft_cv, itl_cv, scale_cv, scale;
    int64_t itl_per_running_ns;
    uint64_t seed;
    bool role_first;
} options;

extern options opt;
extern uint64_t prompt_tokens_total, generation_tokens_total, requests_done, requests_ended_early;
extern int running, waiting;
extern int epoll_fd;

/* paced.c */
int64_t now_ns(void);
void heap_push(connection *c);
void heap_remove(connection *c);
void stop_listening(int64_t for_ns);
_Noreturn void quit(int code);
void append(buffer *b, const void *data, size_t length);
void append_text(buffer *b, const char *text);
void append_number(buffer *b, int64_t value);
void consume(buffer *b, size_t length);

/* options.c */
void read_options(int argc, char **argv);
_Noreturn void refuse_option(const char *what, const char *text);
const char *fault_name(fault which);
timing timing_of(int64_t stream_index);
double draw(int distribution, double cv, uint64_t *state); /* mean 1 */

/* connection.c */
void accept_all(int listener);
void on_readable(connection *c);
void on_writable(connection *c);
bool send_now(connection *c, const char *data, size_t length); /* false: the connection is lost */
void drop(connection *c, bool reset);
void free_gone(void);
void record_unfinished(void);

/* http.c */
void next_request(connection *c);
void reply(connection *c, int status, const char *type, const char *body, size_t length, int64_t retry_after_s);
void reply_error(connection *c, int status, const char *message, int64_t retry_after_s);

/* answer.c */
void submit(connection *c);
void on_due(connection *c);
void leave(connection *c, const char *ended); /* ends the request it carries, if any */

/* record.c */
void record_open(void);
void record_request(const connection *c, const char *ended);
void record_flush(void);

#endif
