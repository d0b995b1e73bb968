/* The load generator: one process, one thread, epoll.
 *
 *     loadgen MODE HOST PORT PATH [--connections N] [--window N] [--size BYTES] [--rate N]
 *             [--warmup S] [--seconds S] [--patience S] [--header "Name: value"]...
 *
 *   echo       every connection keeps one message in flight; an operation is an echo.
 *              With --rate so many messages a second are sent, whatever comes back, each by
 *              the connection whose last one was answered the longest ago.
 *   group      all connections are members of one group. One of them sends, and keeps
 *              --window messages unacknowledged; a message is done once every member,
 *              the sender included, has received it. An operation is one delivery.
 *   handshake  --connections slots, each of which connects, upgrades, closes and starts
 *              again; an operation is a connection that ended in good order: a close
 *              frame answered by a close frame, then the end of the TCP stream.
 *   hold       opens connections and keeps them. Reads "open N" from standard input,
 *              answers {"event": "opened", ...}; reads "send N", sends a group N messages, each
 *              when all of its members, which are all connections, have had the one before,
 *              answers {"event": "sent", "last_us": [...]} with the time that each of them took
 *              to the last of the members. Ends with the input.
 *
 * The rules of this file:
 *   - It says what happens as lines of JSON: "measuring" when the warm-up is over,
 *     "measured" with the figures. A failure is one line on standard error and status 1.
 *   - Every frame is checked, in the warm-up and after: first byte, length, content.
 *     Messages carry a sequence number, and each connection expects its own next one, so
 *     that a lost, repeated, reordered or damaged message ends the run.
 *   - Nothing is offered that would change what is on the wire: no extension. Frames are
 *     masked with one constant key, so that a frame is a copy of a template and eight digits.
 *   - Every recv() asks for as much as there may be; frames are counted inside it.
 *   - Between two turns of a handshake's run it sleeps for REST_NS by a timer, and takes then what
 *     has come. Asleep in epoll_wait() it would be woken by each packet, and the interrupt to its
 *     core, which in a virtual machine is dear, is at the expense of the server that sends it.
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

enum { READ_BYTES = 1 << 18, CARRY_BYTES = 4096, EVENTS = 512, OPENING = 32 };
enum { REST_NS = 100000 };
enum { DIGITS = 8, MAX_SIZE = 4000, MAX_WINDOW = 1024 };

enum mode { ECHO, GROUP, HANDSHAKE, HOLD };
enum phase { UNUSED, UPGRADING, OPEN, CLOSING };

struct connection {
    int fd;
    enum phase phase;
    bool request_sent, close_received;
    uint32_t expected; /* sequence number of the message that must come next */
    uint32_t carried;  /* bytes of an incomplete head or frame, kept for the next read */
    uint8_t carry[CARRY_BYTES];
};

/* What was asked for. */
static enum mode mode;
static struct sockaddr_in server;
static size_t connections = 1, window = 1, size = 100;
static double warmup_s = 0.5, seconds = 2.0, patience_s = 10.0, rate;
static char request[8192];
static size_t request_bytes;

/* What is going on. */
static int poller;
static struct connection *table;
static size_t used, opened, opening_left; /* used: slots of `table` ever taken */
static uint64_t operations, reads, frames;
static uint32_t next_sequence;
static uint32_t missing[MAX_WINDOW]; /* deliveries that message (sequence % MAX_WINDOW) lacks */
static size_t unacknowledged;
static struct connection **rested; /* with --rate: a ring of those that wait for their turn */
static size_t rest_begin, resting;
static uint64_t due_before;
static double pace_since;
static bool finished; /* the figures are out: how a server says goodbye is not measured */
static uint8_t buffer[CARRY_BYTES + READ_BYTES];

