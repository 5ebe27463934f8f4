/* gateway_load: asks for streamed chat completions, so many at a time, and reads them to their end.
 * One thread, epoll, libc only.
 *
 * Each of --connections places has one answer under way: when it is whole the next one is asked
 * for, on a new connection, as another client would.  The first answers begin spread over one
 * answer's length, so that later their beginnings are spread too.  The provider behind is
 * servers/gateway_upstream.c: a token's text is its number and the time it was sent, the first
 * one's also the time at which the request had arrived there.  From these come the two latencies,
 * in which nothing is that happens at the provider:
 *
 *   a token's        from its being sent there to recv() here
 *   the first one's  that, and the request's way from send() here to its being whole there
 *
 * Of every answer is checked that each token is there once and in order, whatever events they come
 * in, and that it ends with its reason, its usage and [DONE].  One JSON object goes to standard output. */
#define _GNU_SOURCE
#include <getopt.h>
#include <sys/epoll.h>

#include "load_http.h"
#include "load_stats.h"

#define READ_BYTES (64 * 1024)
#define LINE_BYTES 4096 /* the longest line that is understood */
#define TURN_MS 5       /* how late an answer may be begun */
#define RETRY_NS 200000000ull /* before a place where something failed asks again */

enum { FREE, CONNECTING, ANSWERED };

typedef struct {
  int fd, state;
  uint64_t begin_ns;  /* when this place asks next, while it is free */
  uint64_t asked_ns;
  int next;           /* the token that is due */
  bool has_reason, has_usage, is_done, is_broken;
  uint32_t line_len;  /* of what `line` holds of a line that has not ended */
  char line[LINE_BYTES];
  response response;
} place;

static struct {
  const char *path;
  int port, connections, tokens, upstream_pid;
  double rate, warm, seconds;
} options = {.path = "/v1/chat/completions", .connections = 1, .tokens = 250, .rate = 50,
             .warm = 1, .seconds = 4};

static place *places;
static int epoll_fd;
static char request[4096];
static size_t request_len;
static uint64_t received_ns; /* when the bytes at hand came */
static bool window_open;
static histogram request_latency, first_latency, token_latency;
static uint64_t answers, broken, failed, missing, repeated;
static uint64_t window_tokens, window_events, window_reads, window_bytes, window_answers;

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "%s: %.200s\n", what, detail);
  exit(2);
}

/* --- what an answer says ------------------------------------------------------------------------ */

static void break_off(place *p, const char *what, const char *line) {
  note_error(what, line);
  p->is_broken = true;
}

static void on_token(place *p, int index, uint64_t arrived_ns, uint64_t sent_ns) {
  if (index > p->next) missing += (uint64_t)(index - p->next);
  if (index < p->next) repeated++;
  p->next = index + 1;
  if (!window_open) return;
  window_tokens++;
  histogram_add(&token_latency, received_ns - sent_ns);
  if (!arrived_ns) return;
  histogram_add(&request_latency, arrived_ns - p->asked_ns);
  histogram_add(&first_latency, arrived_ns - p->asked_ns + received_ns - sent_ns);
}

/* The text of one event: tokens, each of them " 12:81234567890123". */
static void on_text(place *p, const char *s) {
  while (*s == ' ') {
    char *end;
    uint64_t arrived_ns = 0, index = strtoull(s, &end, 10);
    if (index == 0 && *end == ':') arrived_ns = strtoull(end + 1, &end, 10);
    uint64_t sent_ns = *end == ':' ? strtoull(end + 1, &end, 10) : 0;
    if (!sent_ns || sent_ns > received_ns) break;
    on_token(p, (int)index, arrived_ns, sent_ns);
    s = end;
  }
  if (*s != '"') break_off(p, "no token", s);
}

/* Where the value of a member begins in a JSON text, or NULL. */
static const char *member(const char *json, size_t n, const char *name) {
  const char *found = memmem(json, n, name, strlen(name));
  if (!found) return NULL;
  found += strlen(name);
  return *found == ' ' ? found + 1 : found;
}

static void on_data(place *p, const char *json, size_t n) {
  const char *value;
  if (n == 6 && memcmp(json, "[DONE]", 6) == 0) {
    p->is_done = true;
    return;
  }
  if (memmem(json, n, "\"error\":", 8)) break_off(p, "error", json);
  if (window_open) window_events++;
  if ((value = member(json, n, "\"content\":")) && *value == '"') on_text(p, value + 1);
  if ((value = member(json, n, "\"finish_reason\":")) && strncmp(value, "\"stop\"", 6) == 0)
    p->has_reason = true;
  if ((value = member(json, n, "\"completion_tokens\":")) && atoi(value) == options.tokens)
    p->has_usage = true;
}

