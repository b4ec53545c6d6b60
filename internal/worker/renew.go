package worker

import (
	"context"
	"errors"
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/volume"
)

// renewedAt is renewed for a location by its name.
func (w *Worker) renewedAt(ctx context.Context, namespace, name string, used volume.Location, err error) error {
	if !errors.Is(err, fault.ErrDenied) {
		return err
	}
	var l v1alpha1.Location
	if w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &l) != nil {
		return err // what is known of the location says enough
	}
	return w.renewed(ctx, &l, used, err)
}

// renewed is err, or where a store denied what the location's Secrets do not say any more, one that has the work taken up again: the
// next process reads them anew.
func (w *Worker) renewed(ctx context.Context, l *v1alpha1.Location, used volume.Location, err error) error {
	if !errors.Is(err, fault.ErrDenied) {
		return err
	}
	now, readErr := w.secrets(ctx, l)
	if readErr != nil || sameAccess(now, used) {
		return err
	}
	return fault.New("location "+l.Name, fault.ErrUnavailable, "its secrets were changed meanwhile: "+err.Error(), "")
}

// sameAccess reports whether two readings of a location's secrets open the same; which of two passwords comes first does not matter.
func sameAccess(a, b volume.Location) bool {
	same := a.Password == b.Password && a.OtherPassword == b.OtherPassword
	swapped := a.Password == b.OtherPassword && a.OtherPassword == b.Password
	return a.URL == b.URL && (same || swapped) && maps.Equal(a.Credentials, b.Credentials)
}
