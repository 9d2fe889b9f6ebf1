/* Buffers, the heap of due times, and the loop. */
#define _GNU_SOURCE
#include "paced.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EXIT_PORT_IN_USE 98
#define BURST 16 /* chunks sent before new requests are looked for */

uint64_t prompt_tokens_total, generation_tokens_total, requests_done, requests_ended_early;
int running, waiting;
int epoll_fd;

static int listener = -1;
static int64_t listen_again_ns;
static volatile sig_atomic_t stopped;
static connection **heap; /* from 1; heap[1] is due first */
static size_t heap_size, heap_capacity;


int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

void quit(int code)
{
    record_unfinished();
    record_flush();
    _exit(code);
}

void append(buffer *b, const void *data, size_t length)
{
    if (b->length + length > b->capacity) {
        b->capacity = 2 * (b->length + length) + 256;
        b->data = realloc(b->data, b->capacity);
        if (!b->data)
            _exit(1);
    }
    memcpy(b->data + b->length, data, length);
    b->length += length;
}

void append_text(buffer *b, const char *text)
{
    append(b, text, strlen(text));
}

void append_number(buffer *b, int64_t value)
{
    char digits[24];
    int at = sizeof digits;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        digits[--at] = '-';
    append(b, digits + at, sizeof digits - (size_t)at);
}

void consume(buffer *b, size_t length)
{
    memmove(b->data, b->data + length, b->length - length);
    b->length -= length;
}

static void heap_swap(size_t a, size_t b)
{
    connection *moved = heap[a];
    heap[a] = heap[b];
    heap[b] = moved;
    heap[a]->heap_at = a;
    heap[b]->heap_at = b;
}

static void heap_settle(size_t at)
{
    while (at > 1 && heap[at]->due_ns < heap[at / 2]->due_ns) {
        heap_swap(at, at / 2);
        at /= 2;
    }
    for (size_t child; (child = 2 * at) <= heap_size; at = child) {
        if (child < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns)
            child++;
        if (heap[at]->due_ns <= heap[child]->due_ns)
            return;
        heap_swap(at, child);
    }
}

void heap_push(connection *c)
{
    if (heap_size + 2 > heap_capacity) {
        heap_capacity = 2 * heap_capacity + 64;
        heap = realloc(heap, heap_capacity * sizeof *heap);
        if (!heap)
            quit(1);
    }
    heap[++heap_size] = c;
    c->heap_at = heap_size;
    heap_settle(heap_size);
}

void heap_remove(connection *c)
{
    size_t at = c->heap_at;
    if (!at)
        return;
    if (at != heap_size)
        heap_swap(at, heap_size);
    heap_size--;
    c->heap_at = 0;
    if (at <= heap_size)
        heap_settle(at);
}

static int listen_on(void)
{
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE}, *found;
    snprintf(port, sizeof port, "%d", opt.port);
    int code = getaddrinfo(opt.host, port, &hints, &found);
    if (code)
        refuse_option(opt.host, gai_strerror(code));
    int one = 1, fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 4096)) {
        fprintf(stderr, "paced: port %d: %s\n", opt.port, strerror(errno));
        exit(errno == EADDRINUSE ? EXIT_PORT_IN_USE : 1);
    }
    freeaddrinfo(found);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

void stop_listening(int64_t for_ns)
{
    if (listener >= 0)
        close(listener);
    listener = -1;
    listen_again_ns = now_ns() + for_ns;
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void handle(const struct epoll_event *events, int n, int timer)
{
    for (int i = 0; i < n; i++) {
        void *what = events[i].data.ptr;
        if (what == &listener) {
            accept_all(listener);
        } else if (!what) {
            uint64_t expired;
            (void)!read(timer, &expired, sizeof expired);
        } else {
            connection *c = what;
            if (!c->gone && events[i].events & EPOLLOUT)
                on_writable(c);
            if (!c->gone && events[i].events & ~EPOLLOUT)
                on_readable(c);
        }
    }
    free_gone();
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    prctl(PR_SET_TIMERSLACK, 1);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN}, events[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event);
    record_open();
    listener = listen_on();
    printf("paced: listening on %s:%d, factor %.9g, seed %llu\n", opt.host, opt.port, opt.scale, (unsigned long long)opt.seed);
    fflush(stdout);
    int64_t set_ns = 0;
    while (!stopped) {
        int64_t now = now_ns();
        for (int burst = 0; burst < BURST && heap_size && heap[1]->due_ns <= now; burst++) {
            connection *c = heap[1];
            heap_remove(c);
            on_due(c);
        }
        free_gone();
        if (listener < 0 && now >= listen_again_ns)
            listener = listen_on();
        if (!running && !waiting)
            record_flush();
        int64_t wake = heap_size ? heap[1]->due_ns : 0;
        if (listener < 0 && (!wake || listen_again_ns < wake))
            wake = listen_again_ns;
        bool due = wake && wake <= now_ns();
        if (!due && wake && wake != set_ns) {
            struct itimerspec at = {.it_value = {.tv_sec = wake / NS_PER_S, .tv_nsec = wake % NS_PER_S}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
            set_ns = wake;
        }
        int n = epoll_wait(epoll_fd, events, 256, due ? 0 : 1000);
        handle(events, n, timer);
    }
    quit(0);
}