static void fail(const char *format, ...) {
    va_list arguments;
    if (finished) exit(0);
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
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

/* ---- Messages: eight hexadecimal digits, then letters -------------------------------- */

static const uint8_t KEY[4] = {0x37, 0xfa, 0x21, 0x3d};
static const uint8_t CLOSE[] = {0x88, 0x82, 0x37, 0xfa, 0x21, 0x3d, 0x03 ^ 0x37, 0xe8 ^ 0xfa};
static const uint8_t CLOSED[] = {0x88, 0x02, 0x03, 0xe8}; /* 1000, echoed */

static uint8_t outgoing[MAX_SIZE + 8], incoming[MAX_SIZE + 4]; /* frames with the digits blank */
static size_t outgoing_head, incoming_head;
static char hexadecimal[256][2];

static size_t write_head(uint8_t *frame, uint8_t mask_bit) {
    frame[0] = 0x81;
    if (size < 126) {
        frame[1] = mask_bit | (uint8_t)size;
        return 2;
    }
    frame[1] = mask_bit | 126;
    frame[2] = (uint8_t)(size >> 8);
    frame[3] = (uint8_t)size;
    return 4;
}

static void prepare_messages(void) {
    for (int i = 0; i < 256; i++) {
        hexadecimal[i][0] = "0123456789abcdef"[i >> 4];
        hexadecimal[i][1] = "0123456789abcdef"[i & 15];
    }
    incoming_head = write_head(incoming, 0);
    outgoing_head = write_head(outgoing, 0x80) + 4;
    memcpy(outgoing + outgoing_head - 4, KEY, 4);
    for (size_t i = 0; i < size; i++) {
        incoming[incoming_head + i] = (uint8_t)('a' + i % 26);
        outgoing[outgoing_head + i] = incoming[incoming_head + i] ^ KEY[i & 3];
    }
}

static uint64_t digits_of(uint32_t sequence) {
    uint64_t digits;
    uint8_t *at = (uint8_t *)&digits;
    for (int i = 0; i < 4; i++) memcpy(at + 2 * i, hexadecimal[(sequence >> (24 - 8 * i)) & 255], 2);
    return digits;
}

static size_t write_message(uint8_t *at, uint32_t sequence) {
    uint64_t key, digits = digits_of(sequence);
    memcpy(&key, KEY, 4);
    memcpy((uint8_t *)&key + 4, KEY, 4);
    digits ^= key;
    memcpy(at, outgoing, outgoing_head + size);
    memcpy(at + outgoing_head, &digits, DIGITS);
    return outgoing_head + size;
}

static bool is_message(const uint8_t *frame, uint32_t sequence) {
    uint64_t digits = digits_of(sequence);
    const size_t tail = incoming_head + DIGITS;
    return memcmp(frame, incoming, incoming_head) == 0 &&
           memcmp(frame + incoming_head, &digits, DIGITS) == 0 &&
           memcmp(frame + tail, incoming + tail, size - DIGITS) == 0;
}

/* ---- One connection ------------------------------------------------------------------ */

static void transmit(struct connection *c, const void *data, size_t bytes) {
    ssize_t sent = send(c->fd, data, bytes, MSG_NOSIGNAL);
    if (sent != (ssize_t)bytes)
        fail("cannot send %zu bytes: %s", bytes, sent < 0 ? strerror(errno) : "the buffer is full");
}

static void start(struct connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket: %s (connection %zu)", strerror(errno), opened);
    if (mode == ECHO || mode == GROUP) {
        int on = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->phase = UPGRADING;
    c->carried = c->expected = 0;
    c->close_received = false;
    /* On loopback the connection usually stands by now, and the request may leave at once. */
    ssize_t sent = send(c->fd, request, request_bytes, MSG_NOSIGNAL);
    c->request_sent = sent == (ssize_t)request_bytes;
    if (!c->request_sent && sent >= 0) fail("the request was sent in part");
    if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN | (c->request_sent ? 0 : EPOLLOUT), .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll: %s", strerror(errno));
}

static void start_more(void) {
    for (; opening_left > 0 && used - opened < OPENING; opening_left--) start(&table[used++]);
}

static void check_upgrade(const char *head) {
    static const char accept[] = "\r\nSec-WebSocket-Accept:";
    const char *at = strcasestr(head, accept);
    if (strncmp(head, "HTTP/1.1 101", 12) != 0) fail("not upgraded: %.60s", head);
    if (at) at += strlen(accept) + strspn(at + strlen(accept), " ");
    if (!at || strncmp(at, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28) != 0)
        fail("wrong Sec-WebSocket-Accept");
    if (strcasestr(head, "\r\nSec-WebSocket-Extensions:")) fail("an extension nobody offered");
}

/* Return the bytes of the head of the response, or 0 while it is incomplete. */
static size_t read_upgrade(struct connection *c, uint8_t *data, size_t bytes) {
    uint8_t *end = memmem(data, bytes, "\r\n\r\n", 4);
    if (!end) return 0;
    end[2] = 0;
    check_upgrade((char *)data);
    opened++;
    if (mode == HANDSHAKE) {
        c->phase = CLOSING;
        transmit(c, CLOSE, sizeof CLOSE);
    } else {
        c->phase = OPEN;
        start_more();
    }
    return (size_t)(end - data) + 4;
}

static void received_message(struct connection *c) {
    uint8_t frame[sizeof outgoing];
    frames++;
    operations++;
    if (mode == ECHO && rate) {
        c->expected++;
        rested[(rest_begin + resting++) % connections] = c;
    } else if (mode == ECHO) {
        transmit(c, frame, write_message(frame, ++c->expected));
    } else if (--missing[c->expected++ % MAX_WINDOW] == 0) {
        unacknowledged--;
    }
}

static void received_control(struct connection *c, const uint8_t *frame, size_t bytes) {
    uint8_t pong[6 + 125] = {0x8a, 0x80 | frame[1]}; /* a mask of zeros */
    switch (frame[0]) {
    case 0x88:
        if (c->phase != CLOSING || bytes != sizeof CLOSED || memcmp(frame, CLOSED, bytes) != 0)
            fail("the server closes: code %d", bytes < 4 ? 1005 : frame[2] << 8 | frame[3]);
        c->close_received = true;
        break;
    case 0x89:
        memcpy(pong + 6, frame + 2, bytes - 2);
        transmit(c, pong, 6 + bytes - 2);
        break;
    case 0x8a:
        break;
    default:
        fail("unexpected frame: first byte 0x%02x, %zu bytes", frame[0], bytes);
    }
}

/* Read whole frames; return the bytes read. */
static size_t read_frames(struct connection *c, const uint8_t *data, size_t bytes) {
    const size_t message_bytes = incoming_head + size;
    const uint8_t *at = data, *end = data + bytes;
    while (end - at >= 2) {
        if (at[0] == 0x81 && mode != HANDSHAKE) {
            const size_t left = (size_t)(end - at);
            if (left < incoming_head) break;
            if (left < message_bytes && memcmp(at, incoming, incoming_head) == 0) break;
            if (left < message_bytes || !is_message(at, c->expected))
                fail("wrong message: expected %08x of %zu bytes, got %.*s (length byte %d)",
                     c->expected, size, DIGITS, at + incoming_head, at[1]);
            if (c->phase == OPEN)
                received_message(c);
            else
                c->expected++;
            at += message_bytes;
        } else {
            if (at[1] > 125) fail("unexpected frame: first byte 0x%02x, length %d", at[0], at[1]);
            const size_t total = 2 + (size_t)at[1];
            if ((size_t)(end - at) < total) break;
            received_control(c, at, total);
            at += total;
        }
    }
    return (size_t)(at - data);
}

static void received_end(struct connection *c, const char *how) {
    if (!c->close_received) fail("the connection ended without a close frame: %s", how);
    close(c->fd);
    c->phase = UNUSED;
    opened--;
    if (mode == HANDSHAKE) {
        operations++;
        start(c);
    }
}

static void readable(struct connection *c) {
    uint8_t *data = buffer + CARRY_BYTES - c->carried; /* what was carried, then what comes */
    ssize_t got = recv(c->fd, buffer + CARRY_BYTES, READ_BYTES, 0);
    reads++;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        received_end(c, got < 0 ? strerror(errno) : "end of stream");
        return;
    }
    memcpy(data, c->carry, c->carried);
    size_t bytes = c->carried + (size_t)got, done = 0;
    if (c->phase == UPGRADING) done = read_upgrade(c, data, bytes);
    if (c->phase != UPGRADING) done += read_frames(c, data + done, bytes - done);
    if (bytes - done > CARRY_BYTES) fail("more than %d bytes without an end", CARRY_BYTES);
    c->carried = (uint32_t)(bytes - done);
    memcpy(c->carry, data + done, c->carried);
}

static void writable(struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) fail("connect: %s", strerror(error));
    transmit(c, request, request_bytes);
    c->request_sent = true;
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

/* ---- All of them --------------------------------------------------------------------- */

static void turn(int timeout_ms) {
    static struct epoll_event events[EVENTS];
    if (mode == HANDSHAKE) {
        const struct timespec rest = {.tv_nsec = REST_NS};
        nanosleep(&rest, NULL);
        timeout_ms = 0;
    }
    int count = epoll_wait(poller, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) continue; /* standard input, see hold() */
        if (!c->request_sent)
            writable(c);
        else
            readable(c);
    }
}

