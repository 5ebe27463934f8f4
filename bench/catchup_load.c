/* catchup_load: reads streams from their beginning with GET, a page after the other over one
 * connection that is kept, until the answer says that it is up to date.  One thread, libc only.
 *
 * Records are the JSON objects of append_load, in JSON arrays; they are counted by their numbers
 * ("i"), which are also added up, and which must go up by one where --in-order says that one writer
 * wrote them.  Each of --streams streams is read once, or all of them again and again for
 * --seconds; what a server could have kept ready from the first pass shows in `first_pass_s`.  One
 * JSON object goes to standard output. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <getopt.h>

#include "load_http.h"
#include "load_stats.h"

#define READ_BYTES (256 * 1024)
#define SILENCE_S 30 /* of a server, after which it has failed */
#define OFFSET_BYTES 128

static struct {
  const char *path;
  int port, streams;
  bool in_order;
  double seconds;
} options = {.path = "/", .streams = 1};

static int fd;
static uint64_t pages, passes, body_bytes, out_of_order;

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "%s: %.200s\n", what, detail);
  exit(2);
}

/* --- counting ----------------------------------------------------------------------------------- */

static const char MARK[] = "\"i\":"; /* only its first byte is a quotation mark that can begin it */

/* The numbers in bytes that arrive in any pieces. */
static struct {
  size_t matched; /* bytes of the mark seen; all of it: digits follow */
  uint64_t number, count, sum;
  uint64_t next; /* the number that is due on this stream */
} records;

static void end_number(void) {
  records.count++;
  records.sum += records.number;
  if (options.in_order && records.number != records.next) out_of_order++;
  records.next = records.number + 1;
  records.matched = 0;
}

static void count_records(void *context, const char *p, size_t n) {
  const char *end = p + n;
  (void)context;
  body_bytes += n;
  while (p < end) {
    if (records.matched == 0 && !(p = memchr(p, MARK[0], (size_t)(end - p)))) return;
    if (records.matched < sizeof MARK - 1) {
      records.matched = *p == MARK[records.matched] ? records.matched + 1 : *p == MARK[0];
      records.number = 0;
    } else if (*p >= '0' && *p <= '9') {
      records.number = records.number * 10 + (uint64_t)(*p - '0');
    } else {
      end_number();
      continue; /* the same byte may begin a mark */
    }
    p++;
  }
}

/* --- reading ------------------------------------------------------------------------------------ */

static void connect_to_server(void) {
  struct timeval silence = {.tv_sec = SILENCE_S};
  fd = open_socket(options.port, 0, 1);
  if (fd < 0) fail("connect", strerror(errno));
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof silence);
}

static void send_get(int stream, const char *offset) {
  char request[1024];
  int n = snprintf(request, sizeof request,
                   "GET %s/%d?offset=%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", options.path,
                   stream, offset, options.port);
  /* A connection that is still being made takes the first request when it is there. */
  while (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
    if (errno != EAGAIN && errno != EINTR) fail("send", strerror(errno));
}

static void take_page(response *r) {
  static char buffer[READ_BYTES];
  begin_response(r);
  while (!r->whole) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("recv", n ? strerror(errno) : "the server hung up");
    size_t used = take_response(r, buffer, (size_t)n, count_records, NULL);
    if (r->broken) fail("not a response", r->head);
    if (used < (size_t)n) fail("recv", "more bytes than the answer has");
  }
  if (r->status != 200) fail("status", r->head);
  if (r->closes) fail("closed by the server", r->head);
  pages++;
}

/* Takes the place to read on from; false when the answer says that there is no more. */
static bool next_place(const response *r, char *offset) {
  const char *up_to_date = header_value(r, "\r\nstream-up-to-date:");
  const char *next = header_value(r, "\r\nstream-next-offset:");
  if (up_to_date && strncasecmp(up_to_date, "true", 4) == 0) return false;
  if (!next) fail("no stream-next-offset", r->head);
  size_t length = strcspn(next, "\r\n");
  if (length >= OFFSET_BYTES) fail("stream-next-offset is too long", r->head);
  if (length == strlen(offset) && memcmp(offset, next, length) == 0)
    fail("neither up to date nor further", r->head);
  memcpy(offset, next, length);
  offset[length] = 0;
  return true;
}

static void read_stream(int stream) {
  static response answer;
  char offset[OFFSET_BYTES] = "-1";
  records.matched = 0;
  records.next = 0;
  do {
    send_get(stream, offset);
    take_page(&answer);
  } while (next_place(&answer, offset));
}

static void read_all(void) {
  for (int i = 0; i < options.streams; i++) read_stream(i);
  passes++;
}

/* --- options ------------------------------------------------------------------------------------- */

static const struct option option_table[] = {
    {"port", 1, 0, 'p'},    {"path", 1, 0, 'P'},     {"streams", 1, 0, 'm'},
    {"seconds", 1, 0, 's'}, {"in-order", 0, 0, 'o'}, {"pids", 1, 0, 'i'},
    {0, 0, 0, 0},
};

static void read_options(int argc, char **argv) {
  int letter;
  while ((letter = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
    switch (letter) {
      case 'p': options.port = atoi(optarg); break;
      case 'P': options.path = optarg; break;
      case 'm': options.streams = atoi(optarg); break;
      case 's': options.seconds = atof(optarg); break;
      case 'o': options.in_order = true; break;
      case 'i': read_pids(optarg); break;
      default: exit(1);
    }
  }
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  connect_to_server();
  double rss_before = servers_rss_mib();
  instant from = look();
  read_all();
  double first_pass_s = seconds_since(from.at_ns);
  uint64_t count = records.count, sum = records.sum;
  while (seconds_since(from.at_ns) < options.seconds) read_all();
  instant to = look();
  double seconds = (double)(to.at_ns - from.at_ns) / 1e9, megabytes = (double)body_bytes / 1e6;
  double server_us = (to.server_cpu - from.server_cpu) * 1e6;
  printf("{");
  print_between(&from, &to, records.count);
  printf("\"passes\":%lu,\"pages\":%lu,\"records\":%lu,\"index_sum\":%lu,\"out_of_order\":%lu,",
         passes, pages, count, sum, out_of_order);
  printf("\"first_pass_s\":%.4f,\"body_mb_s\":%.1f,\"cpu_us_per_mb\":%.2f,", first_pass_s,
         megabytes / seconds, server_us / (megabytes > 0 ? megabytes : 1));
  printf("\"rss_before_mib\":%.2f,\"rss_end_mib\":%.2f,\"error\":\"\"}\n", rss_before,
         servers_rss_mib());
  return 0;
}
