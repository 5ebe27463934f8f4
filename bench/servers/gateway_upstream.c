/* gateway_upstream: a provider that speaks OpenAI's chat completions, for measuring what stands
 * between it and a client.  One thread, epoll, libc only.
 *
 * The model's name says what is answered: `bench-TOKENS-RATE` is so many tokens, so many a second,
 * the first after one interval.  Nothing is thought of, but everything is as a provider has it:
 * chunked coding, one chunk and one send() an event, some 280 bytes each, the role before the first
 * token, and after the last the reason, the usage and [DONE].
 *
 * A token's text is its number and the time at which it was sent (CLOCK_MONOTONIC, ns):
 * " 12:81234567890123".  The first one has two times, " 0:ARRIVED:SENT": when the request was whole
 * here, and when the token left.  So whoever sent the request knows what the way here and the way
 * back took, and nothing that happens here is in it.  A token that does not fit into the socket waits, and
 * is stamped when it leaves: a reader that does not keep up slows its answer down.
 *
 * Readiness: one JSON line with port and pid. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_BYTES (64 * 1024)
#define WRITE_BYTES 4096 /* one event, or the head and two, or the end */
#define CREATED 1763732400
#define PROMPT_TOKENS 183

typedef struct {
  int fd;
  char *request; /* as far as it has come */
  size_t request_len;
  bool answering, wants_room;
  uint64_t arrived_ns, interval_ns;
  int next, total;
  char model[64], id[40];
  char unsent[WRITE_BYTES]; /* what did not fit into the socket */
  size_t unsent_len;
  int place; /* in the heap, or -1 */
  uint64_t due_ns;
} connection;

static int epoll_fd, timer_fd, listener;
static uint64_t armed_ns, answers;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(2);
}

/* --- who is due next: a binary heap ------------------------------------------------------------- */

static connection **heap;
static int heap_size, heap_room;

static void put(int place, connection *c) {
  heap[place] = c;
  c->place = place;
}

static void sift_up(int place) {
  connection *c = heap[place];
  while (place > 0 && heap[(place - 1) / 2]->due_ns > c->due_ns) {
    put(place, heap[(place - 1) / 2]);
    place = (place - 1) / 2;
  }
  put(place, c);
}

static void sift_down(int place) {
  connection *c = heap[place];
  for (int child; (child = 2 * place + 1) < heap_size; place = child) {
    if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
    if (heap[child]->due_ns >= c->due_ns) break;
    put(place, heap[child]);
  }
  put(place, c);
}

static void expect(connection *c, uint64_t due_ns) {
  c->due_ns = due_ns;
  if (c->place >= 0) { /* it only ever gets later */
    sift_down(c->place);
    return;
  }
  if (heap_size == heap_room) {
    heap_room = heap_room ? 2 * heap_room : 1024;
    heap = realloc(heap, (size_t)heap_room * sizeof *heap);
  }
  put(heap_size++, c);
  sift_up(c->place);
}

static void forget(connection *c) {
  int place = c->place;
  c->place = -1;
  if (place < 0) return;
  connection *last = heap[--heap_size];
  if (last == c) return;
  put(place, last);
  sift_up(place);
  sift_down(last->place);
}

/* --- writing ------------------------------------------------------------------------------------ */

static void watch(connection *c, int operation) {
  struct epoll_event e = {.events = EPOLLIN | (c->wants_room ? EPOLLOUT : 0u), .data.ptr = c};
  epoll_ctl(epoll_fd, operation, c->fd, &e);
}

static void hang_up(connection *c) {
  forget(c);
  close(c->fd);
  free(c->request);
  free(c);
}

/* Sends, and keeps what does not fit; false when the other side has gone. */
static bool transmit(connection *c, const char *p, size_t n) {
  ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return false;
  size_t done = sent > 0 ? (size_t)sent : 0;
  memmove(c->unsent, p + done, n - done);
  c->unsent_len = n - done;
  bool wants_room = c->unsent_len > 0;
  if (wants_room != c->wants_room) {
    c->wants_room = wants_room;
    watch(c, EPOLL_CTL_MOD);
  }
  return true;
}

