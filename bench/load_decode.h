/* From received bytes to counted events: lines of a body, then the blocks of the event-stream
 * format.  It decodes only what counting needs, and copies nothing but lines that a read has cut in
 * two.
 *
 * Every data line of the benchmark is a JSON object that begins  {"t":<ns>,"i":<n>  : the
 * publisher's CLOCK_MONOTONIC, from which latency is sampled, and a running number, which must go
 * up by one on each connection.  A block with an `event:` line is a control event and is counted
 * apart; after `event: gap` one jump of the number is announced and therefore no loss.
 *
 * Durable Streams' SSE puts several such objects into one block of `event: data`, as a JSON array
 * on one line or more: with take_many_on_a_line() each object counts as an event, and a block of
 * that name is no control event. */
#ifndef LOAD_DECODE_H
#define LOAD_DECODE_H

#include "load_http.h"
#include "load_stats.h"

/* Of a line that two reads share, the first bytes are enough, unless it holds many objects. */
static uint32_t carry_bytes = 1024;
static bool many_on_a_line;

static void take_many_on_a_line(void) {
  many_on_a_line = true;
  carry_bytes = 256 * 1024;
}

typedef struct {
  bool chunked;
  chunks chunks;

  char *carry; /* the line begun in an earlier read; also the response head while it arrives */
  uint32_t carry_len;
  bool carrying;

  bool has_data, is_control, gap_announced;
  uint64_t events;
  int64_t last_index; /* -1: none yet */
} decoder;

/* What all connections add up to.  The first group counts always, the second only in the window. */
typedef struct {
  uint64_t total_bytes, total_events, controls, comments, gap_events, announced, missing, repeated;

  bool open;
  uint64_t events, body_bytes, wire_bytes, reads;
  int stride, until_sample; /* every stride-th data line gives a latency sample */
  histogram latency;
} tally;

static tally totals = {.stride = 7, .until_sample = 1};

static void check_index(decoder *d, int64_t index) {
  if (d->last_index >= 0 && index != d->last_index + 1) {
    if (index <= d->last_index)
      totals.repeated++;
    else if (d->gap_announced)
      totals.announced += (uint64_t)(index - d->last_index - 1);
    else
      totals.missing += (uint64_t)(index - d->last_index - 1);
  }
  d->gap_announced = false;
  d->last_index = index;
}

static void sample_latency(const char *object, size_t n, uint64_t received_ns) {
  if (!totals.open || --totals.until_sample > 0) return;
  totals.until_sample = totals.stride;
  const char *stamp = memmem(object, n, "\"t\":", 4);
  uint64_t sent_ns = stamp ? strtoull(stamp + 4, NULL, 10) : 0;
  if (sent_ns && received_ns > sent_ns) histogram_add(&totals.latency, received_ns - sent_ns);
}

static void count_event(decoder *d) {
  d->events++;
  totals.total_events++;
  if (totals.open) totals.events++;
}

static void on_data_line(decoder *d, const char *line, size_t n, uint64_t received_ns) {
  d->has_data = true;
  if (d->is_control) return;
  const char *index = memmem(line, n, "\"i\":", 4);
  if (index) check_index(d, strtoll(index + 4, NULL, 10));
  sample_latency(line, n, received_ns);
}

static void on_line_of_many(decoder *d, const char *line, size_t n, uint64_t received_ns) {
  const char *end = line + n, *object = line, *index;
  if (d->is_control) return;
  while ((index = memmem(object, (size_t)(end - object), "\"i\":", 4))) {
    check_index(d, strtoll(index + 4, NULL, 10));
    count_event(d);
    sample_latency(object, (size_t)(end - object), received_ns);
    object = index + 4;
  }
}

static void on_block_end(decoder *d) {
  if (d->is_control) {
    totals.controls++;
  } else if (d->has_data) {
    count_event(d);
  } else {
    totals.comments++;
  }
  d->has_data = d->is_control = false;
}

static void on_line(decoder *d, const char *line, size_t n, uint64_t received_ns) {
  if (n && line[n - 1] == '\r') n--;
  if (n == 0) {
    on_block_end(d);
  } else if (n >= 5 && memcmp(line, "data:", 5) == 0) {
    if (many_on_a_line)
      on_line_of_many(d, line, n, received_ns);
    else
      on_data_line(d, line, n, received_ns);
  } else if (n >= 6 && memcmp(line, "event:", 6) == 0) {
    d->is_control = !many_on_a_line || n != 11 || memcmp(line, "event: data", 11) != 0;
    if (n == 10 && memcmp(line, "event: gap", 10) == 0) {
      totals.gap_events++;
      d->gap_announced = true;
    }
  }
}

/* Keeps the beginning of a line for the next read; always terminated, so that numbers in it can be
 * parsed. */
static void carry_over(decoder *d, const char *p, size_t n) {
  if (!d->carry) d->carry = malloc(carry_bytes);
  size_t room = carry_bytes - 1 - d->carry_len;
  if (n > room) n = room;
  memcpy(d->carry + d->carry_len, p, n);
  d->carry_len += (uint32_t)n;
  d->carry[d->carry_len] = 0;
  d->carrying = true;
}

static void decode_body(decoder *d, const char *p, size_t n, uint64_t received_ns) {
  if (totals.open) totals.body_bytes += n;
  while (n) {
    const char *newline = memchr(p, '\n', n);
    size_t length = newline ? (size_t)(newline - p) : n;
    if (!newline || d->carrying) carry_over(d, p, length);
    if (!newline) return;
    if (d->carrying) {
      on_line(d, d->carry, d->carry_len, received_ns);
      d->carry_len = 0;
      d->carrying = false;
    } else {
      on_line(d, p, length, received_ns);
    }
    p = newline + 1;
    n -= length + 1;
  }
}

/* Body bytes as they came off the socket.  Chunk borders may fall anywhere. */
static void decode(decoder *d, const char *p, size_t n, uint64_t received_ns) {
  if (!d->chunked) {
    decode_body(d, p, n, received_ns);
    return;
  }
  while (n && !d->chunks.broken && d->chunks.state != CHUNK_END) {
    size_t data_len, used = next_chunk_data(&d->chunks, p, n, &data_len);
    if (data_len) decode_body(d, p + used - data_len, data_len, received_ns);
    p += used, n -= used;
  }
}

#endif
