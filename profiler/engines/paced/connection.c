/* Sockets: accept, read, send without ever blocking, close. */
#define _GNU_SOURCE
#include "paced.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static connection *first, *first_gone;
static uint32_t connections;

void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return; /* none left, or out of descriptors: the client sees it */
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connection *c = calloc(1, sizeof *c);
        if (!c)
            quit(1);
        c->fd = fd;
        c->number = connections++;
        c->next = first;
        if (first)
            first->previous = c;
        first = c;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

void drop(connection *c, bool reset)
{
    if (c->gone)
        return;
    leave(c, "client gone");
    c->gone = true;
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(c->fd);
    *(c->previous ? &c->previous->next : &first) = c->next;
    if (c->next)
        c->next->previous = c->previous;
    c->next_gone = first_gone; /* freed later: this round's events may still point to it */
    first_gone = c;
}

void free_gone(void)
{
    while (first_gone) {
        connection *c = first_gone;
        first_gone = c->next_gone;
        free(c->in.data);
        free(c->out.data);
        free(c->chunks);
        free(c);
    }
}

static void want_write(connection *c, bool wanted)
{
    if (c->wants_write == wanted)
        return;
    c->wants_write = wanted;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

bool send_now(connection *c, const char *data, size_t length)
{
    if (c->out.length) {
        append(&c->out, data, length);
        return true;
    }
    ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        drop(c, false);
        return false;
    }
    size_t sent = n < 0 ? 0 : (size_t)n;
    if (sent < length) {
        append(&c->out, data + sent, length - sent);
        want_write(c, true);
    }
    return true;
}

void on_writable(connection *c)
{
    ssize_t n = send(c->fd, c->out.data, c->out.length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        drop(c, false);
        return;
    }
    if (n > 0)
        consume(&c->out, (size_t)n);
    if (c->out.length)
        return;
    want_write(c, false);
    if (c->close_after && c->phase == IDLE)
        drop(c, false);
}

void on_readable(connection *c)
{
    char data[1 << 16];
    for (;;) {
        ssize_t n = recv(c->fd, data, sizeof data, 0);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            drop(c, false);
            return;
        }
        append(&c->in, data, (size_t)n);
        if ((size_t)n < sizeof data)
            break;
    }
    c->received_at_ns = now_ns();
    next_request(c);
}

void record_unfinished(void)
{
    for (connection *c = first; c; c = c->next)
        if (c->phase != IDLE)
            record_request(c, "server stopped");
}
