// Package fault holds the classes of failure that Backstay tells apart, and what each one means to a script
// (exit code), to Kubernetes (condition reason) and to a scheduler (try again or not).
package fault

import (
	"context"
	"errors"
	"strings"
)

// The classes. An error belongs to at most one of them; find it with errors.Is.
var (
	ErrInvalid     = errors.New("invalid input")
	ErrIncomplete  = errors.New("incomplete")
	ErrNotFound    = errors.New("not found")
	ErrUnsupported = errors.New("not supported")
	ErrDenied      = errors.New("access denied")
	ErrRefused     = errors.New("refused")
	ErrLocked      = errors.New("locked")
	ErrExists      = errors.New("exists already")
	ErrCorrupt     = errors.New("corrupt")
	ErrBusy        = errors.New("busy")
	ErrThrottled   = errors.New("throttled")
	ErrUnavailable = errors.New("unavailable")
)

// Class is what follows from a class of failure.
type Class struct {
	Exit   int    // exit status of the command line
	Reason string // condition reason in CamelCase
	Retry  bool   // whether the same call may succeed later without anybody changing anything
}

var table = []struct {
	err   error
	class Class
}{
	{context.Canceled, Class{130, "Canceled", false}},
	{ErrInvalid, Class{2, "Invalid", false}},
	{ErrIncomplete, Class{3, "Incomplete", false}},
	{ErrNotFound, Class{4, "NotFound", false}},
	{ErrUnsupported, Class{4, "Unsupported", false}},
	{ErrDenied, Class{5, "Denied", false}},
	{ErrRefused, Class{6, "Refused", false}},
	{ErrLocked, Class{6, "Locked", false}},
	{ErrExists, Class{6, "Exists", false}},
	{ErrCorrupt, Class{7, "Corrupt", false}},
	{ErrBusy, Class{8, "Busy", true}},
	{ErrThrottled, Class{75, "Throttled", true}},
	{ErrUnavailable, Class{75, "Unavailable", true}},
	{context.DeadlineExceeded, Class{75, "Unavailable", true}},
}

// Of returns the class of err. Nil is exit 0, reason "Succeeded"; an error of no class is a bug of ours: exit 1, reason "Failed".
func Of(err error) Class {
	if err == nil {
		return Class{0, "Succeeded", false}
	}
	for _, row := range table {
		if errors.Is(err, row.err) {
			return row.class
		}
	}
	return Class{1, "Failed", false}
}

// Named returns the class whose condition reason is given: the way back from a condition to an exit code. Nil for none.
func Named(reason string) error {
	for _, row := range table {
		if row.class.Reason == reason {
			return row.err
		}
	}
	return nil
}

// Error says what went wrong where, and what to do about it.
type Error struct {
	Op   string // the operation and its object, lowercase: "open vault file:///srv/vault"
	Kind error  // one of the classes above; nil where Err carries one already
	Err  error  // the cause; may be nil where Op and Kind say it all
	Hint string // what the user can do, one sentence; may be empty
}

// Error joins operation and cause; the class shows only where there is no cause to show.
func (e *Error) Error() string {
	switch {
	case e.Err != nil && e.Op != "":
		return e.Op + ": " + e.Err.Error()
	case e.Err != nil:
		return e.Err.Error()
	case e.Kind != nil && e.Op != "":
		return e.Op + ": " + e.Kind.Error()
	case e.Kind != nil:
		return e.Kind.Error()
	}
	return e.Op
}

// Unwrap gives errors.Is and errors.As both the class and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	if e.Kind != nil {
		all = append(all, e.Kind)
	}
	if e.Err != nil {
		all = append(all, e.Err)
	}
	return all
}

// New is the short form for an error with a class: op, kind, a cause in words, and a hint (may be empty).
func New(op string, kind error, cause, hint string) error {
	e := &Error{Op: op, Kind: kind, Hint: hint}
	if cause != "" {
		e.Err = errors.New(cause)
	}
	return e
}

// Wrap gives err an operation, a class and a hint. It returns nil for a nil err. A nil kind keeps the class that err has.
func Wrap(op string, kind, err error, hint string) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Kind: kind, Err: err, Hint: hint}
}

// Hints collects the hints in err's tree, outermost first, without repeats.
func Hints(err error) []string {
	var hints []string
	seen := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		if e, ok := err.(*Error); ok && e.Hint != "" && !seen[e.Hint] { //nolint:errorlint // walks the tree itself
			seen[e.Hint] = true
			hints = append(hints, e.Hint)
		}
		switch u := err.(type) { //nolint:errorlint // walks the tree itself
		case interface{ Unwrap() error }:
			if inner := u.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range u.Unwrap() {
				walk(inner)
			}
		}
	}
	if err != nil {
		walk(err)
	}
	return hints
}

// Secret is a string that never prints itself.
type Secret string

// String returns a fixed mask, so that %s and %v print no secret.
func (Secret) String() string { return "[secret]" }

// GoString returns the same mask for %#v.
func (Secret) GoString() string { return "[secret]" }

// MarshalText returns the same mask for JSON, YAML and slog.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Reveal returns the secret itself. Call it only where it is handed to what needs it.
func (s Secret) Reveal() string { return string(s) }

// Redact replaces every occurrence of the secrets in text by a mask. Secrets shorter than four bytes are left, for they would
// mask ordinary words.
func Redact(text string, secrets ...Secret) string {
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, string(s), Secret("").String())
		}
	}
	return text
}
