/* sse_load: open many event streams and count the events that arrive.
 *
 *   sse_load [-t] [-w PATH] [-H HEADER]... PORT[,PORT...] PATH CLIENTS EVENTS SECONDS
 *
 * Opens CLIENTS streams, spread over the ports; -t uses TLS (and trusts any certificate), -w first
 * requests a path without content on the same connection. Prints
 *   READY   when every client has its response headers,
 *   LIVE    when every client has also received an event with "bench_hello": none may be lost from then on,
 * and at the end, when all clients have EVENTS events or SECONDS have passed since LIVE, one line of JSON.
 *
 * An event counts if it has a "bench_seq" below EVENTS, each number once per client;
 * "bench_t_ns" (the publisher's CLOCK_REALTIME) gives its latency. Both may be in quoted JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  BUFFER = 1 << 16,       /* initial bytes of a client's buffer; it grows for larger events */
  OPENING = 256,          /* clients that wait for their response at the same time */
  READS = 4,              /* consecutive reads of one client */
  PORTS = 16,
  LATENCIES = 20000000,
  CONNECT_SECONDS = 120,
  LINGER_MS = 200,        /* after the last event, to detect duplicates */
};

typedef enum { SIZE, SIZE_REST, DATA, DATA_END } ChunkState;

typedef struct {
  int fd;
  SSL *tls;
  bool answered, live, chunked, ended;
  int status;
  char *buffer;
  size_t capacity, length, line; /* line: the start of the last, incomplete line */
  ChunkState chunk_state;
  size_t chunk_left;
  uint8_t *seen;
  long got, last;
} Client;

static struct {
  long events;
  int clients, answered, accepted, live, open, complete;
  long delivered, duplicates, disorder;
  long long bytes;
  int64_t first_ns, last_ns;
  uint32_t *latency_us;
  long latencies, latencies_most;
} all;

static struct {
  SSL_CTX *tls;
  const char *warm_up;
  char headers[8192], request[16384];
  int ports[PORTS], port_count;
} target;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- one event ---------------------------------------------------------------------------------- */

/* Returns the number after a key in a text, -1 without the key. */
static int64_t number_after(const char *text, const char *end, const char *key) {
  const char *at = memmem(text, end - text, key, strlen(key));
  if (!at)
    return -1;
  at += strlen(key);
  while (at < end && (*at < '0' || *at > '9'))
    at++;
  int64_t value = 0;
  while (at < end && *at >= '0' && *at <= '9')
    value = value * 10 + (*at++ - '0');
  return value;
}

static void keep_latency(int64_t ns) {
  if (all.latencies < all.latencies_most)
    all.latency_us[all.latencies++] = ns < 0 ? 0 : ns / 1000 > UINT32_MAX ? UINT32_MAX : ns / 1000;
}

static void take_event(Client *c, const char *text, const char *end, int64_t now) {
  int64_t seq = number_after(text, end, "bench_seq");
  if (seq < 0) {
    if (!c->live && memmem(text, end - text, "bench_hello", 11)) {
      c->live = true;
      all.live++;
    }
    return;
  }
  if (seq >= all.events)
    return;
  uint8_t bit = 1 << (seq & 7);
  if (c->seen[seq >> 3] & bit) {
    all.duplicates++;
    return;
  }
  c->seen[seq >> 3] |= bit;
  all.disorder += seq < c->last;
  c->last = seq;
  all.delivered++;
  if (!all.first_ns)
    all.first_ns = now;
  all.last_ns = now;
  keep_latency(now - number_after(text, end, "bench_t_ns"));
  if (++c->got == all.events)
    all.complete++;
}

/* ---- a client's bytes --------------------------------------------------------------------------- */

/* Removes the complete events from the buffer: each ends with an empty line. */
static void take_events(Client *c, int64_t now) {
  char *event = c->buffer, *line = c->buffer + c->line, *end = c->buffer + c->length;
  for (char *newline; (newline = memchr(line, '\n', end - line)); line = newline + 1) {
    if (newline == line || (newline == line + 1 && *line == '\r')) {
      take_event(c, event, line, now);
      event = newline + 1;
    }
  }
  c->line = line - event;
  c->length = end - event;
  if (event != c->buffer)
    memmove(c->buffer, event, c->length);
}

