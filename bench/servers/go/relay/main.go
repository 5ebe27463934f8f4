// relay passes requests on to one upstream with the reverse proxy of Go's standard library, and
// flushes whatever comes at once. It reads nothing of what it passes on.
//
// Environment: BENCH_UPSTREAM, an http address. Readiness: one JSON line with port and pid.
package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

const idleConnections = 1024 // so that every answer finds a connection that is open

func main() {
	upstream, err := url.Parse(os.Getenv("BENCH_UPSTREAM"))
	if err != nil {
		panic(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = idleConnections
	transport.MaxIdleConnsPerHost = idleConnections
	transport.DisableCompression = true
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		Transport:     transport,
		FlushInterval: -1,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Printf("{\"port\":%d,\"pid\":%d}\n", port, os.Getpid())
	panic(http.Serve(listener, proxy))
}
