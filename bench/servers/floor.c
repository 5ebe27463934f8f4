/* floor: the least a server can do for this workload, in C with epoll.  It has no routing, no
 * resuming, no metrics and no bound on its log: it is the kernel's own cost plus a loop, and the
 * other servers are compared with it.
 *
 * A subscriber that keeps up is sent each event with one send(); BENCH_BATCH=1 sends everything
 * that one tick has due with one send() instead.  A subscriber whose socket is full waits for
 * EPOLLOUT and then catches up from its own place in the log.  GET /replay begins at the first
 * event, everything else at the newest.
 *
 * Environment: BENCH_RATE (events/s), BENCH_PAYLOAD_BYTES, BENCH_TOTAL (0: no end),
 * BENCH_PREFILL (events in the log before the first reader), BENCH_BATCH, BENCH_STREAMS (not 0:
 * every connection is a stream of its own, with its own publisher, BENCH_RATE events/s each).
 * SIGUSR2 starts the publisher.  Readiness: one JSON line with port and pid. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LOG_BYTES (8ull << 30)  /* address space only; pages come as they are written */
#define WRITE_BYTES (256 * 1024)
#define CATCH_UP_PER_TICK 50    /* the same rule in every server of the benchmark */
#define MAX_SUBSCRIBERS 65536

typedef struct {
  int fd, place;          /* place in `subscribers`, -1 before the request has come */
  bool level;             /* false: waiting for EPOLLOUT */
  uint64_t cursor;
  uint64_t own_next_ns, own_published; /* with BENCH_STREAMS: its own publisher */
} subscriber;

static subscriber *subscribers[MAX_SUBSCRIBERS];
static int subscriber_count, epoll_fd;
static char *log_bytes;
static uint64_t log_end, published, begun_ns;
static double rate;
static uint64_t total;
static size_t payload_bytes;
static bool batch, own_streams;
static char accepting, ticking, signalled; /* only their addresses matter: epoll's tags */

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static double number(const char *name, double otherwise) {
  const char *value = getenv(name);
  return value ? atof(value) : otherwise;
}

static void watch(int fd, uint32_t events, void *tag, int operation) {
  struct epoll_event e = {.events = events, .data.ptr = tag};
  epoll_ctl(epoll_fd, operation, fd, &e);
}

/* One event in chunked coding; returns its length. */
static size_t encode(char *out, uint64_t index) {
  char *p = out;
  size_t event_bytes = strlen("id: 0123456789\ndata: ") + payload_bytes + 2;
  p += sprintf(p, "%zx\r\nid: %010lu\ndata: ", event_bytes, index + 1);
  char *payload = p;
  p += sprintf(p, "{\"t\":%lu,\"i\":%lu,\"d\":\"", now_ns(), index);
  memset(p, 'x', payload_bytes - (size_t)(p - payload));
  memcpy(payload + payload_bytes - 2, "\"}\n\n\r\n", 6);
  return (size_t)(payload + payload_bytes + 4 - out);
}

static void append(void) {
  log_end += encode(log_bytes + log_end, published++);
}

static void drop(subscriber *s) {
  close(s->fd);
  if (s->place >= 0) {
    subscribers[s->place] = subscribers[--subscriber_count];
    subscribers[s->place]->place = s->place;
  }
  free(s);
}

