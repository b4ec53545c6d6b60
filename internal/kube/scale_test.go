package kube_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
)

// manyNamespaces and manyObjects are what one policy may well have.
const (
	manyNamespaces = 500
	manyObjects    = 20 // of each namespace
	workers        = 4
)

// BenchmarkManyNamespaces captures the objects of 500 applications, a few at a time, as a run of a policy does, and throws them away. Run
// it by hand: go test -run '^$' -bench ManyNamespaces -benchtime 1x ./internal/kube
func BenchmarkManyNamespaces(b *testing.B) {
	config := kubetest.Start(b)
	c, err := kube.New(config)
	if err != nil {
		b.Fatal(err)
	}
	namespaces := make([]string, manyNamespaces)
	inParallel(b, manyNamespaces, func(i int) error {
		namespaces[i] = fmt.Sprintf("many-%03d", i)
		return fill(b.Context(), c, namespaces[i])
	})
	for b.Loop() {
		var objects, bytes atomic.Int64
		began := time.Now()
		inParallel(b, manyNamespaces, func(i int) error {
			version, at, err := c.Version(b.Context())
			if err != nil {
				return err
			}
			source := kube.NewObjects(c, whole(namespaces[i]), point.Subject{}, kube.Moment{ResourceVersion: version, At: at})
			if err := source.Capture(b.Context(), &counter{objects: &objects, bytes: &bytes}); err != nil {
				return err
			}
			if first, last := source.Skew(); !first.Equal(last) {
				return fmt.Errorf("%s: skew %v", namespaces[i], last.Sub(first))
			}
			return nil
		})
		if objects.Load() < manyNamespaces*manyObjects {
			b.Fatalf("%d objects", objects.Load())
		}
		b.ReportMetric(time.Since(began).Seconds(), "s")
		b.ReportMetric(float64(objects.Load()), "objects")
		b.ReportMetric(peakMemory(b), "MiB-peak")
	}
}

// inParallel calls work for 0 to n-1, a few at a time.
func inParallel(b *testing.B, n int, work func(int) error) {
	b.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := work(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// fill makes a namespace with objects of several kinds.
func fill(ctx context.Context, c *kube.Cluster, namespace string) error {
	if err := c.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return err
	}
	for i := range manyObjects {
		meta := metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("object-%d", i), Labels: map[string]string{"app": "many"}}
		var o client.Object
		switch i % 5 {
		case 0, 1:
			o = &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"text": string(bytes.Repeat([]byte("word "), 200))}}
		case 2:
			o = &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"key": bytes.Repeat([]byte{0xff, 0}, 100)}}
		case 3:
			o = &corev1.ServiceAccount{ObjectMeta: meta}
		case 4:
			o = &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}}
		}
		if err := c.Client.Create(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// peakMemory is the most that the process had resident, in MiB.
func peakMemory(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib float64
	if _, err := fmt.Sscan(string(after), &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// counter is a sink that counts what it is given.
type counter struct {
	point.Sink
	objects, bytes *atomic.Int64
}

func (c *counter) Part(context.Context, string, string) (point.PartWriter, error) {
	return &counterPart{counter: c}, nil
}

type counterPart struct {
	point.PartWriter
	*counter
}

func (p *counterPart) Put(_ context.Context, _ point.Entry, r io.Reader, _ point.Content) (int64, error) {
	n, err := io.Copy(io.Discard, r)
	p.objects.Add(1)
	p.bytes.Add(n)
	return n, err
}

func (p *counterPart) Store(_ context.Context, q point.Part) error {
	if ledger := point.LedgerOf([]point.Part{{State: point.Stored, Counts: q.Counts}}); !ledger.Closed {
		return fmt.Errorf("counts %+v, notes %q", q.Counts, q.Notes)
	}
	return nil
}

func (p *counterPart) Fail(_ context.Context, reason error) error { return reason }
