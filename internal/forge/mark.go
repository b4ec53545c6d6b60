package forge

import "time"

// markAge is how old a push must be for its time to tell one state from the next: those times have whole seconds, and servers write
// them some time after the push.
const markAge = time.Minute

// MarkOf makes a Repository's Mark of the time of its last push, as listed in an answer of the time listed by the same server's clock
// (Response.Date). It is "" where another push could still get the same mark.
func MarkOf(pushed, listed time.Time) string {
	if pushed.IsZero() || listed.IsZero() || listed.Sub(pushed) < markAge {
		return ""
	}
	return pushed.UTC().Format(time.RFC3339Nano)
}
