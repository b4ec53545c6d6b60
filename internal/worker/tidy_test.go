package worker

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/kube"
)

// refusal is a way to an API server that refuses what path matches, but for questions about one object.
type refusal struct {
	next http.RoundTripper
	path string
}

func (r refusal) RoundTrip(q *http.Request) (*http.Response, error) {
	if strings.HasSuffix(q.URL.Path, r.path) {
		return nil, errors.New("connection reset")
	}
	return r.next.RoundTrip(q)
}

func (l *lab) refusing(path string) *kube.Cluster {
	l.Helper()
	config := rest.CopyConfig(l.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return refusal{next, path} })
	c, err := kube.New(config, blueprint.AddToScheme)
	if err != nil {
		l.Fatal(err)
	}
	return c
}

// left makes a Secret in Backstay's namespace as one left by an owner.
func (l *lab) left(name, owner string) {
	l.Helper()
	meta := l.named(name)
	meta.Labels = map[string]string{v1alpha1.LabelOwner: owner}
	l.create(&corev1.Secret{ObjectMeta: meta})
}

func (l *lab) there(name string) bool {
	l.Helper()
	err := l.cluster.Client.Get(l.Context(), client.ObjectKey{Namespace: l.system, Name: name}, &corev1.Secret{})
	if client.IgnoreNotFound(err) != nil {
		l.Fatal(err)
	}
	return err == nil
}

func TestTidyRemovesWhatNobodyWorksWith(t *testing.T) {
	l := newLab(t)
	l.backup("works", l.application())
	var b v1alpha1.Backup
	l.get("works", &b)
	l.left("of-one-gone", "gone")
	l.left("of-one-at-work", string(b.UID))
	for _, owner := range []string{"gone", string(b.UID)} {
		if _, err := l.worker().takeLease(t.Context(), client.ObjectKey{Namespace: l.system, Name: "lease-" + owner}, owner); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.workerOf(l.refusing("/restores"), nil).Tidy(t.Context()); err == nil {
		t.Error("that owners could not be listed was not told")
	}
	if !l.there("of-one-gone") || len(l.leases()) != 2 {
		t.Error("removed without knowing who is at work")
	}
	if err := l.worker().Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.there("of-one-gone") || !l.there("of-one-at-work") || len(l.leases()) != 1 {
		t.Errorf("of one gone: %v, of one at work: %v, leases %v", l.there("of-one-gone"), l.there("of-one-at-work"), l.leases())
	}
}

func TestOwnersAreAskedOnceAndAfterwards(t *testing.T) {
	asked := 0
	o := owners{list: func() (map[string]bool, error) { asked++; return map[string]bool{"works": true, "ended": false}, nil }}
	if asked != 0 || !o.active("works") || o.active("ended") || o.active("gone") || asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	o = owners{list: func() (map[string]bool, error) { asked++; return nil, errors.New("away") }}
	if !o.active("gone") || !o.active("ended") || o.err == nil || asked != 2 {
		t.Errorf("asked %d times, %v", asked, o.err)
	}
}

func TestRestThatIsOverForgetsAPolicyAndANamespaceThatAreGone(t *testing.T) {
	l := newLab(t)
	l.backup("ended", "no-such-namespace", func(b *v1alpha1.Backup) {
		b.Spec.Policy, b.Spec.Location = "no-such-policy", ""
		b.Spec.Application.Hooks = []v1alpha1.Hook{{Selector: metav1.LabelSelector{}, Before: []string{"stop"}, After: []string{"go"}}}
	})
	var b v1alpha1.Backup
	l.get("ended", &b)
	b.Status.Phase, b.Status.Resting = v1alpha1.PhaseFailed, []v1alpha1.RestingPod{{Namespace: "no-such-namespace", Pod: "db"}}
	if err := l.cluster.Client.Status().Update(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	_ = l.worker().Tidy(t.Context()) // that the pod ended while it was at rest is an error, once
	if s := l.statusOf("ended"); len(s.Resting) > 0 || s.Started != nil {
		t.Errorf("status %+v", s)
	}
	if err := l.worker().Tidy(t.Context()); err != nil {
		t.Error(err)
	}
}
