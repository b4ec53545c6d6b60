package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
)

// leasePrefix begins the names of leases. They are not put under object lock.
const leasePrefix blob.ID = "bl"

// errLeaseLost is why work under a lease is cancelled.
var errLeaseLost = errors.New("the maintenance lease was lost")

// lease lets one maintainer at a time work on a vault, through nothing but blobs of the store itself: kopia's own lock is a file
// on the local disk.
//
// A contender writes a blob of its own and lists them all. It holds the lease once it sees no other live one. As a store lists
// what was written before, of two contenders the one that wrote later sees the other, so never both hold it. Where several see
// each other, all but the one of the least name withdraw. A lease that is not renewed runs out.
type lease struct {
	st     blob.Storage
	now    func() time.Time
	owner  string        // as others are told
	term   time.Duration // for which a lease is good without being renewed
	renew  time.Duration // between renewals
	skew   time.Duration // by which clocks may differ
	settle time.Duration // for which the least contender waits for the others to withdraw
}

// leaseBody is what a lease blob holds.
type leaseBody struct {
	Owner    string    `json:"owner"`
	Process  string    `json:"process,omitempty"` // by which the next one on the same machine sees that the owner was killed
	Since    time.Time `json:"since"`
	Renewed  time.Time `json:"renewed"`
	Expires  time.Time `json:"expires"`
	Released bool      `json:"released,omitempty"` // counts as gone; a store may refuse to delete the blob
}

// rival is another's live lease.
type rival struct {
	id blob.ID
	leaseBody
}

func newLease(st blob.Storage, now func() time.Time) lease {
	host, err := os.Hostname()
	if err != nil {
		host = "a host without name"
	}
	return lease{
		st: st, now: now, owner: host + " process " + strconv.Itoa(os.Getpid()),
		term: 5 * time.Minute, renew: time.Minute, skew: 5 * time.Minute, settle: 10 * time.Second,
	}
}

// hold runs do while holding the lease. It returns fault.ErrBusy, naming the holder, when somebody else has it. The context given
// to do ends when the lease is lost, and hold fails then, whatever do returns.
func (l lease) hold(ctx context.Context, do func(context.Context) error) error {
	id := leasePrefix + blob.ID(randomID())
	since := l.now().UTC()
	expires, err := l.acquire(ctx, id, since)
	if err != nil {
		return err
	}
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.keep(held, cancel, id, since, expires)
	}()
	err = do(held)
	cancel(nil)
	<-done
	if errors.Is(context.Cause(held), errLeaseLost) {
		err = fault.Wrap("hold maintenance lease", fault.ErrBusy, context.Cause(held), "run it again")
	}
	return errors.Join(err, l.withdraw(ctx, id))
}

// acquire returns when the lease under id was got, and until when it is good.
func (l lease) acquire(ctx context.Context, id blob.ID, since time.Time) (expires time.Time, err error) {
	// Whoever comes while it is held leaves no trace.
	others, err := l.rivals(ctx, "")
	if err != nil {
		return expires, err
	}
	if len(others) > 0 {
		return expires, l.busy(others[0])
	}
	if expires, err = l.put(ctx, id, since); err != nil {
		return expires, errors.Join(storageFault("take maintenance lease", err), l.withdraw(ctx, id))
	}
	if err := l.contend(ctx, id); err != nil {
		return expires, errors.Join(err, l.withdraw(ctx, id))
	}
	return expires, nil
}

// contend waits until id is alone, and gives up to whom it must.
func (l lease) contend(ctx context.Context, id blob.ID) error {
	const polls = 50
	for poll := 1; ; poll++ {
		others, err := l.rivals(ctx, id)
		if err != nil {
			return err
		}
		if len(others) == 0 {
			return nil
		}
		if others[0].id < id || poll > polls {
			return l.busy(others[0])
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(l.settle / polls):
		}
	}
}

