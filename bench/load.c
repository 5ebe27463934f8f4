/* load: a load client for Server-Sent Events.  One thread, epoll, libc only.
 *
 * It opens many streaming GETs, counts events, samples their latency, checks that no event is
 * missing or repeated (load_decode.h), and reads processor time and memory of the server's
 * processes at the same instants (load_stats.h), so that the processor time it reports is per
 * *delivered* event.  One JSON object goes to standard output.
 *
 * Order of a run: connect everybody; tell the server's publisher to begin (SIGUSR2) or begin to
 * publish by POST; warm up; measure; with --stuck let the readers that never read begin to read,
 * and see where they are.  With --until-events the window opens before the first connection and
 * closes when every reader that reads has that many events.
 *
 * On loopback the kernel does the receiver's half of TCP inside the sender's send(), so the server
 * is charged for it; equally for every server. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>

#include "load_decode.h"

#define READ_BYTES (256 * 1024)
#define IN_FLIGHT 256          /* connections being opened at one time */
#define POSTS_PER_TICK 50      /* the publishers inside the servers have the same bound */
#define POST_BUFFER (1 << 20)
#define STUCK_PATIENCE_S 30.0  /* for a stuck reader to come level once it reads again */
#define STUCK_SILENCE_S 3.0    /* and no longer than this without a byte */

enum { CONNECTING, HEAD, BODY, DEAD };

typedef struct {
  int fd, state;
  bool stuck;
  decoder decoder;
} connection;

static struct {
  const char *path, *post_path;
  int port, connections, sources, streams, stuck, signal_pid, post_bytes;
  double warm, seconds, post_rate, connect_timeout;
  uint64_t until_events;
} options = {.path = "/", .connections = 1, .sources = 1, .post_bytes = 80,
             .warm = 1, .seconds = 4, .connect_timeout = 60};

static connection *connections;
static int epoll_fd;
static char *read_buffer;
static int opened, in_flight, ready, failed, closed, finished;
static void watch(connection *c, uint32_t events, int operation) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  epoll_ctl(epoll_fd, operation, c->fd, &e);
}

static void drop(connection *c) {
  if (c->state == DEAD) return;
  if (c->state == BODY) {
    closed++;
  } else {
    in_flight--;
    failed++;
  }
  c->state = DEAD;
  close(c->fd);
}

/* --- opening ------------------------------------------------------------------------------- */

static void begin_connection(connection *c, int number) {
  c->decoder.last_index = -1;
  c->stuck = number < options.stuck;
  c->state = CONNECTING;
  c->fd = open_socket(options.port, number, options.sources);
  in_flight++;
  if (c->fd < 0) {
    note_error("connect", strerror(errno));
    drop(c);
    return;
  }
  watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

/* With --streams each connection reads a stream of its own: its number is appended to the path. */
static void write_target(char *out, size_t size, const char *path, uint64_t number) {
  if (options.streams)
    snprintf(out, size, "%s/%lu", path, number % (uint64_t)options.streams);
  else
    snprintf(out, size, "%s", path);
}

static void send_request(connection *c) {
  char request[1024], target[256];
  int error = socket_error(c->fd);
  if (error) {
    note_error("connect", strerror(error));
    drop(c);
    return;
  }
  write_target(target, sizeof target, options.path, (uint64_t)(c - connections));
  int n = snprintf(request, sizeof request,
                   "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n"
                   "User-Agent: bench-load\r\nCache-Control: no-cache\r\n\r\n",
                   target, options.port);
  if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
    note_error("send", strerror(errno));
    drop(c);
    return;
  }
  c->state = HEAD;
  watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

/* The head is collected in the decoder's carry, which is free until the body begins. */
static void on_head_bytes(connection *c, const char *p, size_t n, uint64_t received_ns) {
  decoder *d = &c->decoder;
  size_t before = d->carry_len;
  carry_over(d, p, n);
  char *end = strstr(d->carry, "\r\n\r\n");
  if (!end) {
    if (d->carry_len == carry_bytes - 1) drop(c);
    return;
  }
  *end = 0;
  if (strncmp(d->carry, "HTTP/1.1 200", 12) != 0) {
    note_error("status", d->carry);
    drop(c);
    return;
  }
  d->chunked = strcasestr(d->carry, "transfer-encoding: chunked") != NULL;
  size_t used = (size_t)(end + 4 - d->carry) - before;
  free(d->carry);
  d->carry = NULL;
  d->carry_len = 0;
  d->carrying = false;
  c->state = BODY;
  in_flight--;
  ready++;
  if (c->stuck) watch(c, 0, EPOLL_CTL_MOD);
  if (n > used) decode(d, p + used, n - used, received_ns);
}

/* --- the publisher for servers that have none inside: a POST per message, one connection ----- */

static struct {
  int fd;
  uint64_t begun_ns, sent;
  char *buffer;
  size_t pending;
} post = {.fd = -1};

static void post_open(void) {
  int one = 1;
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  post.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(post.fd, (void *)&server, sizeof server) != 0) {
    perror("publisher: connect");
    exit(2);
  }
  setsockopt(post.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(post.fd, F_SETFL, O_NONBLOCK);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, post.fd, &e);
  post.buffer = malloc(POST_BUFFER);
  post.begun_ns = now_ns();
}

