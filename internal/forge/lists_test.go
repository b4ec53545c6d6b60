package forge_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// listOf yields repositories by their IDs, and then an error.
func listOf(ids string, err error) forge.Repositories {
	return func(yield func(forge.Repository, error) bool) {
		for _, id := range strings.Fields(ids) {
			if !yield(forge.Repository{ID: id}, nil) {
				return
			}
		}
		if err != nil {
			yield(forge.Repository{}, err)
		}
	}
}

// idsOf reads a list, and says how it ended.
func idsOf(list forge.Repositories) (ids string, err error) {
	var all []string
	for r, failed := range list {
		if failed != nil {
			err = errors.Join(err, failed) // of one error more than it may give
			continue
		}
		all = append(all, r.ID)
	}
	return strings.Join(all, " "), err
}

func TestUnion(t *testing.T) {
	denied := fault.New("list acme", fault.ErrDenied, "no", "")
	gone := fault.New("list gone", fault.ErrNotFound, "no such organisation", "")
	away := fault.New("list away", fault.ErrUnavailable, "502", "")
	for _, test := range []struct {
		name  string
		lists []forge.Repositories
		ids   string
		errs  []error
	}{
		{"none", nil, "", nil},
		{"each once", []forge.Repositories{listOf("1 2 2", nil), listOf("2 3", nil)}, "1 2 3", nil},
		{"what is refused costs no other", []forge.Repositories{listOf("1", denied), listOf("2", gone), listOf("3", nil)}, "1 2 3", []error{denied, gone}},
		{"a forge that is away is asked no more", []forge.Repositories{listOf("1", away), listOf("2", nil)}, "1", []error{away}},
		{"what is not had is said last", []forge.Repositories{forge.Refusal(denied), listOf("1", nil)}, "1", []error{denied}},
		{"interrupted", []forge.Repositories{listOf("1", context.Canceled), listOf("2", nil)}, "1", []error{context.Canceled}},
	} {
		ids, err := idsOf(forge.Union(test.lists...))
		if ids != test.ids || (err == nil) != (len(test.errs) == 0) {
			t.Errorf("%s: %q, %v", test.name, ids, err)
		}
		for _, want := range test.errs {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want it to be %v", test.name, err, want)
			}
		}
	}
	read := 0
	forge.Union(listOf("1 2", denied), listOf("3", nil))(func(forge.Repository, error) bool {
		read++
		return false
	})
	if read != 1 {
		t.Errorf("%d came though nobody wanted more", read-1)
	}
}

func TestSteady(t *testing.T) {
	less := fault.New("list", fault.ErrIncomplete, "the forge has 3 and gave 2", "")
	away := fault.New("list", fault.ErrUnavailable, "502", "")
	for _, test := range []struct {
		name     string
		readings []forge.Repositories
		ids      string
		err      error
	}{
		{"steady", []forge.Repositories{listOf("1 2", nil)}, "1 2", nil},
		{"shrinks once", []forge.Repositories{listOf("1 3", less), listOf("1 2 3", nil)}, "1 3 1 2 3", nil},
		{"keeps shrinking", slices.Repeat([]forge.Repositories{listOf("1", less)}, 3), "1 1 1", fault.ErrIncomplete},
		{"fails otherwise", []forge.Repositories{listOf("1", away)}, "1", fault.ErrUnavailable},
	} {
		read := 0
		ids, err := idsOf(forge.Steady(func(yield func(forge.Repository, error) bool) {
			if read++; read <= len(test.readings) {
				test.readings[read-1](yield)
			}
		}))
		if ids != test.ids || !errors.Is(err, test.err) || read != len(test.readings) {
			t.Errorf("%s: %q in %d readings, %v", test.name, ids, read, err)
		}
	}
}
