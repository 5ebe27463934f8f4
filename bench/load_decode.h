/* From received bytes to counted events: the chunked transfer coding, then lines, then the blocks
 * of the event-stream format.  It decodes only what counting needs, and copies nothing but lines
 * that a read has cut in two.
 *
 * Every data line of the benchmark is a JSON object that begins  {"t":<ns>,"i":<n>  : the
 * publisher's CLOCK_MONOTONIC, from which latency is sampled, and a running number, which must go
 * up by one on each connection.  A block with an `event:` line is a control event and is counted
 * apart; after `event: gap` one jump of the number is announced and therefore no loss. */
#ifndef LOAD_DECODE_H
#define LOAD_DECODE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "load_stats.h"

#define CARRY_BYTES 1024 /* of a line that two reads share, the first bytes are enough */

enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_CR, CHUNK_LF, CHUNK_TRAILER };

typedef struct {
  bool chunked, broken;
  uint8_t chunk_state;
  uint64_t chunk_left;

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

static void on_data_line(decoder *d, const char *line, size_t n, uint64_t received_ns) {
  d->has_data = true;
  if (d->is_control) return;
  const char *index = memmem(line, n, "\"i\":", 4);
  if (index) check_index(d, strtoll(index + 4, NULL, 10));
  if (!totals.open || --totals.until_sample > 0) return;
  totals.until_sample = totals.stride;
  const char *stamp = memmem(line, n, "\"t\":", 4);
  uint64_t sent_ns = stamp ? strtoull(stamp + 4, NULL, 10) : 0;
  if (sent_ns && received_ns > sent_ns) histogram_add(&totals.latency, received_ns - sent_ns);
}

static void on_block_end(decoder *d) {
  if (d->is_control) {
    totals.controls++;
  } else if (d->has_data) {
    d->events++;
    totals.total_events++;
    if (totals.open) totals.events++;
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
    on_data_line(d, line, n, received_ns);
  } else if (n >= 6 && memcmp(line, "event:", 6) == 0) {
    d->is_control = true;
    if (n == 10 && memcmp(line, "event: gap", 10) == 0) {
      totals.gap_events++;
      d->gap_announced = true;
    }
  }
}

/* Keeps the beginning of a line for the next read; always terminated, so that numbers in it can be
 * parsed. */
static void carry_over(decoder *d, const char *p, size_t n) {
  if (!d->carry) d->carry = malloc(CARRY_BYTES);
  size_t room = CARRY_BYTES - 1 - d->carry_len;
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

static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 32;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void decode_size_line(decoder *d, char c) {
  if (c == '\n') {
    d->chunk_state = d->chunk_left ? CHUNK_DATA : CHUNK_TRAILER;
  } else if (c == ';') {
    d->chunk_state = CHUNK_EXTENSION;
  } else if (c != '\r' && d->chunk_state == CHUNK_SIZE) {
    int digit = hex_value(c);
    if (digit < 0) d->broken = true;
    d->chunk_left = d->chunk_left * 16 + (uint64_t)digit;
  }
}

/* Body bytes as they came off the socket.  Chunk borders may fall anywhere. */
static void decode(decoder *d, const char *p, size_t n, uint64_t received_ns) {
  if (!d->chunked) {
    decode_body(d, p, n, received_ns);
    return;
  }
  while (n && !d->broken) {
    switch (d->chunk_state) {
      case CHUNK_SIZE:
      case CHUNK_EXTENSION:
        decode_size_line(d, *p);
        p++, n--;
        break;
      case CHUNK_DATA: {
        size_t part = n < d->chunk_left ? n : (size_t)d->chunk_left;
        decode_body(d, p, part, received_ns);
        p += part, n -= part;
        d->chunk_left -= part;
        if (d->chunk_left == 0) d->chunk_state = CHUNK_CR;
        break;
      }
      case CHUNK_CR:
        d->chunk_state = CHUNK_LF;
        p++, n--;
        break;
      case CHUNK_LF:
        d->chunk_state = CHUNK_SIZE;
        p++, n--;
        break;
      default: /* after the last chunk nothing counts */
        return;
    }
  }
}

#endif