static size_t post_message(char *out) {
  char target[256];
  uint64_t index = options.streams ? post.sent / (uint64_t)options.streams : post.sent;
  write_target(target, sizeof target, options.post_path, post.sent);
  size_t n = (size_t)sprintf(out,
                             "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
                             "application/json\r\nContent-Length: %d\r\n\r\n",
                             target, options.post_bytes);
  char *payload = out + n;
  int used = sprintf(payload, "{\"t\":%lu,\"i\":%lu,\"d\":\"", now_ns(), index);
  memset(payload + used, 'x', (size_t)(options.post_bytes - 2 - used));
  memcpy(payload + options.post_bytes - 2, "\"}", 2);
  return n + (size_t)options.post_bytes;
}

static void post_due(void) {
  uint64_t due = (uint64_t)(seconds_since(post.begun_ns) * options.post_rate + 0.5);
  if (due > post.sent + POSTS_PER_TICK) due = post.sent + POSTS_PER_TICK;
  while (post.sent < due && post.pending + (size_t)options.post_bytes + 512 < POST_BUFFER) {
    post.pending += post_message(post.buffer + post.pending);
    post.sent++;
  }
  if (!post.pending) return;
  ssize_t n = send(post.fd, post.buffer, post.pending, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n > 0) {
    post.pending -= (size_t)n;
    memmove(post.buffer, post.buffer + n, post.pending);
  } else if (n < 0 && errno != EAGAIN) {
    perror("publisher: send");
    exit(2);
  }
}

/* --- the loop --------------------------------------------------------------------------------- */

static void on_readable(connection *c) {
  ssize_t n = recv(c->fd, read_buffer, READ_BYTES, 0);
  uint64_t received_ns = now_ns();
  if (n <= 0) {
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) drop(c);
    return;
  }
  totals.total_bytes += (uint64_t)n;
  if (totals.open) {
    totals.wire_bytes += (uint64_t)n;
    totals.reads++;
  }
  uint64_t before = c->decoder.events;
  if (c->state == HEAD)
    on_head_bytes(c, read_buffer, (size_t)n, received_ns);
  else
    decode(&c->decoder, read_buffer, (size_t)n, received_ns);
  if (c->decoder.chunks.broken) {
    note_error("body", "not a chunked body");
    drop(c);
  }
  uint64_t goal = options.until_events;
  if (goal && !c->stuck && before < goal && c->decoder.events >= goal) finished++;
}

static void turn(void) {
  static struct epoll_event events[1024];
  if (post.fd >= 0) post_due();
  int n = epoll_wait(epoll_fd, events, 1024, post.fd >= 0 ? 1 : 10);
  for (int i = 0; i < n; i++) {
    connection *c = events[i].data.ptr;
    if (!c) { /* answers to our POSTs */
      while (recv(post.fd, read_buffer, READ_BYTES, MSG_DONTWAIT) > 0) {
      }
    } else if (c->state == CONNECTING) {
      send_request(c);
    } else if (c->state != DEAD) {
      on_readable(c);
    }
  }
}

static void connect_all(void) {
  uint64_t begun = now_ns();
  while (opened < options.connections || in_flight) {
    while (opened < options.connections && in_flight < IN_FLIGHT) {
      begin_connection(&connections[opened], opened);
      opened++;
    }
    turn();
    if (seconds_since(begun) > options.connect_timeout) {
      note_error("connect", "not everybody was connected in time");
      return;
    }
  }
}

/* Lets the stuck readers read.  True when each has come level with the readers that always read;
 * what a reader still lacks when nothing comes any more was lost without a word. */
static bool release_stuck(void) {
  uint64_t begun = now_ns(), last_byte = begun, seen = totals.total_bytes;
  int64_t goal = (int64_t)options.until_events - 1;
  int level = 0;
  for (int i = 0; i < options.stuck; i++) {
    if (connections[i].state == BODY) watch(&connections[i], EPOLLIN, EPOLL_CTL_MOD);
    connections[i].stuck = false;
  }
  while (level < options.stuck && seconds_since(begun) < STUCK_PATIENCE_S &&
         seconds_since(last_byte) < STUCK_SILENCE_S) {
    turn();
    if (totals.total_bytes != seen) {
      seen = totals.total_bytes;
      last_byte = now_ns();
    }
    level = 0;
    for (int i = 0; i < options.stuck; i++) level += connections[i].decoder.last_index >= goal;
  }
  for (int i = 0; i < options.stuck; i++) {
    int64_t last = connections[i].decoder.last_index;
    if (last < goal) totals.missing += (uint64_t)(goal - last);
  }
  return level == options.stuck;
}

