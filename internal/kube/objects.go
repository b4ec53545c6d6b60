package kube

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/point"
)

// Names of parts.
const (
	partPrefix  = "kubernetes/"
	clusterPart = partPrefix + "_cluster" // no namespace can be called that
)

// listsAtOnce is how many kinds of one application are listed at a time.
const listsAtOnce = 3

// Objects is the source of an application's objects: a part of each of its namespaces, and one of what it needs of the cluster.
type Objects struct {
	cluster *Cluster
	app     Application
	subject point.Subject
	at      Moment

	// Seen, where not nil, is told of each object that is captured, from several goroutines at once. It must not keep or change it.
	Seen func(key ObjectKey, u *unstructured.Unstructured)

	mu          sync.Mutex
	first, last time.Time
}

// NewObjects makes a source of the objects as they are, or were, at a moment: s is whose parts they become.
func NewObjects(c *Cluster, a Application, s point.Subject, at Moment) *Objects {
	return &Objects{cluster: c, app: a, subject: s, at: at, first: at.At, last: at.At}
}

// Subject is what the objects are of.
func (o *Objects) Subject() point.Subject { return o.subject }

// Parts are the names of all parts that a Capture ends.
func (o *Objects) Parts() []string {
	var names []string
	for _, ns := range o.app.Namespaces {
		names = append(names, partPrefix+ns)
	}
	if o.app.Capture.ClusterObjects != v1alpha1.ClusterObjectsNone {
		names = append(names, clusterPart)
	}
	return names
}

// Skew is the first and the last moment that the lists of a Capture are of: the same where the server could say how all was at the
// moment asked for.
func (o *Objects) Skew() (first, last time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first, o.last
}

// Capture writes the objects, a file each. What cannot be listed or written is named in its part, whose counts do not close then. An
// API server that cannot be reached at all, or is not ready, is an error, fault.ErrUnavailable: it may be back for the next attempt.
func (o *Objects) Capture(ctx context.Context, to point.Sink) error {
	kinds, silent, err := o.cluster.kinds(ctx)
	if err != nil {
		if o.cluster.away(ctx, err) {
			return err
		}
		return o.failAll(ctx, to, err)
	}
	c := &capture{Objects: o, kinds: kinds, stored: map[need]bool{}}
	for gv, why := range silent {
		group := schema.GroupResource{Group: gv.Group}
		if !excludedByRule(group) && !excludedByPolicy(o.app.Capture.ExcludeKinds, group) {
			c.silent = append(c.silent, lack{"kinds of " + gv.String(), why})
		}
	}
	if !o.app.whole() {
		if c.chosen, err = o.cluster.choose(ctx, o.app, kinds, o.at.ResourceVersion); err != nil {
			if o.cluster.away(ctx, err) {
				return err
			}
			return o.failAll(ctx, to, err)
		}
	}
	for i, ns := range o.app.Namespaces {
		err := c.part(ctx, to, partPrefix+ns, func(p *part) error {
			err := p.namespace(ctx, ns)
			if c.chosen != nil && i == len(o.app.Namespaces)-1 {
				p.lacks = append(p.lacks, c.chosen.lacks(o.app)...)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if o.app.Capture.ClusterObjects == v1alpha1.ClusterObjectsNone {
		return nil
	}
	return c.part(ctx, to, clusterPart, func(p *part) error { return p.ofCluster(ctx) })
}

// failAll fails every part.
func (o *Objects) failAll(ctx context.Context, to point.Sink, reason error) error {
	for _, name := range o.Parts() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w, err := to.Part(ctx, name, point.KindObjects)
		if err != nil {
			return err
		}
		if err := w.Fail(ctx, reason); err != nil {
			return err
		}
	}
	return nil
}

// seen widens the skew by a list.
func (o *Objects) seen(l listing) {
	if !l.live {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.first.Before(o.first) {
		o.first = l.first
	}
	if l.last.After(o.last) {
		o.last = l.last
	}
}

// capture is one Capture of Objects.
type capture struct {
	*Objects
	kinds  []kind
	silent []lack // groups that do not tell their kinds
	needs  needs
	chosen *choice // nil where all of the namespaces belongs to the application

	mu     sync.Mutex
	stored map[need]bool // service accounts and services
}

// atOnce calls work for each item, a few at a time, and returns the first error after all have ended.
func atOnce[T any](ctx context.Context, limit int, items []T, work func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan T)
	var wg sync.WaitGroup
	for range min(limit, len(items)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for item := range queue {
				if err := work(ctx, item); err != nil {
					cancel(err)
				}
			}
		}()
	}
	for _, item := range items {
		select {
		case queue <- item:
		case <-ctx.Done():
		}
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}