/* A whole line, terminated. */
static void on_line(place *p, const char *line, size_t n) {
  if (n >= 6 && memcmp(line, "data: ", 6) == 0) on_data(p, line + 6, n - 6);
}

static void take_body(void *context, const char *body, size_t n) {
  place *p = context;
  if (window_open) window_bytes += n;
  while (n) {
    const char *newline = memchr(body, '\n', n);
    size_t part = newline ? (size_t)(newline - body) : n;
    if (p->line_len + part >= LINE_BYTES) {
      break_off(p, "a line too long", body);
      return;
    }
    memcpy(p->line + p->line_len, body, part);
    p->line_len += (uint32_t)part;
    if (!newline) return;
    if (p->line_len && p->line[p->line_len - 1] == '\r') p->line_len--;
    p->line[p->line_len] = 0;
    on_line(p, p->line, p->line_len);
    p->line_len = 0;
    body = newline + 1;
    n -= part + 1;
  }
}

/* --- one answer after the other ----------------------------------------------------------------- */

static void watch(place *p, uint32_t events, int operation) {
  struct epoll_event e = {.events = events, .data.ptr = p};
  epoll_ctl(epoll_fd, operation, p->fd, &e);
}

static void begin(place *p) {
  p->fd = open_socket(options.port, 0, 1);
  if (p->fd < 0) fail("connect", strerror(errno));
  p->state = CONNECTING;
  p->next = 0;
  p->has_reason = p->has_usage = p->is_done = p->is_broken = false;
  p->line_len = 0;
  begin_response(&p->response);
  watch(p, EPOLLOUT, EPOLL_CTL_ADD);
}

static void finish(place *p, uint64_t again_ns) {
  close(p->fd);
  p->state = FREE;
  p->begin_ns = again_ns;
  if (again_ns <= received_ns) begin(p);
}

static void lose(place *p, const char *what, const char *detail) {
  note_error(what, detail);
  failed++;
  finish(p, received_ns + RETRY_NS);
}

static void ask(place *p) {
  int error = socket_error(p->fd);
  if (error) {
    lose(p, "connect", strerror(error));
    return;
  }
  p->asked_ns = now_ns();
  if (send(p->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len) {
    lose(p, "send", strerror(errno));
    return;
  }
  p->state = ANSWERED;
  watch(p, EPOLLIN, EPOLL_CTL_MOD);
}

static void on_whole_answer(place *p) {
  answers++;
  if (window_open) window_answers++;
  if (p->next < options.tokens) missing += (uint64_t)(options.tokens - p->next);
  if (!p->has_reason || !p->has_usage || !p->is_done) break_off(p, "the end is not whole", p->line);
  if (p->is_broken) broken++;
  finish(p, received_ns);
}

static void on_readable(place *p) {
  static char buffer[READ_BYTES];
  ssize_t n = recv(p->fd, buffer, sizeof buffer, 0);
  received_ns = now_ns();
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    lose(p, "cut off", n ? strerror(errno) : "the server hung up");
    return;
  }
  if (window_open) window_reads++;
  take_response(&p->response, buffer, (size_t)n, take_body, p);
  if (p->response.broken || (p->response.has_head && p->response.status != 200))
    lose(p, "no answer", p->response.head);
  else if (p->response.whole)
    on_whole_answer(p);
}

/* --- the loop ----------------------------------------------------------------------------------- */

static void begin_due(void) {
  static uint64_t looked_ns;
  uint64_t now = now_ns();
  if (now - looked_ns < TURN_MS * 1000000ull) return;
  looked_ns = received_ns = now;
  for (int i = 0; i < options.connections; i++)
    if (places[i].state == FREE && places[i].begin_ns <= now) begin(&places[i]);
}

static void turn(void) {
  static struct epoll_event events[512];
  int n = epoll_wait(epoll_fd, events, 512, TURN_MS);
  for (int i = 0; i < n; i++) {
    place *p = events[i].data.ptr;
    received_ns = now_ns();
    if (p->state == CONNECTING)
      ask(p);
    else
      on_readable(p);
  }
  begin_due();
}

/* What the provider uses is not charged to the rest of the machine. */
static instant look_around(double *upstream_cpu) {
  instant now = look();
  *upstream_cpu = options.upstream_pid ? cpu_seconds_of(options.upstream_pid) : 0;
  now.machine -= *upstream_cpu;
  return now;
}