/* Open `count` connections beside those that are open. */
static void open_connections(size_t count) {
    const size_t wanted = opened + count;
    size_t before = opened;
    double since = now();
    opening_left = count;
    start_more();
    while (opened < wanted) {
        turn(100);
        if (opened != before) {
            before = opened;
            since = now();
        } else if (now() - since > patience_s) {
            fail("no handshake completed for %.0f s: %zu of %zu are open", patience_s, opened, wanted);
        }
    }
}

static void close_connections(void) {
    double since = now();
    finished = true;
    for (size_t i = 0; i < used; i++) {
        if (table[i].phase != OPEN) continue;
        table[i].phase = CLOSING;
        transmit(&table[i], CLOSE, sizeof CLOSE);
    }
    while (opened > 0 && now() - since < 2) turn(100);
}

/* The sender's turn: what fits into the window leaves in one write. */
static void fill_window(void) {
    static uint8_t batch[MAX_WINDOW * sizeof outgoing];
    size_t bytes = 0;
    for (; unacknowledged < window; unacknowledged++) {
        missing[next_sequence % MAX_WINDOW] = (uint32_t)connections;
        bytes += write_message(batch + bytes, next_sequence++);
    }
    if (bytes) transmit(&table[0], batch, bytes);
}

/* Send what is due by now; where every connection waits for an answer, later. */
static void keep_pace(void) {
    uint8_t frame[sizeof outgoing];
    const uint64_t due = (uint64_t)((now() - pace_since) * rate);
    for (; due_before < due && resting; due_before++, resting--) {
        struct connection *c = rested[rest_begin];
        rest_begin = (rest_begin + 1) % connections;
        transmit(c, frame, write_message(frame, c->expected));
    }
}

