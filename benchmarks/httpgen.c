/* The load generator for requests over HTTP: one process, one thread, epoll.
 *
 *     httpgen MODE HOST PORT PATH [--connections N] [--window N] [--body TEXT]
 *             [--warmup S] [--seconds S] [--patience S] [--header "Name: value"]...
 *
 *   http1      HTTP/1.1, kept alive. Every connection keeps --window requests unanswered;
 *              with more than one of them they are pipelined.
 *   http2      HTTP/2 with prior knowledge: --window streams at once on every connection.
 *
 * An operation is one response. The rules of this file:
 *   - It says what happens as lines of JSON: "measuring" when the warm-up is over,
 *     "measured" with the figures. A failure is one line on standard error and status 1.
 *   - Every response is checked, in the warm-up and after: its status is 200, its body --body.
 *   - A connection that the server closes is a failure: all of them are to last.
 *   - What the answers of one read() make room for leaves in one write().
 *   - HPACK (RFC 7541) is spoken in its simplest form, and our own table is switched off: a
 *     response that needs it in order to be understood would be a fault of the server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 18, CARRY_BYTES = 16384, EVENTS = 512, MAX_WINDOW = 128 };
/* RFC 9113 §6: the types of frames, and their flags. */
enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE };
enum { ACK = 1, END_STREAM = 1, END_HEADERS = 4, PADDED = 8, HEAD_BYTES = 9 };

struct stream {
    uint32_t id;   /* 0: the slot is free */
    size_t body;   /* bytes that have come */
    bool answered; /* its status was 200 */
};

struct connection {
    int fd;
    uint32_t unanswered, next_stream;
    uint32_t carried; /* bytes of an incomplete answer or frame, kept for the next read */
    struct stream streams[MAX_WINDOW];
    uint8_t carry[CARRY_BYTES];
};

/* What was asked for. */
static bool http2;
static struct sockaddr_in server;
static size_t connections = 1, window = 1;
static double warmup_s = 0.5, seconds = 2.0, patience_s = 10.0;
static const char *body = "Hello";
static size_t body_bytes;
static uint8_t request[8192]; /* a request, or the block of its header fields */
static size_t request_bytes;

/* What is going on. */
static int poller;
static struct connection *table;
static uint64_t operations, reads;
static uint8_t buffer[CARRY_BYTES + READ_BYTES];
static uint8_t output[MAX_WINDOW * (sizeof request + HEAD_BYTES) + 4096];
static size_t output_bytes;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("httpgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- What is sent -------------------------------------------------------------------- */

static void put(const void *data, size_t bytes) {
    memcpy(output + output_bytes, data, bytes);
    output_bytes += bytes;
}

static void put_frame(int type, int flags, uint32_t stream, const void *payload, size_t bytes) {
    const uint8_t head[HEAD_BYTES] = {
        (uint8_t)(bytes >> 16),  (uint8_t)(bytes >> 8),   (uint8_t)bytes,
        (uint8_t)type,           (uint8_t)flags,          (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8),  (uint8_t)stream};
    put(head, sizeof head);
    put(payload, bytes);
}

static void flush_output(struct connection *c) {
    if (!output_bytes) return;
    ssize_t sent = send(c->fd, output, output_bytes, MSG_NOSIGNAL);
    if (sent != (ssize_t)output_bytes)
        fail("cannot send %zu bytes: %s", output_bytes,
             sent < 0 ? strerror(errno) : "the buffer is full");
    output_bytes = 0;
}

static struct stream *slot(struct connection *c, uint32_t id) {
    for (size_t i = 0; i < window; i++)
        if (c->streams[i].id == id) return &c->streams[i];
    return NULL;
}

static void fill_window(struct connection *c) {
    for (; c->unanswered < window; c->unanswered++) {
        if (http2) {
            *slot(c, 0) = (struct stream){.id = c->next_stream};
            put_frame(HEADERS, END_STREAM | END_HEADERS, c->next_stream, request, request_bytes);
            c->next_stream += 2;
        } else {
            put(request, request_bytes);
        }
    }
    flush_output(c);
}

static void begin(struct connection *c) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /* No table for header fields, no pushes, and windows that nothing here exhausts. */
    static const uint8_t settings[] = {0, 1, 0,    0,    0,    0,    0, 2, 0,
                                       0, 0, 0,    0,    4,    0x7f, 0xff, 0xff, 0xff};
    static const uint8_t more[] = {0x7f, 0xff, 0x00, 0x00};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0)
        fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll: %s", strerror(errno));
    c->next_stream = 1;
    if (http2) {
        put(preface, sizeof preface - 1);
        put_frame(SETTINGS, 0, 0, settings, sizeof settings);
        put_frame(WINDOW_UPDATE, 0, 0, more, sizeof more);
    }
    fill_window(c);
}