/* --- measuring ------------------------------------------------------------------------------- */

static bool window_is_over(uint64_t begun_ns) {
  if (closed + failed >= options.connections) return true;
  if (options.until_events && finished >= options.connections - options.stuck) return true;
  return seconds_since(begun_ns) >= options.seconds;
}

static void start_publisher(void) {
  if (options.signal_pid) kill(options.signal_pid, SIGUSR2);
  if (options.post_path) post_open();
}

typedef struct {
  instant from, to;
  double connect_s, rss_before, rss_connected, rss_end;
} measurement;

static measurement measure(void) {
  measurement m = {.rss_before = servers_rss_mib()};
  uint64_t begun = now_ns();
  totals.open = options.until_events > 0;
  m.from = look();
  connect_all();
  m.connect_s = seconds_since(begun);
  m.rss_connected = servers_rss_mib();
  start_publisher();
  if (!totals.open) {
    uint64_t warm = now_ns();
    while (seconds_since(warm) < options.warm) turn();
    totals.open = true;
    m.from = look();
  }
  while (!window_is_over(m.from.at_ns)) turn();
  m.to = look();
  totals.open = false;
  m.rss_end = servers_rss_mib();
  return m;
}

static void report(const measurement *m, bool stuck_level) {
  double seconds = (double)(m->to.at_ns - m->from.at_ns) / 1e9;
  double events = totals.events ? (double)totals.events : 1;
  printf("{\"connections\":%d,\"ready\":%d,\"failed\":%d,\"closed\":%d,\"connect_s\":%.3f,",
         options.connections, ready, failed, closed, m->connect_s);
  print_between(&m->from, &m->to, totals.events);
  print_latency(&totals.latency);
  printf("\"events_per_read\":%.2f,\"body_bytes_per_event\":%.2f,\"wire_bytes_per_event\":%.2f,"
         "\"body_mb_s\":%.1f,",
         totals.reads ? (double)totals.events / (double)totals.reads : 0,
         (double)totals.body_bytes / events, (double)totals.wire_bytes / events,
         (double)totals.body_bytes / seconds / 1e6);
  printf("\"missing\":%lu,\"repeated\":%lu,\"gap_events\":%lu,\"announced_missing\":%lu,",
         totals.missing, totals.repeated, totals.gap_events, totals.announced);
  printf("\"finished\":%d,\"stuck_level\":%s,", finished, stuck_level ? "true" : "false");
  printf("\"rss_before_mib\":%.2f,\"rss_connected_mib\":%.2f,\"rss_end_mib\":%.2f,",
         m->rss_before, m->rss_connected, m->rss_end);
  printf("\"error\":\"%s\"}\n", first_error);
}

/* --- options ----------------------------------------------------------------------------------- */

static const struct option option_table[] = {
    {"port", 1, 0, 'p'},         {"path", 1, 0, 'P'},       {"connections", 1, 0, 'n'},
    {"sources", 1, 0, 'a'},      {"warm", 1, 0, 'w'},       {"seconds", 1, 0, 's'},
    {"streams", 1, 0, 'm'},      {"many-on-a-line", 0, 0, 'M'},
    {"until-events", 1, 0, 'u'}, {"stuck", 1, 0, 'z'},      {"signal-pid", 1, 0, 'g'},
    {"pids", 1, 0, 'i'},         {"post-path", 1, 0, 'o'},  {"post-rate", 1, 0, 'r'},
    {"post-bytes", 1, 0, 'b'},   {"stride", 1, 0, 'k'},     {0, 0, 0, 0},
};

static void read_options(int argc, char **argv) {
  int letter;
  while ((letter = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
    switch (letter) {
      case 'p': options.port = atoi(optarg); break;
      case 'P': options.path = optarg; break;
      case 'n': options.connections = atoi(optarg); break;
      case 'a': options.sources = atoi(optarg); break;
      case 'M': take_many_on_a_line(); break;
      case 'm': options.streams = atoi(optarg); break;
      case 'w': options.warm = atof(optarg); break;
      case 's': options.seconds = atof(optarg); break;
      case 'u': options.until_events = strtoull(optarg, NULL, 10); break;
      case 'z': options.stuck = atoi(optarg); break;
      case 'g': options.signal_pid = atoi(optarg); break;
      case 'i': read_pids(optarg); break;
      case 'o': options.post_path = optarg; break;
      case 'r': options.post_rate = atof(optarg); break;
      case 'b': options.post_bytes = atoi(optarg); break;
      case 'k': totals.stride = atoi(optarg); break;
      default: exit(1);
    }
  }
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  raise_descriptor_limit();
  connections = calloc((size_t)options.connections, sizeof *connections);
  read_buffer = malloc(READ_BYTES);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  measurement m = measure();
  bool stuck_level = options.stuck > 0 && release_stuck();
  report(&m, stuck_level);
  return 0;
}