/* Send a message to all, and wait until the last has it; return how long that took. */
static double broadcast(void) {
    const double since = now();
    window = 1;
    connections = opened;
    fill_window();
    while (unacknowledged) {
        turn(100);
        if (now() - since > patience_s)
            fail("%u of %zu members did not receive a message in %.0f s",
                 missing[(next_sequence - 1) % MAX_WINDOW], connections, patience_s);
    }
    return now() - since;
}

static void work(double until, uint64_t at_least) {
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
            fail("nothing for %.0f s after %llu operations", patience_s,
                 (unsigned long long)operations);
        }
        turn(rate ? 1 : 50);
        if (mode == GROUP) fill_window();
        if (rate) keep_pace();
    }
}

static void measure(void) {
    if (mode == HANDSHAKE) {
        for (; used < connections; used++) start(&table[used]);
    } else {
        open_connections(connections);
        /* A server may join the group just after its 101: let the last one do so. */
        for (double until = now() + 0.2; now() < until;) turn(20);
    }
    if (mode == ECHO && rate) {
        for (size_t i = 0; i < connections; i++) rested[resting++] = &table[i];
        pace_since = now();
    } else if (mode == ECHO) {
        uint8_t frame[sizeof outgoing];
        for (size_t i = 0; i < connections; i++) transmit(&table[i], frame, write_message(frame, 0));
    } else if (mode == GROUP) {
        fill_window();
    }
    work(now() + warmup_s, connections * window);
    printf("{\"event\": \"measuring\"}\n");
    const uint64_t operations0 = operations, reads0 = reads, frames0 = frames;
    const double time0 = now(), cpu0 = cpu_s();
    work(time0 + seconds, 1);
    const double time = now() - time0, cpu = cpu_s() - cpu0;
    printf("{\"event\": \"measured\", \"operations\": %llu, \"seconds\": %.6f, \"cpu_s\": %.6f, "
           "\"reads\": %llu, \"frames\": %llu}\n",
           (unsigned long long)(operations - operations0), time, cpu,
           (unsigned long long)(reads - reads0), (unsigned long long)(frames - frames0));
    if (mode != HANDSHAKE) close_connections();
}