func (l lease) busy(r rival) error {
	who := r.Owner
	if who == "" {
		who = "somebody"
	}
	return fault.New("take maintenance lease", fault.ErrBusy,
		fmt.Sprintf("%s maintains the vault since %s", who, r.Since.UTC().Format(time.RFC3339)),
		"try again later; the lease of a maintainer that was killed runs out by itself within "+(l.term+l.skew).String())
}

// rivals lists the live leases but own, by name. Those that ran out, or whose owner was killed on this machine, are
// taken away.
func (l lease) rivals(ctx context.Context, own blob.ID) ([]rival, error) {
	all, err := blob.ListAllBlobs(ctx, l.st, leasePrefix)
	if err != nil {
		return nil, storageFault("list maintenance leases", err)
	}
	var live []rival
	for _, m := range all {
		if m.BlobID == own {
			continue
		}
		b, found, err := l.get(ctx, m)
		switch {
		case err != nil:
			return nil, err
		case !found || b.Released:
		case l.now().After(b.Expires.Add(l.skew)), wasKilled(b.Process):
			if err := l.withdraw(ctx, m.BlobID); err != nil {
				return nil, err
			}
		case len(live) > 0 && live[0].id > m.BlobID:
			live = append([]rival{{m.BlobID, b}}, live...) // the least first; the order of the rest does not matter
		default:
			live = append(live, rival{m.BlobID, b})
		}
	}
	return live, nil
}

// get reads a lease. One that cannot be understood is good for a term from when it was written.
func (l lease) get(ctx context.Context, m blob.Metadata) (b leaseBody, found bool, err error) {
	text, err := getBlob(ctx, l.st, m.BlobID)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return b, false, nil
	}
	if err != nil {
		return b, false, storageFault("read maintenance lease", err)
	}
	if json.Unmarshal(text, &b) != nil || b.Expires.IsZero() && !b.Released {
		b = leaseBody{Since: m.Timestamp, Expires: m.Timestamp.Add(l.term)}
	}
	return b, true, nil
}

// put writes or renews a lease.
func (l lease) put(ctx context.Context, id blob.ID, since time.Time) (expires time.Time, err error) {
	now := l.now().UTC()
	expires = now.Add(l.term)
	return expires, l.write(ctx, id, leaseBody{
		Owner: l.owner, Process: process(os.Getpid()), Since: since, Renewed: now, Expires: expires,
	})
}

func (l lease) write(ctx context.Context, id blob.ID, b leaseBody) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode lease: %w", err)
	}
	return l.st.PutBlob(ctx, id, &raw{text}, blob.PutOptions{})
}

// withdraw marks a lease as released and deletes it. It does so also for a context that has ended. That a store refuses to delete
// is no failure: the mark is enough.
func (l lease) withdraw(ctx context.Context, id blob.ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.renew)
	defer cancel()
	if err := l.write(ctx, id, leaseBody{Owner: l.owner, Released: true}); err != nil {
		return storageFault("give maintenance lease back", err)
	}
	_ = l.st.DeleteBlob(ctx, id)
	return nil
}

// keep renews the lease until ctx ends, and cancels when the lease was taken away or could not be renewed in time.
func (l lease) keep(ctx context.Context, cancel context.CancelCauseFunc, id blob.ID, since, expires time.Time) {
	tick := time.NewTicker(l.renew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !l.now().Before(expires) {
			cancel(fmt.Errorf("%w: it ran out at %s", errLeaseLost, expires.Format(time.RFC3339)))
			return
		}
		until, err := l.renewOnce(ctx, id, since)
		if errors.Is(err, errLeaseLost) {
			cancel(err)
			return
		}
		if err == nil { // else there is time to try again until it runs out
			expires = until
		}
	}
}

func (l lease) renewOnce(ctx context.Context, id blob.ID, since time.Time) (expires time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.renew)
	defer cancel()
	b, found, err := l.get(ctx, blob.Metadata{BlobID: id, Timestamp: since})
	if err != nil {
		return expires, err
	}
	if !found || b.Released {
		return expires, fmt.Errorf("%w: somebody took it over", errLeaseLost)
	}
	return l.put(ctx, id, since)
}