/* ---- What comes ---------------------------------------------------------------------- */

static void answered(struct connection *c) {
    operations++;
    c->unanswered--;
}

/* Read whole responses of HTTP/1.1; return the bytes read. */
static size_t read_responses(struct connection *c, uint8_t *data, size_t bytes) {
    static const char ok[] = "HTTP/1.1 200 ", length[] = "\r\ncontent-length:";
    uint8_t *at = data, *end = data + bytes;
    for (;;) {
        uint8_t *head_end = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
        if (!head_end) break;
        if (memcmp(at, ok, sizeof ok - 1) != 0) fail("not 200: %.60s", (char *)at);
        head_end[2] = 0; /* the end of a string, as long as it is looked at */
        const char *found = strcasestr((char *)at, length);
        if (!found) fail("a response without Content-Length: %.200s", (char *)at);
        if (strtoul(found + sizeof length - 1, NULL, 10) != body_bytes)
            fail("a body of another length than expected: %.200s", (char *)at);
        head_end[2] = '\r';
        if ((size_t)(end - head_end) < 4 + body_bytes) break;
        if (memcmp(head_end + 4, body, body_bytes) != 0)
            fail("another body: %.*s", (int)body_bytes, (char *)head_end + 4);
        if (!c->unanswered) fail("a response that nobody asked for");
        answered(c);
        at = head_end + 4 + body_bytes;
    }
    return (size_t)(at - data);
}

static void received_frame(struct connection *c, const uint8_t *frame, size_t bytes) {
    const uint8_t *payload = frame + HEAD_BYTES;
    const int type = frame[3], flags = frame[4];
    uint32_t id;
    memcpy(&id, frame + 5, 4);
    id = ntohl(id);
    if (type == SETTINGS && !(flags & ACK)) {
        put_frame(SETTINGS, ACK, 0, NULL, 0);
    } else if (type == PING && !(flags & ACK)) {
        put_frame(PING, ACK, 0, payload, bytes);
    } else if (type == GOAWAY || type == RST_STREAM || type == PUSH_PROMISE) {
        fail("unexpected frame of type %d on stream %u: error %d", type, id,
             payload[type == GOAWAY ? 7 : 3]);
    } else if (type == HEADERS || type == DATA) {
        struct stream *s = slot(c, id);
        if (!id || !s) fail("a frame of type %d on stream %u, which is not open", type, id);
        if (flags & PADDED) fail("a padded frame");
        if (type == HEADERS) {
            if (!(flags & END_HEADERS)) fail("a header block in more than one frame");
            while (bytes && (payload[0] & 0xe0) == 0x20) payload++, bytes--; /* size of the table */
            if (!bytes || payload[0] != 0x88) fail("not 200: first byte 0x%02x", payload[0]);
            s->answered = true;
        } else {
            if (s->body + bytes > body_bytes || memcmp(body + s->body, payload, bytes) != 0)
                fail("another body: %.*s", (int)bytes, (const char *)payload);
            s->body += bytes;
        }
        if (flags & END_STREAM) {
            if (!s->answered || s->body != body_bytes) fail("a response that is not whole");
            s->id = 0;
            answered(c);
        }
    }
}

/* Read whole frames of HTTP/2; return the bytes read. */
static size_t read_frames(struct connection *c, const uint8_t *data, size_t bytes) {
    const uint8_t *at = data, *end = data + bytes;
    while (end - at >= HEAD_BYTES) {
        const size_t length = (size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2];
        if ((size_t)(end - at) < HEAD_BYTES + length) break;
        received_frame(c, at, length);
        at += HEAD_BYTES + length;
    }
    return (size_t)(at - data);
}

static void readable(struct connection *c) {
    uint8_t *data = buffer + CARRY_BYTES - c->carried; /* what was carried, then what comes */
    ssize_t got = recv(c->fd, buffer + CARRY_BYTES, READ_BYTES, MSG_DONTWAIT);
    reads++;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0)
        fail("the server ended a connection: %s", got < 0 ? strerror(errno) : "end of stream");
    memcpy(data, c->carry, c->carried);
    const size_t bytes = c->carried + (size_t)got;
    const size_t done = http2 ? read_frames(c, data, bytes) : read_responses(c, data, bytes);
    if (bytes - done > CARRY_BYTES) fail("more than %d bytes without an end", CARRY_BYTES);
    c->carried = (uint32_t)(bytes - done);
    memcpy(c->carry, data + done, c->carried);
    fill_window(c);
}

