/* What the load clients share of HTTP/1.1: a socket to the server, the chunked transfer coding, and
 * where a response ends on a connection that goes on.  Nothing here knows what a body means. */
#ifndef LOAD_HTTP_H
#define LOAD_HTTP_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- sockets -------------------------------------------------------------------------------- */

/* A socket that is being connected to a loopback port, or -1; errno says why.  Several `sources`
 * are for more connections than one source address has ports (some 28,000). */
static inline int open_socket(int port, int number, int sources) {
  int one = 1;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (sources > 1) {
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(number % sources));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (void *)&source, sizeof source) != 0) goto failed;
  }
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (void *)&server, sizeof server) == 0 || errno == EINPROGRESS) return fd;
failed:;
  int why = errno;
  close(fd);
  errno = why;
  return -1;
}

/* What became of a connection attempt: 0, or an errno. */
static inline int socket_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

/* --- the chunked transfer coding (RFC 9112 7.1) ------------------------------------------------ */

enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_CR, CHUNK_LF, CHUNK_TRAILER, CHUNK_END };

typedef struct {
  uint8_t state;
  bool broken, trailer_line;
  uint64_t left;
} chunks;

static inline int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 32;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline void chunk_size_byte(chunks *c, char byte) {
  if (byte == '\n') {
    c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER;
    c->trailer_line = false;
  } else if (byte == ';') {
    c->state = CHUNK_EXTENSION;
  } else if (byte != '\r' && c->state == CHUNK_SIZE) {
    int digit = hex_value(byte);
    if (digit < 0) c->broken = true;
    c->left = c->left * 16 + (uint64_t)digit;
  }
}

static inline void chunk_trailer_byte(chunks *c, char byte) {
  if (byte == '\n') {
    if (!c->trailer_line) c->state = CHUNK_END;
    c->trailer_line = false;
  } else if (byte != '\r') {
    c->trailer_line = true;
  }
}

/* Takes bytes as they came off the socket, up to the end of the next run of data or of the body,
 * and returns how many.  The data, if any, is the last *data_len of them.  Borders may fall
 * anywhere. */
static inline size_t next_chunk_data(chunks *c, const char *p, size_t n, size_t *data_len) {
  size_t used = 0;
  *data_len = 0;
  while (used < n && !c->broken && c->state != CHUNK_END) {
    switch (c->state) {
      case CHUNK_SIZE:
      case CHUNK_EXTENSION:
        chunk_size_byte(c, p[used++]);
        break;
      case CHUNK_DATA:
        *data_len = n - used < c->left ? n - used : (size_t)c->left;
        c->left -= *data_len;
        if (c->left == 0) c->state = CHUNK_CR;
        return used + *data_len;
      case CHUNK_CR:
        c->state = CHUNK_LF;
        used++;
        break;
      case CHUNK_LF:
        c->state = CHUNK_SIZE;
        used++;
        break;
      default:
        chunk_trailer_byte(c, p[used++]);
    }
  }
  return used;
}

/* --- a response on a connection that is kept ---------------------------------------------------- */

#define RESPONSE_HEAD_BYTES 2048

typedef struct {
  char head[RESPONSE_HEAD_BYTES]; /* terminated; without the empty line once it is whole */
  uint32_t head_len;
  int status;
  bool has_head, chunked, closes, broken, whole;
  uint64_t left; /* of a body of announced length */
  chunks chunks;
} response;

typedef void (*body_taker)(void *context, const char *p, size_t n);

static inline void begin_response(response *r) {
  r->head_len = 0;
  r->status = 0;
  r->has_head = r->chunked = r->closes = r->broken = r->whole = false;
  r->left = 0;
  r->chunks = (chunks){0};
}

/* The value of a header of a response whose head is whole, or NULL.  `name` begins with a line end
 * and ends with a colon; the value ends at the next line end. */
static inline const char *header_value(const response *r, const char *name) {
  const char *found = strcasestr(r->head, name);
  if (!found) return NULL;
  found += strlen(name);
  while (*found == ' ') found++;
  return found;
}

static inline void on_whole_head(response *r) {
  r->has_head = true;
  r->status = r->head_len > 12 && memcmp(r->head, "HTTP/1.1 ", 9) == 0 ? atoi(r->head + 9) : 0;
  if (!r->status) r->broken = true;
  const char *coding = header_value(r, "\r\ntransfer-encoding:");
  const char *length = header_value(r, "\r\ncontent-length:");
  const char *connection = header_value(r, "\r\nconnection:");
  r->chunked = coding && strncasecmp(coding, "chunked", 7) == 0;
  r->closes = connection && strncasecmp(connection, "close", 5) == 0;
  if (r->status == 204 || r->status == 304)
    r->whole = true;
  else if (!r->chunked && !length)
    r->broken = true; /* its end would be the connection's */
  else if (!r->chunked)
    r->whole = (r->left = strtoull(length, NULL, 10)) == 0;
}

static inline size_t take_head(response *r, const char *p, size_t n) {
  size_t room = RESPONSE_HEAD_BYTES - 1 - r->head_len, before = r->head_len;
  size_t part = n < room ? n : room;
  memcpy(r->head + before, p, part);
  r->head_len += (uint32_t)part;
  r->head[r->head_len] = 0;
  char *end = strstr(r->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
  if (!end) {
    r->broken = part == room;
    return part;
  }
  *end = 0;
  r->head_len = (uint32_t)(end - r->head);
  on_whole_head(r);
  return (size_t)r->head_len + 4 - before;
}

/* Takes bytes of this response, hands its body to `taker`, and returns how many were of it: all,
 * or those up to its end. */
static inline size_t take_response(response *r, const char *p, size_t n, body_taker taker,
                                   void *context) {
  size_t used = 0;
  while (used < n && !r->whole && !r->broken) {
    size_t data_len;
    if (!r->has_head) {
      used += take_head(r, p + used, n - used);
      continue;
    }
    if (r->chunked) {
      used += next_chunk_data(&r->chunks, p + used, n - used, &data_len);
      r->whole = r->chunks.state == CHUNK_END;
      r->broken = r->chunks.broken;
    } else {
      data_len = n - used < r->left ? n - used : (size_t)r->left;
      used += data_len;
      r->whole = (r->left -= data_len) == 0;
    }
    if (data_len && taker) taker(context, p + used - data_len, data_len);
  }
  return used;
}

#endif
