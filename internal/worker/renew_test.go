package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/volume"
)

// lock is the password that a vault has, and those that were tried on it.
type lock struct {
	password string
	tried    []string
	halfway  bool // between the two writes of a change
}

// locked makes a worker whose vault has a lock.
func (l *lab) locked(k *lock) *Worker {
	w := l.worker()
	open := w.Open
	w.Open = func(ctx context.Context, at volume.Location, create bool) (Store, error) {
		k.tried = append(k.tried, at.Password)
		switch {
		case k.halfway:
			return nil, fault.New("open", fault.ErrCorrupt, "damaged", "")
		case at.Password != k.password:
			return nil, fault.New("open", fault.ErrDenied, "wrong password", "")
		}
		return open(ctx, at, create)
	}
	w.Rotate = func(_ context.Context, at volume.Location) (bool, error) {
		switch k.password {
		case at.OtherPassword:
			return false, nil
		case at.Password:
			k.password, k.halfway = at.OtherPassword, false
			return true, nil
		}
		return false, fault.New("rotate", fault.ErrDenied, "wrong password", "")
	}
	return w
}

// sayLocation changes the Location.
func (l *lab) sayLocation(change func(*v1alpha1.LocationSpec)) {
	l.Helper()
	var location v1alpha1.Location
	l.get("main", &location)
	change(&location.Spec)
	if err := l.cluster.Client.Update(l.Context(), &location); err != nil {
		l.Fatal(err)
	}
}

// saySecret sets a key of the Location's Secret.
func (l *lab) saySecret(key, value string) {
	l.Helper()
	var secret corev1.Secret
	l.get("vault", &secret)
	secret.Data[key] = []byte(value)
	if err := l.cluster.Client.Update(l.Context(), &secret); err != nil {
		l.Fatal(err)
	}
}

// TestPasswordIsRotated goes through a rotation: at each step every worker opens the vault.
func TestPasswordIsRotated(t *testing.T) {
	l := newLab(t)
	k := &lock{password: "secret"}
	w := l.locked(k)
	opens := func(step string) {
		t.Helper()
		if store, _, err := w.open(t.Context(), l.system, "main", true); err != nil {
			t.Errorf("%s: %v", step, err)
		} else if err := store.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	look := func() v1alpha1.LocationStatus {
		t.Helper()
		if err := w.Location(t.Context(), l.system, "main"); err != nil {
			t.Fatal(err)
		}
		return l.locationStatus()
	}
	opens("before")
	if s := look(); s.PasswordChanged != nil {
		t.Error("it says that the password was changed")
	}
	l.saySecret("next", "fresh")
	l.sayLocation(func(s *v1alpha1.LocationSpec) {
		s.NewPassword = &v1alpha1.Secret{SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "vault", Key: "next"}}
	})
	opens("asked for")
	if v, err := w.vaultOf(t.Context(), l.system, "main"); err != nil || v.Password != "secret" || v.OtherPassword != "fresh" {
		t.Errorf("a Profile of the location: %+v, %v", v, err)
	}
	if s := look(); s.PasswordChanged == nil || k.password != "fresh" || !strings.Contains(s.Conditions[0].Message, "take newPassword away") {
		t.Errorf("the vault has %q, status %+v", k.password, s)
	}
	opens("changed")
	if s := look(); s.PasswordChanged == nil {
		t.Error("a second look forgets it")
	}
	l.saySecret("password", "fresh")
	opens("both are the new one")
	look()
	l.sayLocation(func(s *v1alpha1.LocationSpec) { s.NewPassword = nil })
	k.tried = nil
	opens("afterwards")
	if s := look(); s.PasswordChanged != nil {
		t.Error("it is still said")
	}
	if slices.Contains(k.tried, "secret") {
		t.Errorf("tried %q", k.tried)
	}
}

func TestChangeUnderWayIsWaitedFor(t *testing.T) {
	l := newLab(t)
	k := &lock{password: "secret", halfway: true}
	w := l.locked(k)
	_, _, err := w.open(t.Context(), l.system, "main", false)
	if !errors.Is(err, fault.ErrCorrupt) {
		t.Errorf("without a change: %v", err)
	}
	l.saySecret("next", "fresh")
	l.sayLocation(func(s *v1alpha1.LocationSpec) {
		s.NewPassword = &v1alpha1.Secret{SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "vault", Key: "next"}}
	})
	if _, _, err := w.open(t.Context(), l.system, "main", false); !again(t.Context(), err) {
		t.Errorf("it is not tried again: %v", err)
	}
	if err := w.Location(t.Context(), l.system, "main"); err != nil || k.password != "fresh" {
		t.Errorf("the change was not ended: %v", err)
	}
}

// TestRevokedCredentialsAreReadAnew: a worker holds a key that is revoked; where the Secret has another by then, the work is taken up again.
func TestRevokedCredentialsAreReadAnew(t *testing.T) {
	l := newLab(t)
	l.saySecret("access", "old")
	l.sayLocation(func(s *v1alpha1.LocationSpec) {
		s.Credentials = map[string]v1alpha1.Secret{"AWS_ACCESS_KEY_ID": {SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "vault", Key: "access"}}}
	})
	w := l.worker()
	_, used, err := w.open(t.Context(), l.system, "main", true)
	if err != nil {
		t.Fatal(err)
	}
	denied := fault.New("write pack", fault.ErrDenied, "InvalidAccessKeyId", "")
	if err := w.renewedAt(t.Context(), l.system, "main", used, denied); again(t.Context(), err) || !errors.Is(err, fault.ErrDenied) {
		t.Errorf("the Secret is as it was, and it is tried again: %v", err)
	}
	l.saySecret("access", "new")
	if err := w.renewedAt(t.Context(), l.system, "main", used, denied); !again(t.Context(), err) {
		t.Errorf("the Secret is another, and it is not tried again: %v", err)
	}
	gone := fault.New("read part", fault.ErrNotFound, "gone", "")
	if err := w.renewedAt(t.Context(), l.system, "main", used, gone); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("another failure became %v", err)
	}
	if err := w.renewedAt(t.Context(), l.system, "main", used, nil); err != nil {
		t.Error(err)
	}
}
