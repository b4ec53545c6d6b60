package forge

import (
	"encoding/json"
	"errors"
	"iter"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Repositories is a list, as providers put a selection together from several. It ends with an error unless it is complete.
type Repositories = iter.Seq2[Repository, error]

// maxReadings is how often a list is read that changes meanwhile.
const maxReadings = 3

// Union yields what lists hold, one list after the other, no repository twice: the class of the first one stands. What is not there, or
// refused, costs no other list. The errors come at the end.
func Union(lists ...Repositories) Repositories {
	return func(yield func(Repository, error) bool) {
		var failed []error
		seen := map[string]bool{}
		for _, list := range lists {
			stopped, err := yieldAll(list, func(r Repository) bool {
				if seen[r.ID] {
					return true
				}
				seen[r.ID] = true
				return yield(r, nil)
			})
			if stopped {
				return
			}
			if err != nil {
				failed = append(failed, err)
			}
			if err != nil && !ofOneList(err) {
				break
			}
		}
		if len(failed) > 0 {
			yield(Repository{}, errors.Join(failed...))
		}
	}
}

// ofOneList reports whether what failed may fail for one list, and not for others.
func ofOneList(err error) bool {
	return errors.Is(err, fault.ErrNotFound) || errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrUnsupported)
}

// Steady reads a list again that turns out to be incomplete (fault.ErrIncomplete), up to three times: where pages are cut by number,
// what follows something deleted meanwhile moves up, and one item goes unseen. What comes twice is Union's to notice.
func Steady(list Repositories) Repositories {
	return func(yield func(Repository, error) bool) {
		for reading := 1; ; reading++ {
			stopped, err := yieldAll(list, func(r Repository) bool { return yield(r, nil) })
			switch {
			case stopped:
				return
			case errors.Is(err, fault.ErrIncomplete) && reading < maxReadings:
			case err != nil:
				yield(Repository{}, err)
				return
			default:
				return
			}
		}
	}
}

// yieldAll hands on what a list holds, until its end, its error, or until yield is content.
func yieldAll(list Repositories, yield func(Repository) bool) (stopped bool, err error) {
	for r, err := range list {
		if err != nil {
			return false, err
		}
		if !yield(r) {
			return true, nil
		}
	}
	return false, nil
}

// Refusal is a list that cannot be read.
func Refusal(err error) Repositories {
	return func(yield func(Repository, error) bool) { yield(Repository{}, err) }
}

// Decode makes repositories of what pages hold. decode is also told when the forge answered, by its own clock.
func Decode(pages iter.Seq2[Page, error], decode func(raw json.RawMessage, answered time.Time) (Repository, error)) Repositories {
	return func(yield func(Repository, error) bool) {
		for page, err := range pages {
			if err != nil {
				yield(Repository{}, err)
				return
			}
			for _, raw := range page.Items {
				r, err := decode(raw, page.Response.Date())
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}
