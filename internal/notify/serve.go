package notify

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/backstay/backstay/internal/fault"
)

// Limits of the server that is scraped.
const (
	scrapeTimeout   = 30 * time.Second
	headerTimeout   = 5 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	maxScrapes      = 4 // at once
)

// Handler answers scrapes.
func (m *Metrics) Handler() (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fault.Wrap("register metrics", nil, err, "")
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	}), nil
}

// Serve answers scrapes of path at addr, as ":9178" and "/metrics", until ctx ends; then it lets those under way end. Listening is
// told of by ready, which may be nil. An address that cannot be had is an error at once.
func (m *Metrics) Serve(ctx context.Context, addr, path string, ready func(net.Addr)) error {
	op := "serve metrics at " + addr
	if path == "" || path[0] != '/' {
		return fault.New(op, fault.ErrInvalid, "the path does not begin with a slash", "give it as /metrics")
	}
	handler, err := m.Handler()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fault.Wrap(op, fault.ErrInvalid, err, "give a free address, as :9178")
	}
	server := &http.Server{
		Handler: only(path, handler), ReadTimeout: headerTimeout, ReadHeaderTimeout: headerTimeout,
		WriteTimeout: scrapeTimeout + headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	if ready != nil {
		ready(listener.Addr())
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fault.Wrap(op, fault.ErrUnavailable, err, "")
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err = server.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	if stopped := <-served; !errors.Is(stopped, http.ErrServerClosed) {
		err = errors.Join(err, stopped)
	}
	return fault.Wrap(op, fault.ErrUnavailable, err, "")
}

// only answers GET and HEAD of one path. A ServeMux would read braces and methods into a path that a user wrote.
func only(path string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != path:
			http.NotFound(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		default:
			h.ServeHTTP(w, r)
		}
	})
}
