/* What the load clients measure with: the clock, a latency histogram, the processor time and memory
 * of other processes, and how both are printed.  Nothing here knows about connections. */
#ifndef LOAD_STATS_H
#define LOAD_STATS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* The publishers stamp their events with this clock, so that latency needs no agreement on time:
 * server and client are on one machine. */
static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline double seconds_since(uint64_t then_ns) {
  return (double)(now_ns() - then_ns) / 1e9;
}

/* A histogram with 64 buckets for each power of two: every quantile is right within 1.6 %, and a
 * sample costs a shift and an increment. */
#define HISTOGRAM_STEPS 64

typedef struct {
  uint64_t buckets[64 * HISTOGRAM_STEPS];
  uint64_t count, max;
} histogram;

static inline void histogram_add(histogram *h, uint64_t value) {
  h->count++;
  if (value > h->max) h->max = value;
  if (value < HISTOGRAM_STEPS) {
    h->buckets[value]++;
    return;
  }
  int exponent = 63 - __builtin_clzll(value);
  h->buckets[(exponent - 5) * HISTOGRAM_STEPS + ((value >> (exponent - 6)) & 63)]++;
}

static inline double histogram_quantile(const histogram *h, double q) {
  uint64_t wanted = (uint64_t)(q * (double)h->count), seen = 0;
  if (h->count == 0) return -1;
  for (int i = 0; i < 64 * HISTOGRAM_STEPS; i++) {
    seen += h->buckets[i];
    if (seen > wanted) {
      int row = i / HISTOGRAM_STEPS;
      uint64_t step = (uint64_t)(i % HISTOGRAM_STEPS);
      return row == 0 ? (double)step : (double)((HISTOGRAM_STEPS + step) << (row - 1));
    }
  }
  return (double)h->max;
}

/* User and system time of all threads of a process, dead threads included.  The process clock has
 * the scheduler's own resolution; /proc/PID/stat would round to 10 ms. */
static double cpu_seconds_of(pid_t pid) {
  clockid_t clock;
  struct timespec t;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) return 0;
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline double cpu_seconds_of_self(void) {
  return cpu_seconds_of(getpid());
}

/* Resident memory of a process in MiB.  The kernel's socket buffers are not in it. */
static inline double rss_mib_of(pid_t pid) {
  char name[64];
  long size = 0, resident = 0;
  snprintf(name, sizeof name, "/proc/%d/statm", (int)pid);
  FILE *f = fopen(name, "r");
  if (!f) return 0;
  if (fscanf(f, "%ld %ld", &size, &resident) != 2) resident = 0;
  fclose(f);
  return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
}

/* Busy time of all processors together since boot; time stolen by the hypervisor counts as busy,
 * because it too is time that the processes under test did not get. */
static inline double machine_busy_seconds(void) {
  unsigned long v[8] = {0};
  FILE *f = fopen("/proc/stat", "r");
  if (!f) return 0;
  int got = fscanf(f, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", &v[0], &v[1], &v[2], &v[3], &v[4],
                   &v[5], &v[6], &v[7]);
  fclose(f);
  if (got < 8) return 0;
  return (double)(v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / (double)sysconf(_SC_CLK_TCK);
}

/* --- the servers' processes, and what everybody used up to an instant ------------------------- */

#define MAX_PIDS 16

static struct {
  pid_t ids[MAX_PIDS];
  int count;
} servers;

static inline void read_pids(char *list) {
  for (char *p = strtok(list, ","); p && servers.count < MAX_PIDS; p = strtok(NULL, ","))
    servers.ids[servers.count++] = atoi(p);
}

static inline double servers_rss_mib(void) {
  double sum = 0;
  for (int i = 0; i < servers.count; i++) sum += rss_mib_of(servers.ids[i]);
  return sum;
}

typedef struct {
  uint64_t at_ns;
  double server_cpu, client_cpu, machine;
} instant;

static inline instant look(void) {
  instant now = {.at_ns = now_ns(), .client_cpu = cpu_seconds_of_self(),
                 .machine = machine_busy_seconds()};
  for (int i = 0; i < servers.count; i++) now.server_cpu += cpu_seconds_of(servers.ids[i]);
  return now;
}

/* What happened between two instants, as members of a JSON object; `events` is what the server's
 * processor time is divided by. */
static inline void print_between(const instant *from, const instant *to, uint64_t events) {
  double seconds = (double)(to->at_ns - from->at_ns) / 1e9;
  double server = to->server_cpu - from->server_cpu, client = to->client_cpu - from->client_cpu;
  double other = to->machine - from->machine - server - client;
  printf("\"seconds\":%.4f,\"events\":%lu,\"events_s\":%.0f,", seconds, events,
         (double)events / seconds);
  printf("\"cpu_us_per_event\":%.4f,\"server_cpu_pct\":%.1f,\"client_cpu_pct\":%.1f,"
         "\"other_cpu_pct\":%.1f,",
         server * 1e6 / (double)(events ? events : 1), server / seconds * 100,
         client / seconds * 100, other > 0 ? other / seconds * 100 : 0);
}

static inline void print_latency(const histogram *h) {
  printf("\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,\"samples\":%lu,",
         histogram_quantile(h, 0.50) / 1e6, histogram_quantile(h, 0.99) / 1e6,
         (double)h->max / 1e6, h->count);
}

/* --- this process ------------------------------------------------------------------------------- */

static char first_error[160];

/* Keeps the first thing that went wrong; no quotes or control characters, for it is printed in
 * JSON. */
static inline void note_error(const char *what, const char *detail) {
  if (first_error[0]) return;
  snprintf(first_error, sizeof first_error, "%s: %.100s", what, detail);
  for (char *p = first_error; *p; p++)
    if (*p == '"' || *p == '\\' || *p < ' ') *p = ' ';
}

static inline void raise_descriptor_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

#endif