static char *decimal(char *out, uint64_t value) {
  char digits[20];
  int n = 0;
  do digits[n++] = (char)('0' + value % 10);
  while (value /= 10);
  while (n) *out++ = digits[--n];
  return out;
}

static char *text(char *out, const char *s) {
  size_t n = strlen(s);
  memcpy(out, s, n);
  return out + n;
}

/* One event as one chunk: a line with its length, which always has three digits, then the event. */
static char *begin_event(const connection *c, char *out, char **size_at) {
  *size_at = out;
  out = text(out + 5, "data: {\"id\":\"");
  out = text(out, c->id);
  out = text(out, "\",\"object\":\"chat.completion.chunk\",\"created\":");
  out = decimal(out, CREATED);
  out = text(out, ",\"model\":\"");
  out = text(out, c->model);
  return text(out,
              "\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_9e7a2b41c0\",\"choices\":[");
}

static char *end_chunk(char *out, char *size_at) {
  static const char hex[] = "0123456789abcdef";
  size_t n = (size_t)(out - size_at) - 5;
  memcpy(size_at, (char[]){hex[n >> 8 & 15], hex[n >> 4 & 15], hex[n & 15], '\r', '\n'}, 5);
  return text(out, "\r\n");
}

static char *end_event(char *out, char *size_at) {
  return end_chunk(text(out, "}\n\n"), size_at);
}

static char *write_role(const connection *c, char *out) {
  char *size_at;
  out = begin_event(c, out, &size_at);
  out = text(out,
             "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
             "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null");
  return end_event(out, size_at);
}

static char *write_token(const connection *c, char *out) {
  char *size_at;
  out = begin_event(c, out, &size_at);
  out = text(out, "{\"index\":0,\"delta\":{\"content\":\" ");
  out = decimal(out, (uint64_t)c->next);
  if (c->next == 0) {
    *out++ = ':';
    out = decimal(out, c->arrived_ns);
  }
  *out++ = ':';
  out = decimal(out, now_ns());
  out = text(out, "\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null");
  return end_event(out, size_at);
}

static char *write_end(const connection *c, char *out) {
  char *size_at;
  out = begin_event(c, out, &size_at);
  out = text(out,
             "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null");
  out = end_event(out, size_at);
  out = begin_event(c, out, &size_at);
  out = text(out, "],\"usage\":{\"prompt_tokens\":");
  out = decimal(out, PROMPT_TOKENS);
  out = text(out, ",\"completion_tokens\":");
  out = decimal(out, (uint64_t)c->total);
  out = text(out, ",\"total_tokens\":");
  out = decimal(out, (uint64_t)c->total + PROMPT_TOKENS);
  out = text(out,
             ",\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
             "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,"
             "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}");
  out = end_event(out, size_at);
  size_at = out;
  out = end_chunk(text(out + 5, "data: [DONE]\n\n"), size_at);
  return text(out, "0\r\n\r\n");
}

static const char HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-cache\r\nOpenai-Processing-Ms: 20\r\nOpenai-Version: 2020-10-01\r\n"
    "X-Ratelimit-Remaining-Requests: 9999\r\nX-Request-Id: req_bench\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

/* Sends every token that is due, each by itself; false when the other side has gone. */
static bool send_due(connection *c) {
  char buffer[WRITE_BYTES];
  while (c->answering && !c->unsent_len && c->due_ns <= now_ns()) {
    char *out = buffer;
    if (c->next == 0) out = write_role(c, text(out, HEAD));
    out = write_token(c, out);
    c->next++;
    if (c->next == c->total) {
      out = write_end(c, out);
      c->answering = false;
      forget(c);
    } else {
      expect(c, c->due_ns + c->interval_ns);
    }
    if (!transmit(c, buffer, (size_t)(out - buffer))) return false;
  }
  /* Whoever waits for room is woken by it, not by the clock. */
  if (c->unsent_len) forget(c);
  return true;
}

/* --- requests ----------------------------------------------------------------------------------- */

