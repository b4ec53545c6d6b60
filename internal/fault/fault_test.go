package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func TestOf(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		exit   int
		reason string
		retry  bool
	}{
		{"nil", nil, 0, "Succeeded", false},
		{"no class", errors.New("boom"), 1, "Failed", false},
		{"class itself", fault.ErrCorrupt, 7, "Corrupt", false},
		{"wrapped by fmt", fmt.Errorf("read: %w", fault.ErrDenied), 5, "Denied", false},
		{"wrapped twice", fault.Wrap("b", nil, fault.New("a", fault.ErrBusy, "c", ""), ""), 8, "Busy", true},
		{"joined with one of no class", errors.Join(errors.New("boom"), fault.ErrIncomplete), 3, "Incomplete", false},
		{"interrupted while unavailable", fault.Wrap("fetch", fault.ErrUnavailable, context.Canceled, ""), 130, "Canceled", false},
		{"deadline", fmt.Errorf("fetch: %w", context.DeadlineExceeded), 75, "Unavailable", true},
		{"new class over an old one", fault.Wrap("open", fault.ErrNotFound, fault.New("stat", fault.ErrUnavailable, "", ""), ""), 4, "NotFound", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := fault.Of(test.err); got != (fault.Class{Exit: test.exit, Reason: test.reason, Retry: test.retry}) {
				t.Errorf("got %+v, want exit %d, %s, retry %v", got, test.exit, test.reason, test.retry)
			}
		})
	}
}

func TestMessages(t *testing.T) {
	cause := errors.New("no route")
	tests := []struct {
		err  error
		want string
	}{
		{fault.New("open vault", fault.ErrDenied, "", ""), "open vault: access denied"},
		{fault.New("open vault", fault.ErrDenied, "wrong password", ""), "open vault: wrong password"},
		{fault.New("", fault.ErrBusy, "", ""), "busy"},
		{fault.Wrap("fetch", fault.ErrUnavailable, cause, "try again"), "fetch: no route"},
		{fault.Wrap("", fault.ErrUnavailable, cause, ""), "no route"},
		{fault.Wrap("outer", nil, fault.Wrap("inner", nil, cause, ""), ""), "outer: inner: no route"},
	}
	for _, test := range tests {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	if err := fault.Wrap("fetch", fault.ErrUnavailable, nil, "hint"); err != nil {
		t.Errorf("wrapping nil gives %v", err)
	}
	if err := fault.Wrap("fetch", fault.ErrUnavailable, cause, ""); !errors.Is(err, cause) {
		t.Error("the cause is not found through the wrap")
	}
}

func TestHints(t *testing.T) {
	inner := fault.New("a", fault.ErrDenied, "", "first")
	err := errors.Join(
		fault.Wrap("b", nil, fmt.Errorf("between: %w", inner), "outer"),
		fault.New("c", fault.ErrBusy, "", "first"),
		errors.New("plain"),
		fault.New("d", fault.ErrBusy, "", ""),
	)
	if got, want := fault.Hints(err), []string{"outer", "first"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := fault.Hints(nil); got != nil {
		t.Errorf("hints of nil: %q", got)
	}
}

func TestSecretsPrintNothing(t *testing.T) {
	const secret = fault.Secret("hunter22")
	document, err := json.Marshal(map[string]any{"password": secret})
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("%s %v %+v %#v %q %s", secret, secret, struct{ S fault.Secret }{secret}, secret, secret, document)
	if strings.Contains(said, secret.Reveal()) {
		t.Errorf("printed: %s", said)
	}
	if secret.Reveal() != "hunter22" {
		t.Errorf("revealed %q", secret.Reveal())
	}
}

func TestRedact(t *testing.T) {
	got := fault.Redact("hunter22 and the abc of hunter22", "hunter22", "abc", "")
	if want := "[secret] and the abc of [secret]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
