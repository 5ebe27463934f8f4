// gofan is the Go server of the benchmark: net/http, standard library only. Each subscriber has a
// goroutine and a channel of events; when several events wait in the channel they leave with one
// flush. A subscriber whose channel is full loses the event: the usual recipe has no other answer,
// and the benchmark's sequence check counts what it loses.
//
// Environment: BENCH_RATE (events/s), BENCH_PAYLOAD_BYTES, BENCH_TOTAL (0: no end), BENCH_STREAMS
// (not 0: every request is a stream of its own, with its own publisher). SIGUSR2 starts the
// publisher. Readiness: one JSON line with port and pid.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	channelEvents  = 1024
	catchUpPerTick = 50 // the same rule in every server of the benchmark
)

type hub struct {
	mu          sync.RWMutex
	subscribers map[chan []byte]struct{}
}

func (h *hub) join() chan []byte {
	c := make(chan []byte, channelEvents)
	h.mu.Lock()
	h.subscribers[c] = struct{}{}
	h.mu.Unlock()
	return c
}

func (h *hub) leave(c chan []byte) {
	h.mu.Lock()
	delete(h.subscribers, c)
	h.mu.Unlock()
}

func (h *hub) publish(event []byte) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for c := range h.subscribers {
		select {
		case c <- event:
		default:
		}
	}
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	flusher := w.(http.Flusher)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	events := h.join()
	defer h.leave(events)
	w.WriteHeader(http.StatusOK)
	flusher.Flush()
	for {
		select {
		case event := <-events:
			w.Write(event)
			for len(events) > 0 {
				w.Write(<-events)
			}
			flusher.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// ownStream is a request whose publisher is its own goroutine.
func ownStream(w http.ResponseWriter, r *http.Request) {
	flusher := w.(http.Flusher)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	flusher.Flush()
	payloadBytes := int(number("BENCH_PAYLOAD_BYTES", 80))
	ticker := time.NewTicker(time.Duration(float64(time.Second) / number("BENCH_RATE", 30)))
	defer ticker.Stop()
	for index := 0; ; index++ {
		select {
		case <-ticker.C:
			w.Write(encode(index, payloadBytes))
			flusher.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, the clock the load client compares with. The time
// package keeps its monotonic reading to itself.
func monotonic() int64 {
	var t syscall.Timespec
	const clockMonotonic = 1
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

func number(name string, otherwise float64) float64 {
	value, err := strconv.ParseFloat(os.Getenv(name), 64)
	if err != nil {
		return otherwise
	}
	return value
}

func encode(index, payloadBytes int) []byte {
	payload := fmt.Sprintf(`{"t":%d,"i":%d,"d":"`, monotonic(), index)
	padding := strings.Repeat("x", payloadBytes-2-len(payload))
	return []byte(fmt.Sprintf("id: %010d\ndata: %s%s\"}\n\n", index+1, payload, padding))
}

func (h *hub) run(start <-chan os.Signal) {
	rate := number("BENCH_RATE", 30)
	total := int(number("BENCH_TOTAL", 0))
	payloadBytes := int(number("BENCH_PAYLOAD_BYTES", 80))
	period := time.Duration(float64(time.Second) / rate)
	if period < time.Millisecond {
		period = time.Millisecond
	}
	<-start
	begun, published := time.Now(), 0
	for range time.Tick(period) {
		due := int(time.Since(begun).Seconds()*rate + 0.5)
		if due > published+catchUpPerTick {
			due = published + catchUpPerTick
		}
		if total > 0 && due > total {
			due = total
		}
		for ; published < due; published++ {
			h.publish(encode(published, payloadBytes))
		}
	}
}

func main() {
	start := make(chan os.Signal, 1)
	signal.Notify(start, syscall.SIGUSR2)
	h := &hub{subscribers: make(map[chan []byte]struct{})}
	var handler http.Handler = h
	if number("BENCH_STREAMS", 0) != 0 {
		handler = http.HandlerFunc(ownStream)
	} else {
		go h.run(start)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Printf("{\"port\":%d,\"pid\":%d}\n", port, os.Getpid())
	panic(http.Serve(listener, handler))
}