/* Decodes the chunked coding of the newest `count` bytes of the buffer, in place. */
static void unchunk(Client *c, size_t count) {
  char *from = c->buffer + c->length - count, *to = from, *end = c->buffer + c->length;
  while (from < end) {
    if (c->chunk_state == DATA) {
      size_t run = (size_t)(end - from) < c->chunk_left ? (size_t)(end - from) : c->chunk_left;
      if (to != from)
        memmove(to, from, run);
      to += run, from += run, c->chunk_left -= run;
      if (!c->chunk_left)
        c->chunk_state = DATA_END;
      continue;
    }
    char byte = *from++;
    bool digit = (byte >= '0' && byte <= '9') || ((byte | 32) >= 'a' && (byte | 32) <= 'f');
    if (c->chunk_state == SIZE && digit)
      c->chunk_left = c->chunk_left * 16 + (byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
    else if (byte != '\n')
      c->chunk_state = c->chunk_state == SIZE ? SIZE_REST : c->chunk_state;
    else if (c->chunk_state == DATA_END)
      c->chunk_state = SIZE;
    else if (c->chunk_left)
      c->chunk_state = DATA;
    else
      c->ended = true; /* an empty chunk is the last one */
  }
  c->length = to - c->buffer;
}

/* True once the response headers are removed from the buffer; sets `count` to the bytes after them. */
static bool take_headers(Client *c, size_t *count) {
  char *end = memmem(c->buffer, c->length, "\r\n\r\n", 4);
  if (!end)
    return false;
  *end = 0;
  c->status = strncmp(c->buffer, "HTTP/1.1 ", 9) ? 0 : atoi(c->buffer + 9);
  c->chunked = strcasestr(c->buffer, "transfer-encoding: chunked") != NULL;
  c->answered = true;
  all.answered++;
  all.accepted += c->status == 200;
  *count = c->length - (end + 4 - c->buffer);
  memmove(c->buffer, end + 4, *count);
  c->length = *count;
  return true;
}

static void take_bytes(Client *c, size_t count) {
  int64_t now = clock_ns(CLOCK_REALTIME);
  c->length += count;
  if (!c->answered && !take_headers(c, &count))
    return;
  if (all.live == all.clients)
    all.bytes += count;
  if (c->chunked)
    unchunk(c, count);
  take_events(c, now);
}

/* Returns the number of bytes read, 0 if none are available, -1 at the end of the stream. */
static ssize_t read_some(Client *c) {
  char *to = c->buffer + c->length;
  size_t space = c->capacity - c->length;
  ssize_t count;
  if (!c->tls) {
    count = read(c->fd, to, space);
    return count > 0 ? count : count < 0 && errno == EAGAIN ? 0 : -1;
  }
  count = SSL_read(c->tls, to, space > INT32_MAX ? INT32_MAX : (int)space);
  return count > 0 ? count : SSL_get_error(c->tls, count) == SSL_ERROR_WANT_READ ? 0 : -1;
}

static void read_client(Client *c) {
  /* epoll does not report data that TLS has already read from the socket: drain it. */
  for (int reads = 0; c->tls || reads < READS; reads++) {
    if (c->capacity - c->length < c->capacity / 4) {
      c->capacity *= 2;
      if (!(c->buffer = realloc(c->buffer, c->capacity)))
        fail("realloc");
    }
    ssize_t count = read_some(c);
    if (count == 0)
      return;
    if (count > 0)
      take_bytes(c, count);
    if (count < 0 || c->ended) {
      close(c->fd);
      all.open--;
      return;
    }
  }
}

static void read_clients(int poll, int milliseconds) {
  struct epoll_event events[512];
  int count = epoll_wait(poll, events, 512, milliseconds);
  for (int i = 0; i < count; i++)
    read_client(events[i].data.ptr);
}

/* ---- opening ------------------------------------------------------------------------------------ */

/* A request before the stream, as after a page load. nginx disables Nagle's algorithm with the first
 * response of a connection; before, events wait for acknowledgements that are delayed by 40 ms. */
static void warm_up(int fd, const char *path) {
  char text[4096];
  int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
  if (write(fd, text, length) != length)
    fail("write");
  length = 0;
  while (!memmem(text, length, "\r\n\r\n", 4)) {
    ssize_t count = read(fd, text + length, sizeof text - length);
    if (count <= 0)
      fail("the first answer");
    length += count;
  }
}

static void open_client(Client *c, int poll, int port) {
  const char *request = target.request;
  int length = strlen(request);
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  c->last = -1;
  c->capacity = BUFFER;
  c->buffer = malloc(c->capacity);
  c->seen = calloc(all.events / 8 + 1, 1);
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0 || !c->buffer || !c->seen)
    fail("a client");
  if (connect(c->fd, (void *)&address, sizeof address))
    fail("connect");
  if (target.warm_up)
    warm_up(c->fd, target.warm_up);
  if (target.tls) {
    c->tls = SSL_new(target.tls);
    SSL_set_fd(c->tls, c->fd);
    if (SSL_connect(c->tls) != 1 || SSL_write(c->tls, request, length) != length)
      fail("TLS");
  } else if (write(c->fd, request, length) != length) {
    fail("write");
  }
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &interest))
    fail("epoll_ctl");
  all.open++;
}

static void parse_ports(char *list) {
  for (char *port = strtok(list, ","); port && target.port_count < PORTS; port = strtok(NULL, ","))
    target.ports[target.port_count++] = atoi(port);
}

