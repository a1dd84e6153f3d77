/* publish: publish Shield events for sse_load, at a given rate or as fast as possible.
 *
 *   publish redis PORT STREAM [OPTION...]    XADD to a stream
 *   publish http PORT PATH [OPTION...]       POST each event to a channel, in the frame of the backend
 *
 *   -n EVENTS   number of events (1)
 *   -r RATE     events per second; 0, the default, is as fast as possible
 *   -s SIZE     bytes of an event's data (300)
 *   -j JOBS     number of jobs, used in turn (1)
 *   -m MAXLEN   approximate maximum length of the stream; 0, the default, is no limit
 *
 * Every event carries bench_seq (counted from 0) and bench_t_ns (CLOCK_REALTIME of its creation, which is
 * when it is sent: an event is created only when there is room for it). Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 1 << 17, UNANSWERED = 128, PENDING = 1 << 16 };

static struct {
  bool http;
  const char *target;
  long events, jobs, maxlen;
  double rate;
  size_t size;
} task = {.events = 1, .jobs = 1, .size = 300};

static int server;
static uint64_t run; /* makes the ids of this run unique */
static char *out;
static size_t out_length;
static long sent, answered;

static void fail(const char *what) {
  fprintf(stderr, "publish: %s\n", what);
  exit(1);
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- building an event -------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static void put(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  out_length += vsprintf(out + out_length, format, arguments);
  va_end(arguments);
}

static void put_bulk(const char *text, size_t length) {
  put("$%zu\r\n", length);
  memcpy(out + out_length, text, length);
  out_length += length;
  put("\r\n");
}

static void put_word(const char *text) { put_bulk(text, strlen(text)); }

/* Writes an event's data: a pipeline's report of a chunk, with text up to the given size. */
static size_t make_data(char *to, long seq) {
  size_t length = sprintf(to,
                          "{\"bench_seq\": %ld, \"bench_t_ns\": %lld, \"chunk\": %ld, \"chunks_total\": %ld, "
                          "\"message\": \"Processed chunk %ld of %ld of docs.python.org/library\", \"text\": \"",
                          seq, (long long)clock_ns(CLOCK_REALTIME), seq, task.events, seq, task.events);
  if (length + 2 < task.size) {
    memset(to + length, 'x', task.size - 2 - length);
    length = task.size - 2;
  }
  memcpy(to + length, "\"}", 2);
  return length + 2;
}

static void put_entry(const char *event_id, const char *job_id, const char *data, size_t length) {
  char maxlen[24];
  snprintf(maxlen, sizeof maxlen, "%ld", task.maxlen);
  put("*%d\r\n", task.maxlen ? 18 : 15);
  put_word("XADD");
  put_word(task.target);
  if (task.maxlen) {
    put_word("MAXLEN");
    put_word("~");
    put_word(maxlen);
  }
  put_word("*");
  put_word("event_id");
  put_word(event_id);
  put_word("type");
  put_word("rag:chunk_processed");
  put_word("timestamp");
  put_word("2026-01-01T00:00:00+00:00");
  put_word("job_id");
  put_word(job_id);
  put_word("data");
  put_bulk(data, length);
  put_word("metadata");
  put_word("{}");
}

static void put_post(const char *event_id, const char *job_id, const char *data, size_t length) {
  static const char before[] =
      "{\"type\":\"ACTIVITY_SNAPSHOT\",\"timestamp\":1767225600000,\"metadata\":{\"job_id\":\"%s\","
      "\"shield_type\":\"rag:chunk_processed\",\"event_id\":\"%s\"},\"messageId\":\"rag:%s\",\"activityType\":"
      "\"hx.shield.rag\",\"content\":{\"job_id\":\"%s\",\"chunks_processed\":%ld,\"latest\":";
  static const char after[] = "},\"replace\":true}";
  char head[512];
  int head_length = snprintf(head, sizeof head, before, job_id, event_id, job_id, job_id, sent + 1);
  put("POST %s HTTP/1.1\r\nHost: localhost\r\nX-EventSource-Event: ACTIVITY_SNAPSHOT\r\nContent-Length: %zu\r\n\r\n%s",
      task.target, head_length + length + sizeof after - 1, head);
  memcpy(out + out_length, data, length);
  out_length += length;
  put("%s", after);
}

static void put_event(void) {
  static char data[TEXT];
  char event_id[40], job_id[40];
  snprintf(event_id, sizeof event_id, "%08x-%04x-4000-8000-%012lx", (uint32_t)(run >> 32), (uint16_t)run, sent);
  snprintf(job_id, sizeof job_id, "%08x-%04x-4000-9000-%012lx", (uint32_t)(run >> 32), (uint16_t)run, sent % task.jobs);
  (task.http ? put_post : put_entry)(event_id, job_id, data, make_data(data, sent));
  sent++;
}

/* ---- protocol of the server --------------------------------------------------------------------- */

/* Redis responds to each XADD with two lines: the length of an id, and the id. */
static void count_redis_answers(const char *text, size_t length) {
  static bool inside_line, second_line;
  for (const char *end = text + length; text < end; text++) {
    if (!inside_line && !second_line && *text != '$')
      fail("Redis refused an entry");
    inside_line = *text != '\n';
    if (!inside_line) {
      answered += second_line;
      second_line = !second_line;
    }
  }
}

/* A response body may end without a line break, so each response is found by its start. */
static void count_http_answers(const char *text, size_t length) {
  static const char begin[] = "HTTP/1.1 2";
  static size_t matched;
  for (const char *end = text + length; text < end; text++) {
    if (matched == sizeof begin - 2 && *text != '2')
      fail("the channel refused an event");
    matched = *text == begin[matched] ? matched + 1 : *text == 'H';
    if (matched == sizeof begin - 1) {
      answered++;
      matched = 0;
    }
  }
}

static void take_answers(bool wait) {
  char text[1 << 14];
  ssize_t length = recv(server, text, sizeof text, wait ? 0 : MSG_DONTWAIT);
  if (length == 0 || (length < 0 && errno != EAGAIN))
    fail("the server left");
  if (length > 0)
    (task.http ? count_http_answers : count_redis_answers)(text, length);
}

/* Sends the buffer. Reads responses meanwhile, since a server that cannot send them stops reading. */
static void flush_out(void) {
  for (size_t done = 0; done < out_length;) {
    ssize_t count = send(server, out + done, out_length - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) {
      done += count;
      continue;
    }
    if (errno != EAGAIN)
      fail("the server left");
    struct pollfd ready = {.fd = server, .events = POLLIN | POLLOUT};
    poll(&ready, 1, -1);
    if (ready.revents & POLLIN)
      take_answers(false);
  }
  out_length = 0;
}

static void wait_until(int64_t due) {
  struct timespec t = {.tv_sec = due / 1000000000LL, .tv_nsec = due % 1000000000LL};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
    ;
}

static void publish_paced(void) {
  int64_t begin = clock_ns(CLOCK_MONOTONIC);
  while (sent < task.events) {
    wait_until(begin + (int64_t)(sent / task.rate * 1e9));
    put_event();
    flush_out();
    take_answers(false);
  }
}

static void publish_freely(void) {
  while (sent < task.events) {
    while (sent < task.events && sent - answered < UNANSWERED && out_length < PENDING)
      put_event();
    flush_out();
    take_answers(sent - answered >= UNANSWERED);
  }
}

static int connect_to(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (connect(fd, (void *)&address, sizeof address)) {
    perror("publish: connect");
    exit(1);
  }
  return fd;
}

static int usage(void) {
  fprintf(stderr, "usage: publish redis|http PORT STREAM|PATH [-n EVENTS] [-r RATE] [-s SIZE] [-j JOBS] [-m MAXLEN]\n");
  return 2;
}

int main(int argc, char **argv) {
  for (int option; (option = getopt(argc, argv, "n:r:s:j:m:")) != -1;) {
    switch (option) {
    case 'n': task.events = atol(optarg); break;
    case 'r': task.rate = atof(optarg); break;
    case 's': task.size = atol(optarg); break;
    case 'j': task.jobs = atol(optarg); break;
    case 'm': task.maxlen = atol(optarg); break;
    default: return usage();
    }
  }
  if (argc - optind != 3 || task.size > TEXT - 512 || task.jobs < 1)
    return usage();
  task.http = !strcmp(argv[optind], "http");
  task.target = argv[optind + 2];
  out = malloc(PENDING + 2 * TEXT);
  if (!out || getrandom(&run, sizeof run, 0) != sizeof run)
    fail("no memory, or no chance");
  server = connect_to(atoi(argv[optind + 1]));

  int64_t begin = clock_ns(CLOCK_MONOTONIC);
  if (task.rate > 0)
    publish_paced();
  else
    publish_freely();
  while (answered < sent)
    take_answers(true);
  double seconds = (clock_ns(CLOCK_MONOTONIC) - begin) / 1e9;
  printf("{\"published\": %ld, \"seconds\": %.4f, \"rate\": %.0f}\n", sent, seconds, sent / seconds);
  return 0;
}
