/* append_load: appends to streams with POST, over connections that are kept.  One thread, epoll,
 * libc only; never a second request before the answer to the first.
 *
 * Without --rate every connection sends its next request when it has the answer to the last: the
 * rate is what the server takes.  With --rate requests are due by the clock, whoever is free sends
 * the next one, and latency counts from when it was due: a server that stalls is charged for
 * everything that had to wait.
 *
 * Requests go to --streams streams in turn, each with one record (or --batch of them, as a JSON
 * array).  Every record is a JSON object that begins  {"t":<ns>,"i":<n>  : the time, and a number
 * that no other record of the run has, so that whoever reads everything back can tell by count and
 * sum whether each acknowledged record is there once.  One JSON object goes to standard output. */
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "load_http.h"
#include "load_stats.h"

#define READ_BYTES (64 * 1024)
#define START_PATIENCE_S 300.0 /* to connect and to create every stream */
#define END_PATIENCE_S 30.0   /* for the answers to the last requests */

typedef struct {
  int fd;
  bool connected, waiting, wants_room; /* waiting: for an answer; for room: to send the rest */
  uint64_t from_ns;        /* what the latency counts from */
  uint64_t first, records; /* of the request that waits: numbers of its records */
  response response;
  char *request; /* what is being sent */
  size_t request_len, sent;
} connection;

static struct {
  const char *path;
  int port, connections, streams, record_bytes, batch;
  bool create;
  double warm, seconds, rate;
  uint64_t count;
} options = {.path = "/", .connections = 1, .streams = 1, .record_bytes = 100, .batch = 1,
             .warm = 1, .seconds = 4};

static connection *connections;
static connection **idle; /* connected, with nothing to do; the last one is taken first */
static int idle_count, connected;
static int epoll_fd, timer_fd;
static uint64_t next_create, created, next_number, appended, index_sum, refused;
static bool creating, stopping, window_open;
static uint64_t window_appended, window_refused, rate_begun_ns, due_count;
static histogram latency;

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "%s: %.200s\n", what, detail);
  exit(2);
}

static void watch(connection *c, uint32_t events, int operation) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  epoll_ctl(epoll_fd, operation, c->fd, &e);
}

/* --- requests --------------------------------------------------------------------------------- */