static void push(subscriber *s) {
  while (s->cursor < log_end) {
    uint64_t left = log_end - s->cursor;
    size_t part = left < WRITE_BYTES ? left : WRITE_BYTES;
    ssize_t n = send(s->fd, log_bytes + s->cursor, part, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return; /* a reset: the reader's EPOLLIN says so and drops it */
    if (n > 0) s->cursor += (uint64_t)n;
    if (n < (ssize_t)part) {
      if (s->level) watch(s->fd, EPOLLIN | EPOLLOUT, s, EPOLL_CTL_MOD);
      s->level = false;
      return;
    }
  }
  if (!s->level) watch(s->fd, EPOLLIN, s, EPOLL_CTL_MOD);
  s->level = true;
}

static void push_all(void) {
  for (int i = 0; i < subscriber_count; i++)
    if (subscribers[i]->level) push(subscribers[i]);
}

/* A stream for each connection: no log, and nobody who could fall behind. */
static void publish_own(void) {
  char event[512];
  uint64_t now = now_ns(), period = (uint64_t)(1e9 / rate);
  for (int i = 0; i < subscriber_count; i++) {
    subscriber *s = subscribers[i];
    /* The first time is spread over one period, as the publishers of other servers are. */
    if (!s->own_next_ns) s->own_next_ns = now + period * (uint64_t)i / (uint64_t)subscriber_count;
    if (now < s->own_next_ns) continue;
    size_t n = encode(event, s->own_published++);
    if (send(s->fd, event, n, MSG_NOSIGNAL) < 0) continue;
    s->own_next_ns += period;
  }
}

static void tick(int timer) {
  uint64_t expirations;
  if (read(timer, &expirations, sizeof expirations) < 0) return;
  if (own_streams) {
    publish_own();
    return;
  }
  uint64_t due = (uint64_t)((double)(now_ns() - begun_ns) / 1e9 * rate + 0.5);
  if (due > published + CATCH_UP_PER_TICK) due = published + CATCH_UP_PER_TICK;
  if (total && due > total) due = total;
  bool any = published < due;
  while (published < due) {
    append();
    if (!batch) push_all();
  }
  if (any && batch) push_all();
}

static void start_publisher(int timer) {
  double period = 1 / rate > 0.001 && !own_streams ? 1 / rate : 0.001;
  struct timespec every = {.tv_sec = (time_t)period,
                           .tv_nsec = (long)((period - (double)(time_t)period) * 1e9)};
  struct itimerspec spec = {.it_interval = every, .it_value = every};
  begun_ns = now_ns();
  timerfd_settime(timer, 0, &spec, NULL);
}

static void accept_all(int listener) {
  int fd, one = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    subscriber *s = calloc(1, sizeof *s);
    s->fd = fd;
    s->place = -1;
    watch(fd, EPOLLIN, s, EPOLL_CTL_ADD);
  }
}

static void on_request(subscriber *s) {
  static const char head[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
      "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
  char request[4096];
  ssize_t n = recv(s->fd, request, sizeof request - 1, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0 || subscriber_count == MAX_SUBSCRIBERS) {
    drop(s);
    return;
  }
  if (s->place >= 0) return; /* nothing more is expected from a subscriber */
  request[n] = 0;
  if (send(s->fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) {
    drop(s);
    return;
  }
  s->cursor = strncmp(request, "GET /replay ", 12) == 0 ? 0 : log_end;
  s->level = true;
  s->place = subscriber_count;
  subscribers[subscriber_count++] = s;
  push(s);
}

static int listen_on_loopback(int *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (bind(fd, (void *)&a, sizeof a) != 0 || listen(fd, 4096) != 0) {
    perror("listen");
    exit(1);
  }
  getsockname(fd, (void *)&a, &size);
  *port = ntohs(a.sin_port);
  return fd;
}

static int publisher_signal(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, NULL);
  return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void read_environment(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  rate = number("BENCH_RATE", 30);
  total = (uint64_t)number("BENCH_TOTAL", 0);
  payload_bytes = (size_t)number("BENCH_PAYLOAD_BYTES", 80);
  batch = number("BENCH_BATCH", 0) != 0;
  own_streams = number("BENCH_STREAMS", 0) != 0;
  log_bytes = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

int main(void) {
  int port;
  read_environment();
  for (uint64_t n = (uint64_t)number("BENCH_PREFILL", 0); n > 0; n--) append();
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  int listener = listen_on_loopback(&port), starter = publisher_signal();
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  watch(listener, EPOLLIN, &accepting, EPOLL_CTL_ADD);
  watch(starter, EPOLLIN, &signalled, EPOLL_CTL_ADD);
  watch(timer, EPOLLIN, &ticking, EPOLL_CTL_ADD);
  printf("{\"port\":%d,\"pid\":%d}\n", port, (int)getpid());
  fflush(stdout);
  for (;;) {
    struct epoll_event events[512];
    int n = epoll_wait(epoll_fd, events, 512, -1);
    for (int i = 0; i < n; i++) {
      void *tag = events[i].data.ptr;
      if (tag == &accepting) {
        accept_all(listener);
      } else if (tag == &ticking) {
        tick(timer);
      } else if (tag == &signalled) {
        struct signalfd_siginfo info;
        if (read(starter, &info, sizeof info) > 0) start_publisher(timer);
      } else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        on_request(tag);
      } else {
        push(tag);
      }
    }
  }
}