/* ---- the end ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double percentile_ms(double part) {
  return all.latencies ? all.latency_us[(long)((all.latencies - 1) * part)] / 1000.0 : -1;
}

static void report(double cpu_s) {
  double seconds = (all.last_ns - all.first_ns) / 1e9;
  long expected = all.clients * all.events;
  qsort(all.latency_us, all.latencies, sizeof *all.latency_us, by_value);
  printf("{\"clients\": %d, \"accepted\": %d, \"closed\": %d, \"expected\": %ld, \"delivered\": %ld, \"lost\": %ld, "
         "\"duplicates\": %ld, \"disorder\": %ld, \"seconds\": %.4f, \"rate\": %.0f, \"bytes\": %lld, \"cpu_s\": %.3f, "
         "\"p50_ms\": %.3f, \"p95_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
         all.clients, all.accepted, all.clients - all.open, expected, all.delivered, expected - all.delivered,
         all.duplicates, all.disorder, seconds, seconds > 0 ? all.delivered / seconds : 0, all.bytes, cpu_s,
         percentile_ms(.5), percentile_ms(.95), percentile_ms(.99), percentile_ms(1));
}

static void say(const char *word) {
  puts(word);
  fflush(stdout);
}

static void use_all_descriptors(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static int usage(void) {
  fprintf(stderr, "usage: sse_load [-t] [-w PATH] [-H HEADER]... PORT[,PORT...] PATH CLIENTS EVENTS SECONDS\n");
  return 2;
}

/* True while the condition can still become true: streams are open and time is left. */
static bool may_wait(int64_t deadline) { return all.open && clock_ns(CLOCK_MONOTONIC) < deadline; }

static void open_clients(Client *clients, int poll, int64_t deadline) {
  for (int i = 0; i < all.clients; i++) {
    open_client(&clients[i], poll, target.ports[i % target.port_count]);
    do
      read_clients(poll, all.open - all.answered < OPENING ? 0 : 100);
    while (all.open - all.answered >= OPENING && may_wait(deadline));
  }
  while (all.answered < all.clients && may_wait(deadline))
    read_clients(poll, 100);
  if (all.accepted == all.clients)
    return;
  const Client *refused = clients;
  while (refused->status == 200)
    refused++;
  fprintf(stderr, "sse_load: %d of %d clients were accepted; one that was not got %d %.*s\n", all.accepted,
          all.clients, refused->status, (int)refused->length, refused->buffer);
  exit(1);
}

static void wait_until_live(int poll, int64_t deadline) {
  while (all.live < all.clients && may_wait(deadline))
    read_clients(poll, 100);
  if (all.live == all.clients)
    return;
  fprintf(stderr, "sse_load: only %d of %d clients get events\n", all.live, all.clients);
  exit(1);
}

/* Returns the CPU seconds from the first event on. */
static double take_all(int poll, int64_t deadline) {
  int64_t cpu_ns = 0;
  while (all.complete < all.clients && may_wait(deadline)) {
    bool begun = all.first_ns != 0;
    read_clients(poll, 100);
    if (!begun && all.first_ns)
      cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  }
  return cpu_ns ? (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns) / 1e9 : 0;
}

static int64_t after_ms(double milliseconds) { return clock_ns(CLOCK_MONOTONIC) + (int64_t)(milliseconds * 1e6); }

int main(int argc, char **argv) {
  for (int option; (option = getopt(argc, argv, "tw:H:")) != -1;) {
    if (option == 't')
      target.tls = SSL_CTX_new(TLS_client_method());
    else if (option == 'w')
      target.warm_up = optarg;
    else if (option == 'H' && strlen(target.headers) + strlen(optarg) + 3 < sizeof target.headers)
      strcat(strcat(target.headers, optarg), "\r\n");
    else
      return usage();
  }
  if (argc - optind != 5)
    return usage();
  argv += optind;
  parse_ports(argv[0]);
  snprintf(target.request, sizeof target.request,
           "GET %.4000s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n%s\r\n", argv[1], target.headers);
  all.clients = atoi(argv[2]);
  all.events = atol(argv[3]);
  if (target.port_count < 1 || all.clients < 1 || all.events < 1)
    return usage();

  signal(SIGPIPE, SIG_IGN);
  use_all_descriptors();
  all.latencies_most = all.clients * all.events < LATENCIES ? all.clients * all.events : LATENCIES;
  all.latency_us = malloc(sizeof *all.latency_us * all.latencies_most);
  Client *clients = calloc(all.clients, sizeof *clients);
  int poll = epoll_create1(0);
  if (!all.latency_us || !clients || poll < 0)
    fail("start");

  int64_t deadline = after_ms(CONNECT_SECONDS * 1000.0);
  open_clients(clients, poll, deadline);
  say("READY");
  wait_until_live(poll, deadline);
  say("LIVE");
  double cpu_s = take_all(poll, after_ms(atof(argv[4]) * 1000));
  deadline = after_ms(LINGER_MS);
  while (may_wait(deadline))
    read_clients(poll, LINGER_MS / 4);
  report(cpu_s);
  return 0;
}
