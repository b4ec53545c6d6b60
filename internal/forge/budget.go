package forge

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Budget is what forges still allow, by host and credentials. Clients that are given the same one share it. The zero value is ready
// for use. Safe for concurrent use.
type Budget struct {
	mu       sync.Mutex
	accounts map[string]*allowance
}

func (b *Budget) of(account string) *allowance {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.accounts == nil {
		b.accounts = map[string]*allowance{}
	}
	if b.accounts[account] == nil {
		b.accounts[account] = &allowance{quotas: map[string]quota{}}
	}
	return b.accounts[account]
}

// allowance is what one host allows one account.
type allowance struct {
	mu     sync.Mutex
	quotas map[string]quota // by resource
	until  time.Time        // nothing is asked before
	pushed int              // how often in a row the forge pushed back without saying for how long
}

// quota is a number of requests until a time.
type quota struct {
	remaining, limit int
	reset            time.Time
}

// wait says how long a request must wait at now.
func (a *allowance) wait(resource string, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	until := a.until
	if q, ok := a.quotas[resource]; ok && q.remaining <= 0 && q.reset.After(until) {
		until = q.reset
	}
	return until.Sub(now)
}

// spend takes one request off.
func (a *allowance) spend(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q, ok := a.quotas[resource]; ok {
		q.remaining--
		a.quotas[resource] = q
	}
}

func (a *allowance) set(resource string, q quota) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quotas[resource] = q
}

// longestPause bounds what a forge can ask for. Limits are counted by the hour; a nonsense of years must not keep a process that runs on
// from ever asking again.
const longestPause = 24 * time.Hour

// firstBackOff is the least wait that GitHub wants after a secondary limit that names none.
const firstBackOff = time.Minute

// pushBack holds everything back: for as long as the forge asked, or, where it did not say, twice as long each time.
func (a *allowance) pushBack(now time.Time, asked time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if asked <= 0 {
		if now.Before(a.until) {
			return // requests that were under way together are one push
		}
		asked = firstBackOff << min(a.pushed, 10)
		a.pushed++
	}
	if until := now.Add(min(asked, longestPause)); until.After(a.until) {
		a.until = until
	}
}

// relax forgets earlier pushes after an answer that was none.
func (a *allowance) relax() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pushed = 0
}

// unnoticed is the longest wait that nobody is told of.
const unnoticed = 5 * time.Second

// admit waits until the forge allows a request.
func (c *Client) admit(ctx context.Context, resource string) error {
	for {
		now := c.o.Clock()
		wait := c.account.wait(resource, now)
		if wait <= 0 {
			c.account.spend(resource)
			return ctx.Err()
		}
		if wait > c.o.MaxWait {
			until := now.Add(wait).UTC().Format(time.DateTime) + " UTC"
			return fault.New("", fault.ErrThrottled, "the forge allows no more requests until "+until, "run it again after "+until)
		}
		if wait > unnoticed {
			c.o.Waiting(now.Add(wait))
		}
		if err := c.o.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// note keeps what an answer's headers say of limits, token and scopes.
func (c *Client) note(resource string, h http.Header) {
	now := c.o.Clock()
	q, limited := quotaOf(h, now)
	if named := h.Get("X-RateLimit-Resource"); named != "" && named != "core" {
		resource = named
	}
	if limited {
		c.account.set(resource, q)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if limited && resource == "" {
		c.seen.Remaining, c.seen.Limit, c.seen.Reset = max(q.remaining, 0), q.limit, q.reset
	}
	if expires, ok := expiryOf(h); ok {
		c.seen.Expires = expires
	}
	if scopes, ok := h["X-Oauth-Scopes"]; ok {
		c.seen.Scopes = listOf(strings.Join(scopes, ","))
	}
}

// quotaOf reads the rate limit of GitHub's, GitLab's and the IETF draft's headers.
func quotaOf(h http.Header, now time.Time) (quota, bool) {
	for _, prefix := range []string{"X-RateLimit-", "RateLimit-"} {
		remaining, err := strconv.Atoi(strings.TrimSpace(h.Get(prefix + "Remaining")))
		if err != nil {
			continue
		}
		limit, _ := strconv.Atoi(strings.TrimSpace(h.Get(prefix + "Limit"))) // 0 where it does not say
		reset, err := strconv.ParseInt(strings.TrimSpace(h.Get(prefix+"Reset")), 10, 64)
		if err != nil || reset < 0 || reset > 1<<34 {
			continue
		}
		return quota{remaining, max(limit, 0), earlier(resetTime(reset, h, now), now.Add(longestPause))}, true
	}
	return quota{}, false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// resetTime reads a reset: seconds from now, or a Unix time by the server's clock.
func resetTime(reset int64, h http.Header, now time.Time) time.Time {
	const longest = 1 << 30 // seconds; what is more is a Unix time
	if reset < longest {
		return now.Add(time.Duration(reset) * time.Second)
	}
	return byOurClock(time.Unix(reset, 0), h, now)
}

// byOurClock translates a time by the server's clock, and rounds it up, for headers have whole seconds.
func byOurClock(at time.Time, h http.Header, now time.Time) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return now.Add(at.Sub(date) + time.Second)
	}
	return at.Add(time.Second)
}

// retryAfter reads how long the forge asks to wait: seconds or a date. 0 where it does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 1<<30)) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(byOurClock(date, h, now).Sub(now), 0)
	}
	return 0
}

// expiryOf reads when GitHub says that the token expires.
func expiryOf(h http.Header) (time.Time, bool) {
	value := h.Get("Github-Authentication-Token-Expiration")
	for _, layout := range []string{"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700"} {
		if t, err := time.Parse(layout, value); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// listOf splits a list with commas.
func listOf(text string) []string {
	list := []string{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}
