package cli

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
)

// knownKeys are the ids of the keys that a cluster has published.
func knownKeys(t *testing.T, c client.Client) (ids []string) {
	t.Helper()
	var public corev1.ConfigMap
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "system", Name: clusterEvidence}, &public); err != nil {
		t.Fatal(err)
	}
	keys, err := evidence.ParsePublicKeys([]byte(public.Data[evidencePublicKeys]))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		ids = append(ids, k.ID())
	}
	return ids
}

// TestClusterHasOneKey: workers that begin at once agree on a key, and one that is lost is not exchanged for another.
func TestClusterHasOneKey(t *testing.T) {
	c := fake.NewClientBuilder().Build()
	keys := make([]*evidence.Key, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			key, err := clusterEvidenceKey(t.Context(), c, "system")
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, k := range keys {
		if k.String() != keys[0].String() {
			t.Fatalf("keys %v", keys)
		}
	}
	if known := knownKeys(t, c); len(known) != 1 || known[0] != keys[0].String() {
		t.Errorf("published %q, want %v", known, keys[0])
	}

	secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: clusterEvidence}}
	if err := c.Delete(t.Context(), &secret); err != nil {
		t.Fatal(err)
	}
	if _, err := clusterEvidenceKey(t.Context(), c, "system"); !errors.Is(err, fault.ErrNotFound) || !strings.Contains(err.Error(), "it is lost") {
		t.Errorf("a Secret that was deleted: %v", err)
	}
	mine := evidence.NewKey()
	secret = corev1.Secret{ObjectMeta: secret.ObjectMeta, Data: map[string][]byte{evidencePrivateKey: mine.PEM()}}
	secret.ResourceVersion = ""
	if err := c.Create(t.Context(), &secret); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if key, err := clusterEvidenceKey(t.Context(), c, "system"); err != nil || key.String() != mine.String() {
			t.Fatalf("got %v, %v", key, err)
		}
	}
	if known := knownKeys(t, c); len(known) != 2 || known[0] != keys[0].String() || known[1] != mine.String() {
		t.Errorf("published %q, want %v and %v", known, keys[0], mine)
	}
}

// TestClusterKeyThatCannotBePublished is not used: nobody could check what it signs.
func TestClusterKeyThatCannotBePublished(t *testing.T) {
	denied := errors.New("denied")
	c := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, to client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if _, is := o.(*corev1.ConfigMap); is {
				return denied
			}
			return to.Create(ctx, o, opts...)
		},
	}).Build()
	for range 2 {
		if _, err := clusterEvidenceKey(t.Context(), c, "system"); !errors.Is(err, denied) {
			t.Errorf("got %v", err)
		}
	}
}