static void make_request(void) {
  char body[2048];
  int length = snprintf(
      body, sizeof body,
      "{\"model\":\"bench-%d-%g\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
      "\"temperature\":0.7,\"messages\":[{\"role\":\"system\",\"content\":\"You are the assistant "
      "of a shop for garden tools. Answer in whole sentences, in the language of the question, and "
      "say so when you do not know. Never name a price that is not in the catalogue. When somebody "
      "asks for advice, ask back for the size of the garden, the kind of soil, and what is to grow "
      "there, before you recommend anything; then recommend at most three things.\"},"
      "{\"role\":\"user\",\"content\":\"My lawn is full of moss, and the soil underneath is heavy "
      "clay. What do I need to get rid of it, in which order do I use it, and when in the year is "
      "the right time to begin?\"}]}",
      options.tokens, options.rate);
  request_len = (size_t)snprintf(
      request, sizeof request,
      "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer sk-bench\r\n"
      "Accept: text/event-stream\r\nContent-Type: application/json\r\nUser-Agent: "
      "gateway-load\r\nContent-Length: %d\r\n\r\n%s",
      options.path, options.port, length, body);
}

static const struct option option_table[] = {
    {"port", 1, 0, 'p'},    {"path", 1, 0, 'P'}, {"connections", 1, 0, 'n'}, {"warm", 1, 0, 'w'},
    {"seconds", 1, 0, 's'}, {"rate", 1, 0, 'r'}, {"tokens", 1, 0, 't'},      {"pids", 1, 0, 'i'},
    {"upstream-pid", 1, 0, 'u'}, {0, 0, 0, 0},
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
      case 't': options.tokens = atoi(optarg); break;
      case 'i': read_pids(optarg); break;
      case 'u': options.upstream_pid = atoi(optarg); break;
      default: exit(1);
    }
  }
  if (options.connections < 1 || options.tokens < 1 || !(options.rate > 0))
    fail("options", "counts are at least 1");
}

int main(int argc, char **argv) {
  double upstream_from, upstream_to;
  read_options(argc, argv);
  raise_descriptor_limit();
  make_request();
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  places = calloc((size_t)options.connections, sizeof *places);
  double rss_before = servers_rss_mib(), answer_s = options.tokens / options.rate;
  uint64_t begun = now_ns();
  for (int i = 0; i < options.connections; i++)
    places[i].begin_ns = begun + (uint64_t)(answer_s * 1e9 * i / options.connections);
  while (seconds_since(begun) < answer_s + options.warm) turn();
  instant from = look_around(&upstream_from);
  window_open = true;
  while (seconds_since(from.at_ns) < options.seconds) turn();
  instant to = look_around(&upstream_to);
  double seconds = (double)(to.at_ns - from.at_ns) / 1e9;
  printf("{\"connections\":%d,\"answers\":%lu,\"broken\":%lu,\"failed\":%lu,\"missing\":%lu,"
         "\"repeated\":%lu,\"answers_s\":%.2f,",
         options.connections, answers, broken, failed, missing, repeated,
         (double)window_answers / seconds);
  print_between(&from, &to, window_tokens);
  print_latency(&token_latency);
  printf("\"first_p50_ms\":%.3f,\"first_p99_ms\":%.3f,\"first_samples\":%lu,",
         histogram_quantile(&first_latency, 0.50) / 1e6,
         histogram_quantile(&first_latency, 0.99) / 1e6, first_latency.count);
  printf("\"request_p50_ms\":%.3f,\"request_p99_ms\":%.3f,",
         histogram_quantile(&request_latency, 0.50) / 1e6,
         histogram_quantile(&request_latency, 0.99) / 1e6);
  printf("\"delivered\":%.4f,\"tokens_per_read\":%.3f,\"tokens_per_event\":%.3f,"
         "\"body_bytes_per_event\":%.1f,\"upstream_cpu_pct\":%.1f,",
         (double)window_tokens / seconds / (options.connections * options.rate),
         (double)window_tokens / (double)(window_reads ? window_reads : 1),
         (double)window_tokens / (double)(window_events ? window_events : 1),
         (double)window_bytes / (double)(window_tokens ? window_tokens : 1),
         (upstream_to - upstream_from) / seconds * 100);
  printf("\"rss_before_mib\":%.2f,\"rss_end_mib\":%.2f,\"error\":\"%s\"}\n", rss_before,
         servers_rss_mib(), first_error);
  return 0;
}
