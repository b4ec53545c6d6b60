package cli

import (
	"bytes"
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// A cluster keeps its key in a Secret in Backstay's own namespace, and in a ConfigMap of the same name the public half of every key that
// ever signed there: they may be read by who may not sign, and tell a Secret that was lost from one that never was.
const (
	clusterEvidence    = "backstay-evidence"
	evidencePrivateKey = "key.pem"
	evidencePublicKeys = "public.pem"
)

// clusterEvidenceKey is the key of a cluster. It is made on first use. Where it is lost none is made in its place: who checks would not
// know it, and could not tell it from one that somebody slipped in.
func clusterEvidenceKey(ctx context.Context, c client.Client, system string) (*evidence.Key, error) {
	op := "read secret " + system + "/" + clusterEvidence
	name := types.NamespacedName{Namespace: system, Name: clusterEvidence}
	var public corev1.ConfigMap // before the Secret, or one that is just being made would seem to be lost
	if err := c.Get(ctx, name, &public); client.IgnoreNotFound(err) != nil {
		return nil, fault.Wrap("read configmap "+name.String(), kube.ClassOf(err), err, "")
	}
	var secret corev1.Secret
	err := c.Get(ctx, name, &secret)
	switch {
	case apierrors.IsNotFound(err) && public.Data[evidencePublicKeys] != "":
		return nil, fault.New(op, fault.ErrNotFound, "it is lost: put its copy back, or a new key, as docs/evidence.md says", "")
	case apierrors.IsNotFound(err):
		secret = corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: clusterEvidence},
			Data:       map[string][]byte{evidencePrivateKey: evidence.NewKey().PEM()},
		}
		if err = c.Create(ctx, &secret); apierrors.IsAlreadyExists(err) { // another was faster
			err = c.Get(ctx, name, &secret)
		}
	}
	if err != nil {
		return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	key, err := evidence.ParseKey(secret.Data[evidencePrivateKey])
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if err := publishEvidenceKey(ctx, c, name, key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}

// publishEvidenceKey adds a key to those that the ConfigMap has.
func publishEvidenceKey(ctx context.Context, c client.Client, name types.NamespacedName, key evidence.PublicKey) error {
	var public corev1.ConfigMap
	again := func(err error) bool {
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
	}
	err := retry.OnError(retry.DefaultBackoff, again, func() error {
		public = corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		found := c.Get(ctx, name, &public)
		known := public.Data[evidencePublicKeys]
		switch {
		case client.IgnoreNotFound(found) != nil:
			return found
		case bytes.Contains([]byte(known), key.PEM()):
			return nil
		}
		public.Data = map[string]string{evidencePublicKeys: known + string(key.PEM())}
		if found != nil {
			return c.Create(ctx, &public)
		}
		return c.Update(ctx, &public)
	})
	return fault.Wrap("write configmap "+name.String(), kube.ClassOf(err), err, "")
}
