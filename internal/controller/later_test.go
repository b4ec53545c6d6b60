package controller_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/backstay/backstay/internal/controller"
	"github.com/backstay/backstay/internal/kube"
)

// listening tells of each request before it is sent.
type listening struct {
	http.RoundTripper
	hear func(*http.Request)
}

// RoundTrip implements http.RoundTripper.
func (l listening) RoundTrip(r *http.Request) (*http.Response, error) {
	l.hear(r)
	return l.RoundTripper.RoundTrip(r)
}

// TestTheControllerEndsWhileItStarts: told so at any request that it makes until it watches all, it ends at once and without an error.
func TestTheControllerEndsWhileItStarts(t *testing.T) {
	var hear atomic.Pointer[func(*http.Request)]
	var o controller.Options
	w := newWorld(t, func(given *controller.Options) {
		config := rest.CopyConfig(given.Cluster.Config)
		config.Wrap(func(inner http.RoundTripper) http.RoundTripper {
			return listening{inner, func(r *http.Request) { (*hear.Load())(r) }}
		})
		as, err := kube.New(config)
		if err != nil {
			t.Fatal(err)
		}
		o = *given
		o.Cluster, o.Webhook = as, "127.0.0.1:"+freePort(t)
	})
	w.argo()
	watched := false
	for last := int64(1); !watched && !t.Failed(); last++ {
		ctx, stop := context.WithCancel(t.Context())
		var made atomic.Int64
		var all atomic.Bool
		each := func(r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/applications") && r.URL.Query().Get("watch") == "true" { // that begins last
				all.Store(true)
			}
			if made.Add(1) == last || all.Load() {
				stop()
			}
		}
		hear.Store(&each)
		if err := controller.Run(ctx, o); err != nil {
			t.Errorf("told to end at request %d: %v", last, err)
		}
		stop()
		watched = all.Load() && made.Load() < last
	}
}