static const char *const REFUSAL =
    "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 62\r\n\r\n"
    "{\"error\":{\"message\":\"no such model\",\"code\":\"model_not_found\"}}";

/* Begins the answer that the body of a whole request asks for; false when it asks for none. */
static bool begin_answer(connection *c, const char *body) {
  double rate;
  const char *model = strstr(body, "\"bench-");
  if (!model || sscanf(model, "\"bench-%d-%lf\"", &c->total, &rate) != 2 || c->total < 1 ||
      !(rate > 0) || sscanf(model, "\"%63[^\"]\"", c->model) != 1)
    return false;
  snprintf(c->id, sizeof c->id, "chatcmpl-bench%024lu", ++answers);
  c->answering = true;
  c->next = 0;
  c->interval_ns = (uint64_t)(1e9 / rate);
  expect(c, c->arrived_ns + c->interval_ns);
  return true;
}

/* Takes a request out of what has come, if it is whole; false when the other side has gone. */
static bool take_request(connection *c) {
  c->request[c->request_len] = 0;
  char *body = strstr(c->request, "\r\n\r\n");
  if (!body) return true;
  body += 4;
  const char *header = strcasestr(c->request, "\r\ncontent-length:");
  size_t length = header && header < body ? strtoull(header + 17, NULL, 10) : 0;
  size_t whole = (size_t)(body - c->request) + length;
  if (c->request_len < whole) return whole < REQUEST_BYTES;
  c->arrived_ns = now_ns();
  c->request_len = 0; /* never a second request before the answer to the first */
  return begin_answer(c, body) || transmit(c, REFUSAL, strlen(REFUSAL));
}

static bool receive(connection *c) {
  char ignored[256];
  bool listens = !c->answering && c->request_len < REQUEST_BYTES - 1;
  ssize_t n = listens ? recv(c->fd, c->request + c->request_len,
                             REQUEST_BYTES - 1 - c->request_len, 0)
                      : recv(c->fd, ignored, sizeof ignored, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (n <= 0) return false;
  if (!listens) return true;
  c->request_len += (size_t)n;
  return take_request(c);
}

static bool flush(connection *c) {
  if (!transmit(c, c->unsent, c->unsent_len)) return false;
  if (c->unsent_len || !c->answering) return true;
  expect(c, c->due_ns);
  return send_due(c);
}

static void take_connections(void) {
  int fd, one = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    c->request = malloc(REQUEST_BYTES);
    c->place = -1;
    watch(c, EPOLL_CTL_ADD);
  }
}

/* --- the loop ----------------------------------------------------------------------------------- */

static void arm(void) {
  if (!heap_size || heap[0]->due_ns == armed_ns) return;
  armed_ns = heap[0]->due_ns;
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(armed_ns / 1000000000ull),
                                       .tv_nsec = (long)(armed_ns % 1000000000ull)}};
  timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void turn(void) {
  static struct epoll_event events[512];
  uint64_t expirations;
  int n = epoll_wait(epoll_fd, events, 512, -1);
  for (int i = 0; i < n; i++) {
    connection *c = events[i].data.ptr;
    if (c == NULL) {
      take_connections();
    } else if ((void *)c == (void *)&timer_fd) {
      if (read(timer_fd, &expirations, sizeof expirations) > 0) armed_ns = 0;
    } else {
      bool here = !(events[i].events & EPOLLOUT) || flush(c);
      if (here && events[i].events & ~(uint32_t)EPOLLOUT) here = receive(c);
      if (!here) hang_up(c);
    }
  }
  while (heap_size && heap[0]->due_ns <= now_ns()) {
    connection *c = heap[0];
    if (!send_due(c)) hang_up(c);
  }
  arm();
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t size = sizeof address;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  signal(SIGPIPE, SIG_IGN);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
  getsockname(listener, (void *)&address, &size);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL};
  struct epoll_event ticking = {.events = EPOLLIN, .data.ptr = &timer_fd};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &accepting);
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &ticking);
  printf("{\"port\":%d,\"pid\":%d}\n", ntohs(address.sin_port), (int)getpid());
  fflush(stdout);
  for (;;) turn();
}
