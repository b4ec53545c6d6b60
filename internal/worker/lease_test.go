package worker

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/kube"
)

func (l *lab) leases() map[string]coordinationv1.Lease {
	l.Helper()
	var all coordinationv1.LeaseList
	if err := l.cluster.Client.List(l.Context(), &all, client.InNamespace(l.system)); err != nil {
		l.Fatal(err)
	}
	held := map[string]coordinationv1.Lease{}
	for _, lease := range all.Items {
		held[*lease.Spec.HolderIdentity] = lease
	}
	return held
}

func TestOneAtATimeHoldsANamespace(t *testing.T) {
	l := newLab(t)
	_, release, err := l.worker().holdAll(t.Context(), []string{"b", "a"}, "one")
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, _, err := l.worker().holdAll(waiting, []string{"a"}, "two"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two holds it as well: %v", err)
	}
	_, again, err := l.worker().holdAll(t.Context(), []string{"a"}, "one") // after a kill
	if err != nil {
		t.Fatal(err)
	}
	again()
	if _, _, err := l.worker().holdAll(t.Context(), []string{"a"}, "two"); err != nil {
		t.Fatal(err)
	}
	release() // its own only
	if held := l.leases(); len(held) != 1 || held["two"].Name == "" {
		t.Errorf("leases %v", held)
	}
}

func TestLeaseRunsOut(t *testing.T) {
	l := newLab(t)
	past := func() time.Time { return time.Now().Add(-2 * leaseTime) }
	if taken, err := l.workerAt(l.cluster, nil, past).takeLease(t.Context(), client.ObjectKey{Namespace: l.system, Name: "lease"}, "one"); !taken || err != nil {
		t.Fatal(taken, err)
	}
	if taken, err := l.worker().takeLease(t.Context(), client.ObjectKey{Namespace: l.system, Name: "lease"}, "two"); !taken || err != nil {
		t.Errorf("taken %v, %v", taken, err)
	}
	if held := l.leases()["two"]; held.Labels[v1alpha1.LabelOwner] != "two" {
		t.Errorf("lease %+v", held)
	}
}

// away is the way to an API server that can be cut.
type away struct {
	next http.RoundTripper
	cut  *atomic.Bool
}

func (a away) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.cut.Load() {
		return nil, errors.New("no route to host")
	}
	return a.next.RoundTrip(r)
}

// cuttable is a connection of its own that can be cut.
func (l *lab) cuttable() (*kube.Cluster, *atomic.Bool) {
	l.Helper()
	cut := &atomic.Bool{}
	config := rest.CopyConfig(l.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return away{next, cut} })
	c, err := kube.New(config, blueprint.AddToScheme)
	if err != nil {
		l.Fatal(err)
	}
	return c, cut
}

func TestApplicationIsWaitedForWhileTheServerIsAway(t *testing.T) {
	l := newLab(t)
	c, cut := l.cuttable()
	cut.Store(true)
	time.AfterFunc(100*time.Millisecond, func() { cut.Store(false) })
	_, release, err := l.workerOf(c, nil).holdAll(t.Context(), []string{"a"}, "one")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestStatusIsWrittenWhenTheServerIsBack(t *testing.T) {
	l := newLab(t)
	l.backup("one", l.application())
	var b v1alpha1.Backup
	l.get("one", &b)
	c, cut := l.cuttable()
	cut.Store(true)
	time.AfterFunc(100*time.Millisecond, func() { cut.Store(false) })
	late := &backup{Worker: l.workerOf(c, nil), object: &b}
	if err := late.save(t.Context(), func(s *v1alpha1.BackupStatus) { s.Phase = v1alpha1.PhaseMoving }); err != nil {
		t.Fatal(err)
	}
	if s := l.statusOf("one"); s.Phase != v1alpha1.PhaseMoving {
		t.Errorf("phase %s", s.Phase)
	}
}

func TestWorkThatLosesItsLeaseIsTakenUpAgain(t *testing.T) {
	l := newLab(t)
	w := l.worker()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	key := client.ObjectKey{Namespace: l.system, Name: "lease"}
	if taken, err := w.takeLease(ctx, key, "two"); !taken || err != nil {
		t.Fatal(taken, err)
	}
	held, lose := context.WithCancelCause(ctx)
	w.renew(held, lose, key, "one", time.Millisecond)
	if cause := context.Cause(held); !errors.Is(cause, errLeaseLost) || !again(ctx, cause) {
		t.Errorf("work ended with %v", cause)
	}
	if held := l.leases(); len(held) != 1 || held["two"].Name == "" {
		t.Errorf("leases %v", held)
	}
}