/* ---- All of them --------------------------------------------------------------------- */

static void work(double until, uint64_t at_least) {
    static struct epoll_event events[EVENTS];
    uint64_t before = operations;
    double since = now();
    const uint64_t enough = operations + at_least;
    for (;;) {
        double time = now();
        if (time >= until && operations >= enough) return;
        if (operations != before) {
            before = operations;
            since = time;
        } else if (time - since > patience_s) {
            fail("nothing for %.0f s after %llu responses", patience_s,
                 (unsigned long long)operations);
        }
        int count = epoll_wait(poller, events, EVENTS, 50);
        if (count < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
        for (int i = 0; i < count; i++) readable(events[i].data.ptr);
    }
}

static void add_text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const size_t room = sizeof request - request_bytes;
    int bytes = vsnprintf((char *)request + request_bytes, room, format, arguments);
    va_end(arguments);
    if ((size_t)bytes >= room) fail("the request is too long");
    request_bytes += (size_t)bytes;
}

/* RFC 7541 §6.2.2: a field that enters no table, its name an index or, with 0, given. */
static void add_field(int index, const char *name, const char *value) {
    const size_t name_bytes = strlen(name), value_bytes = strlen(value);
    if (name_bytes > 126 || value_bytes > 126) fail("too long for a header field: %s", name);
    request[request_bytes++] = (uint8_t)index;
    if (!index) {
        request[request_bytes++] = (uint8_t)name_bytes;
        add_text("%s", name);
    }
    request[request_bytes++] = (uint8_t)value_bytes;
    add_text("%s", value);
}

static void add_header(char *line) {
    if (!http2) {
        add_text("%s\r\n", line);
        return;
    }
    char *colon = strchr(line, ':');
    if (!colon) fail("not a header: %s", line);
    *colon = 0;
    for (char *at = line; *at; at++) *at |= (*at >= 'A' && *at <= 'Z') ? 0x20 : 0;
    add_field(0, line, colon + 1 + strspn(colon + 1, " "));
}

static void read_arguments(int argc, char **argv) {
    if (argc < 5) fail("usage: httpgen http1|http2 HOST PORT PATH [options]");
    http2 = !strcmp(argv[1], "http2");
    if (!http2 && strcmp(argv[1], "http1")) fail("no such mode: %s", argv[1]);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) fail("not an IPv4 address: %s", argv[2]);
    char host[64];
    snprintf(host, sizeof host, "%s:%s", argv[2], argv[3]);
    if (http2) {
        request[request_bytes++] = 0x82; /* RFC 7541, appendix A: ":method: GET" */
        request[request_bytes++] = 0x86; /* ":scheme: http" */
        add_field(4, ":path", argv[4]);
        add_field(1, ":authority", host);
    } else {
        add_text("GET %s HTTP/1.1\r\nHost: %s\r\n", argv[4], host);
    }
    for (int i = 5; i < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!value) fail("%s needs a value", name);
        if (!strcmp(name, "--connections")) connections = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--window")) window = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--body")) body = value;
        else if (!strcmp(name, "--warmup")) warmup_s = atof(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--patience")) patience_s = atof(value);
        else if (!strcmp(name, "--header")) add_header(argv[i + 1]);
        else fail("no such option: %s", name);
    }
    if (!http2) add_text("\r\n");
    body_bytes = strlen(body);
    if (connections < 1) fail("--connections must be at least 1");
    if (window < 1 || window > MAX_WINDOW) fail("--window must be 1 to %d", MAX_WINDOW);
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives the one who asked */
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_arguments(argc, argv);
    poller = epoll_create1(0);
    table = calloc(connections, sizeof *table);
    if (poller < 0 || !table) fail("cannot start: %s", strerror(errno));
    for (size_t i = 0; i < connections; i++) begin(&table[i]);
    work(now() + warmup_s, connections * window);
    printf("{\"event\": \"measuring\"}\n");
    const uint64_t operations0 = operations, reads0 = reads;
    const double time0 = now(), cpu0 = cpu_s();
    work(time0 + seconds, 1);
    const double time = now() - time0, cpu = cpu_s() - cpu0;
    printf("{\"event\": \"measured\", \"operations\": %llu, \"seconds\": %.6f, \"cpu_s\": %.6f, "
           "\"reads\": %llu, \"frames\": %llu}\n",
           (unsigned long long)(operations - operations0), time, cpu,
           (unsigned long long)(reads - reads0), (unsigned long long)(operations - operations0));
    return 0;
}