static void hold(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    char line[64];
    const size_t slots = connections;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event) < 0) fail("epoll: %s", strerror(errno));
    for (;;) {
        /* The only wait for input: with a line pending, epoll returns at once. */
        struct epoll_event ready;
        bool asked = epoll_wait(poller, &ready, 1, -1) == 1 && ready.data.ptr == NULL;
        if (!asked) {
            turn(0);
            continue;
        }
        ssize_t got = read(0, line, sizeof line - 1);
        size_t count = 0;
        if (got <= 0) break;
        line[got] = 0;
        if (sscanf(line, "send %zu", &count) == 1) {
            printf("{\"event\": \"sent\", \"last_us\": [");
            for (size_t i = 0; i < count; i++)
                printf(i ? ", %.0f" : "%.0f", broadcast() * 1e6);
            printf("]}\n");
            continue;
        }
        if (sscanf(line, "open %zu", &count) != 1) fail("not a command: %s", line);
        if (used + count > slots) fail("more than --connections %zu", slots);
        open_connections(count);
        printf("{\"event\": \"opened\", \"connections\": %zu}\n", opened);
    }
    close_connections();
}

static void add_request(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(request + request_bytes, sizeof request - request_bytes, format, arguments);
    va_end(arguments);
    request_bytes += (size_t)bytes;
    if (request_bytes >= sizeof request) fail("the request is too long");
}

static void read_arguments(int argc, char **argv) {
    static const char *modes[] = {"echo", "group", "handshake", "hold"};
    if (argc < 5) fail("usage: loadgen echo|group|handshake|hold HOST PORT PATH [options]");
    for (mode = 0; mode <= HOLD && strcmp(argv[1], modes[mode]) != 0;) mode++;
    if (mode > HOLD) fail("no such mode: %s", argv[1]);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) fail("not an IPv4 address: %s", argv[2]);
    add_request("GET %s HTTP/1.1\r\nHost: %s:%s\r\nOrigin: http://%s:%s\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n",
                argv[4], argv[2], argv[3], argv[2], argv[3]);
    for (int i = 5; i < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!value) fail("%s needs a value", name);
        if (!strcmp(name, "--connections")) connections = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--window")) window = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--size")) size = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--rate")) rate = atof(value);
        else if (!strcmp(name, "--warmup")) warmup_s = atof(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--patience")) patience_s = atof(value);
        else if (!strcmp(name, "--header")) add_request("%s\r\n", value);
        else fail("no such option: %s", name);
    }
    add_request("\r\n");
    if (connections < 1) fail("--connections must be at least 1");
    if (window < 1 || window > MAX_WINDOW) fail("--window must be 1 to %d", MAX_WINDOW);
    if (size < DIGITS || size > MAX_SIZE) fail("--size must be %d to %d", DIGITS, MAX_SIZE);
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives the one who asked */
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_arguments(argc, argv);
    prepare_messages();
    poller = epoll_create1(0);
    table = calloc(connections, sizeof *table);
    rested = calloc(connections, sizeof *rested);
    if (poller < 0 || !table || !rested) fail("cannot start: %s", strerror(errno));
    if (mode == HOLD)
        hold();
    else
        measure();
    return 0;
}