static void flush_request(connection *c) {
  ssize_t n = send(c->fd, c->request + c->sent, c->request_len - c->sent, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) fail("send", strerror(errno));
  if (n > 0) c->sent += (size_t)n;
  bool has_more = c->sent < c->request_len;
  if (has_more == c->wants_room) return;
  c->wants_room = has_more;
  watch(c, has_more ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

static void send_request(connection *c, uint64_t from_ns) {
  c->from_ns = from_ns;
  c->sent = 0;
  c->waiting = true;
  begin_response(&c->response);
  flush_request(c);
}

static void send_create(connection *c) {
  c->records = 0;
  c->request_len = (size_t)sprintf(c->request,
                                   "PUT %s/%lu HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: "
                                   "application/json\r\nContent-Length: 0\r\n\r\n",
                                   options.path, next_create++, options.port);
  send_request(c, now_ns());
}

static char *write_record(char *out, uint64_t number, uint64_t now) {
  int used = sprintf(out, "{\"t\":%lu,\"i\":%lu,\"d\":\"", now, number);
  memset(out + used, 'x', (size_t)(options.record_bytes - 2 - used));
  memcpy(out + options.record_bytes - 2, "\"}", 2);
  return out + options.record_bytes;
}

static uint64_t records_of_next(void) {
  uint64_t records = (uint64_t)options.batch;
  if (options.count && next_number + records > options.count) records = options.count - next_number;
  return records;
}

static void send_append(connection *c, uint64_t from_ns) {
  uint64_t records = records_of_next(), now = now_ns();
  uint64_t stream = next_number / (uint64_t)options.batch % (uint64_t)options.streams;
  bool is_array = options.batch > 1;
  size_t length = records * (size_t)options.record_bytes + (is_array ? records + 1 : 0);
  char *p = c->request;
  p += sprintf(p,
               "POST %s/%lu HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
               "Content-Length: %zu\r\n\r\n",
               options.path, stream, options.port, length);
  if (is_array) *p++ = '[';
  for (uint64_t i = 0; i < records; i++) {
    if (i) *p++ = ',';
    p = write_record(p, next_number + i, now);
  }
  if (is_array) *p++ = ']';
  c->request_len = (size_t)(p - c->request);
  c->first = next_number;
  c->records = records;
  next_number += records;
  send_request(c, from_ns);
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool may_append(void) {
  return !stopping && (!options.count || next_number < options.count);
}

static void next_request(connection *c) {
  c->waiting = false;
  if (creating && next_create < (uint64_t)options.streams)
    send_create(c);
  else if (!creating && options.rate == 0 && may_append())
    send_append(c, now_ns());
  else
    idle[idle_count++] = c;
}

static void on_answer(connection *c, uint64_t received_ns) {
  if (c->response.status < 200 || c->response.status > 299) {
    note_error("status", c->response.head);
    refused += c->records ? c->records : 1;
    if (window_open) window_refused += c->records;
  } else if (c->records == 0) {
    created++;
  } else {
    appended += c->records;
    for (uint64_t i = 0; i < c->records; i++) index_sum += c->first + i;
    if (window_open) {
      window_appended += c->records;
      histogram_add(&latency, received_ns - c->from_ns);
    }
  }
  if (c->response.closes) fail("closed by the server", c->response.head);
  next_request(c);
}

static void on_readable(connection *c) {
  static char buffer[READ_BYTES];
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  uint64_t received_ns = now_ns();
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) fail("recv", n ? strerror(errno) : "the server hung up");
  if (!c->waiting) fail("recv", "bytes that answer nothing");
  size_t used = take_response(&c->response, buffer, (size_t)n, NULL, NULL);
  if (c->response.broken) fail("not a response", c->response.head);
  if (used < (size_t)n) fail("recv", "more bytes than the answer has");
  if (c->response.whole) on_answer(c, received_ns);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void on_connected(connection *c) {
  int error = socket_error(c->fd);
  if (error) fail("connect", strerror(error));
  c->connected = true;
  connected++;
  watch(c, EPOLLIN, EPOLL_CTL_MOD);
  idle[idle_count++] = c;
}

static uint64_t due_ns(uint64_t number) {
  return rate_begun_ns + (uint64_t)((double)number * 1e9 / options.rate);
}

/* Sends what is due, and sets the timer for what comes next.  Without a free connection the answer
 * that frees one comes here again. */
static void send_due(void) {
  if (options.rate == 0 || rate_begun_ns == 0 || !may_append()) return;
  uint64_t now = now_ns();
  while (idle_count && may_append() && due_ns(due_count) <= now) {
    connection *next = idle[0]; /* in turn, so that no connection is idle for long */
    memmove(idle, idle + 1, (size_t)--idle_count * sizeof *idle);
    send_append(next, due_ns(due_count++));
  }
  uint64_t next = due_ns(due_count);
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(next / 1000000000ull),
                                       .tv_nsec = (long)(next % 1000000000ull)}};
  timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void turn(void) {
  static struct epoll_event events[1024];
  int n = epoll_wait(epoll_fd, events, 1024, 10);
  for (int i = 0; i < n; i++) {
    connection *c = events[i].data.ptr;
    if (!c) {
      uint64_t expirations;
      if (read(timer_fd, &expirations, sizeof expirations) < 0) continue;
    } else if (!c->connected) {
      on_connected(c);
    } else {
      if (events[i].events & EPOLLOUT) flush_request(c);
      if (events[i].events & ~(uint32_t)EPOLLOUT) on_readable(c);
    }
  }
  send_due();
}

static void connect_all(uint64_t begun) {
  size_t request_bytes = 1024 + (size_t)options.batch * (size_t)(options.record_bytes + 1);
  for (int i = 0; i < options.connections; i++) {
    connection *c = &connections[i];
    c->fd = open_socket(options.port, i, 1);
    if (c->fd < 0) fail("connect", strerror(errno));
    c->request = malloc(request_bytes);
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
    /* In small steps, so that no listen queue overflows. */
    while (connected < i - 64 && seconds_since(begun) < START_PATIENCE_S) turn();
  }
  while (connected < options.connections) {
    if (seconds_since(begun) > START_PATIENCE_S) fail("connect", "not all connected in time");
    turn();
  }
}

static void wake_idle(void) {
  int count = idle_count;
  idle_count = 0;
  for (int i = 0; i < count; i++) next_request(idle[i]);
}

static void wait_until_idle(uint64_t begun, double patience_s) {
  while (idle_count < options.connections) {
    if (seconds_since(begun) > patience_s) fail("answers", "did not all come in time");
    turn();
  }
}

static void create_streams(uint64_t begun) {
  creating = true;
  wake_idle();
  wait_until_idle(begun, START_PATIENCE_S);
  creating = false;
  if (created < (uint64_t)options.streams) fail("create", first_error);
}

static void begin_appends(void) {
  rate_begun_ns = now_ns();
  if (options.rate > 0)
    send_due();
  else
    wake_idle();
}

/* With --count until so many are acknowledged; otherwise warm up, then measure for the time. */
static void run_window(instant *from, instant *to) {
  begin_appends();
  uint64_t begun = now_ns();
  while (!options.count && seconds_since(begun) < options.warm) turn();
  window_open = true;
  *from = look();
  while (options.count ? appended + refused < options.count
                       : seconds_since(from->at_ns) < options.seconds)
    turn();
  *to = look();
  window_open = false;
}

/* --- options ----------------------------------------------------------------------------------- */

static const struct option option_table[] = {
    {"port", 1, 0, 'p'},    {"path", 1, 0, 'P'},  {"connections", 1, 0, 'n'}, {"warm", 1, 0, 'w'},
    {"seconds", 1, 0, 's'}, {"rate", 1, 0, 'r'},  {"streams", 1, 0, 'm'},     {"batch", 1, 0, 'x'},
    {"bytes", 1, 0, 'b'},   {"count", 1, 0, 'c'}, {"create", 0, 0, 'C'},      {"pids", 1, 0, 'i'},
    {0, 0, 0, 0},
};

static void read_options(int argc, char **argv) {
  int letter;
  while ((letter = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
    switch (letter) {
      case 'p': options.port = atoi(optarg); break;
      case 'P': options.path = optarg; break;
      case 'n': options.connections = atoi(optarg); break;
      case 'w': options.warm = atof(optarg); break;
      case 's': options.seconds = atof(optarg); break;
      case 'r': options.rate = atof(optarg); break;
      case 'm': options.streams = atoi(optarg); break;
      case 'x': options.batch = atoi(optarg); break;
      case 'b': options.record_bytes = atoi(optarg); break;
      case 'c': options.count = strtoull(optarg, NULL, 10); break;
      case 'C': options.create = true; break;
      case 'i': read_pids(optarg); break;
      default: exit(1);
    }
  }
  if (options.record_bytes < 64 || options.connections < 1 || options.streams < 1 ||
      options.batch < 1)
    fail("options", "records have at least 64 bytes; counts are at least 1");
}

int main(int argc, char **argv) {
  instant from, to;
  read_options(argc, argv);
  raise_descriptor_limit();
  connections = calloc((size_t)options.connections, sizeof *connections);
  idle = calloc((size_t)options.connections, sizeof *idle);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
  double rss_before = servers_rss_mib();
  uint64_t begun = now_ns();
  connect_all(begun);
  if (options.create) create_streams(begun);
  run_window(&from, &to);
  stopping = true;
  wait_until_idle(now_ns(), END_PATIENCE_S);
  printf("{\"connections\":%d,\"streams\":%d,\"acknowledged\":%lu,\"index_sum\":%lu,"
         "\"refused\":%lu,\"refused_in_window\":%lu,",
         options.connections, options.streams, appended, index_sum, refused, window_refused);
  print_between(&from, &to, window_appended);
  print_latency(&latency);
  printf("\"rss_before_mib\":%.2f,\"rss_end_mib\":%.2f,\"error\":\"%s\"}\n", rss_before,
         servers_rss_mib(), first_error);
  return 0;
}
