package vault

import (
	"bytes"
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// lockStore is a versioned store in memory with object lock and a clock of its own.
type lockStore struct {
	blob.DefaultProviderImplementation
	clock *handClock

	mu         sync.Mutex
	blobs      map[blob.ID]lockedBlob
	failExtend error
}

type lockedBlob struct {
	data       []byte
	put, until time.Time
}

func newLockStore(clock *handClock) *lockStore {
	return &lockStore{clock: clock, blobs: map[blob.ID]lockedBlob{}}
}

func (s *lockStore) PutBlob(_ context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := lockedBlob{data: readAll(data), put: s.clock.now()}
	if o.HasRetentionOptions() {
		b.until = b.put.Add(o.RetentionPeriod)
	}
	s.blobs[id] = b
	if o.GetModTime != nil {
		*o.GetModTime = b.put
	}
	return nil
}

func (s *lockStore) GetBlob(_ context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[id]
	if !ok {
		return blob.ErrBlobNotFound
	}
	data := b.data
	if length >= 0 {
		if offset < 0 || offset+length > int64(len(data)) {
			return blob.ErrInvalidRange
		}
		data = data[offset : offset+length]
	}
	out.Reset()
	_, err := out.Write(data)
	return err
}

func (s *lockStore) GetMetadata(_ context.Context, id blob.ID) (blob.Metadata, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[id]
	if !ok {
		return blob.Metadata{}, blob.ErrBlobNotFound
	}
	return blob.Metadata{BlobID: id, Length: int64(len(b.data)), Timestamp: b.put}, nil
}

func (s *lockStore) ListBlobs(_ context.Context, prefix blob.ID, each func(blob.Metadata) error) error {
	s.mu.Lock()
	var all []blob.Metadata
	for id, b := range s.blobs {
		if strings.HasPrefix(string(id), string(prefix)) {
			all = append(all, blob.Metadata{BlobID: id, Length: int64(len(b.data)), Timestamp: b.put})
		}
	}
	s.mu.Unlock()
	for _, m := range all {
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *lockStore) DeleteBlob(_ context.Context, id blob.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, id)
	return nil
}

func (s *lockStore) ExtendBlobRetention(_ context.Context, id blob.ID, o blob.ExtendOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[id]
	switch {
	case s.failExtend != nil:
		return s.failExtend
	case !ok:
		return blob.ErrBlobNotFound
	}
	b.until = s.clock.now().Add(o.RetentionPeriod)
	s.blobs[id] = b
	return nil
}

func (s *lockStore) ConnectionInfo() blob.ConnectionInfo { return blob.ConnectionInfo{Type: "memory"} }
func (s *lockStore) DisplayName() string                 { return "memory" }

func (s *lockStore) bytes() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blobs {
		n += len(b.data)
	}
	return n
}

// unlockedBefore names the blobs that ought to be locked until t and are not.
func (s *lockStore) unlockedBefore(t time.Time) (ids []blob.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, b := range s.blobs {
		if lockable(id) && b.until.Before(t) {
			ids = append(ids, id)
		}
	}
	return ids
}

// vaultIn makes a vault in a store.
func vaultIn(t *testing.T, st blob.Storage, o Options) *Vault {
	t.Helper()
	must(t, createIn(t.Context(), keepOpen{st}, "test", testPassword, o))
	v, err := openIn(t.Context(), keepOpen{st}, "test", testPassword, o)
	must(t, err)
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	return v
}

// pointOf makes a point of one file and returns its id.
func pointOf(t *testing.T, v *Vault, subject string, data []byte) string {
	t.Helper()
	id, err := tryPoint(t, v, subject, data)
	must(t, err)
	return id
}

func tryPoint(t *testing.T, v *Vault, subject string, data []byte) (id string, err error) {
	t.Helper()
	d, err := v.Begin(t.Context(), point.Subject{Kind: point.SubjectRepository, Name: subject}, "")
	if err != nil {
		return "", err
	}
	defer d.Abandon(t.Context())
	w, err := d.Part(t.Context(), "git/x.git", point.KindGit)
	if err != nil {
		return "", err
	}
	if _, err := w.Put(t.Context(), point.Entry{Name: "pack"}, bytes.NewReader(data), point.Packed); err != nil {
		return "", err
	}
	if err := w.Store(t.Context(), point.Part{}); err != nil {
		return "", err
	}
	r, err := d.Commit(t.Context())
	if err != nil {
		return "", err
	}
	return r.Point.ID, nil
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestMaintainFreesWhatNoPointRefersTo(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now})
	// More than a pack, for kopia leaves garbage alone in the only pack that is not full.
	kept, gone := pointOf(t, v, "kept", noise(1, 3<<20)), pointOf(t, v, "gone", noise(2, 28<<20))
	must(t, v.Delete(t.Context(), gone))
	full := st.bytes()
	var freed int64
	for range 5 {
		clock.forward(25 * time.Hour)
		r, err := v.Maintain(t.Context(), MaintainOptions{})
		must(t, err)
		if !r.Full || r.Lock != nil {
			t.Errorf("got %+v, want a full run without lock", r)
		}
		freed += r.FreedBytes
	}
	if freed < 19<<20 || st.bytes() > full-19<<20 {
		t.Errorf("freed %d, %d bytes before, %d after", freed, full, st.bytes())
	}
	_, r, err := v.Open(t.Context(), kept)
	must(t, err)
	f, err := r.Open(t.Context(), "git/x.git/pack")
	must(t, err)
	defer f.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(f); err != nil || !bytes.Equal(got.Bytes(), noise(1, 3<<20)) {
		t.Errorf("the kept point reads %d bytes, %v", got.Len(), err)
	}
}

func TestFullMaintenanceOnceADay(t *testing.T) {
	clock := newHandClock()
	v := vaultIn(t, newLockStore(clock), Options{Clock: clock.now})
	steps := []struct {
		forward time.Duration
		asked   bool
		full    bool
	}{{0, false, true}, {time.Hour, false, false}, {time.Hour, true, true}, {19 * time.Hour, false, false}, {2 * time.Hour, false, true}}
	for i, step := range steps {
		clock.forward(step.forward)
		r, err := v.Maintain(t.Context(), MaintainOptions{Full: step.asked})
		must(t, err)
		if r.Full != step.full {
			t.Errorf("step %d: full is %v, want %v", i, r.Full, step.full)
		}
	}
}

func TestMaintainExtendsEveryLock(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now, Lock: Lock{Mode: "COMPLIANCE", Period: 30 * 24 * time.Hour}})
	pointOf(t, v, "a", noise(1, 1<<20))
	if ids := st.unlockedBefore(clock.now().Add(30*24*time.Hour - time.Minute)); len(ids) > 0 {
		t.Errorf("written without lock: %v", ids)
	}
	for range 8 { // eight times ten days: far beyond the first lock
		clock.forward(10 * 24 * time.Hour)
		r, err := v.Maintain(t.Context(), MaintainOptions{})
		must(t, err)
		if r.ExtendedBlobs == 0 || r.Lock == nil || r.Lock.Alarm != "" {
			t.Errorf("got %+v %+v, want extensions and no alarm", r, r.Lock)
		}
		if ids := st.unlockedBefore(clock.now().Add(30*24*time.Hour - time.Minute)); len(ids) > 0 {
			t.Fatalf("not extended: %v", ids)
		}
		if r.FreedBytes > 0 && r.FreedLockedUntil.Before(clock.now().Add(29*24*time.Hour)) {
			t.Errorf("freed %d bytes, said to be locked until %s", r.FreedBytes, r.FreedLockedUntil)
		}
	}
}

func TestMissedExtensionRaisesAnAlarm(t *testing.T) {
	const day = 24 * time.Hour
	clock := newHandClock()
	v := vaultIn(t, newLockStore(clock), Options{Clock: clock.now, Lock: Lock{Mode: "GOVERNANCE", Period: 30 * day}})
	tests := []struct {
		period, since time.Duration
		alarm         string
	}{
		{30 * day, 0, ""},
		{30 * day, 22 * day, ""},
		{30 * day, 23 * day, "was not extended for 552h0m0s and runs out in 168h0m0s"},
		{30 * day, 31 * day, "ran out"},
		{2 * day, 23 * time.Hour, ""},
		{2 * day, 25 * time.Hour, "was not extended"},
		{day, 11 * time.Hour, ""},
		{day, 13 * time.Hour, "was not extended"},
	}
	check := func(since time.Duration, past upkeep, want string) {
		t.Helper()
		s, err := v.lockStatus(t.Context(), past)
		must(t, err)
		if !strings.Contains(s.Alarm, want) || (s.Alarm == "") != (want == "") {
			t.Errorf("period %s, after %s: alarm %q, want %q", s.Period, since, s.Alarm, want)
		}
	}
	for _, test := range tests {
		v.lock.RetentionPeriod = test.period
		check(test.since, upkeep{LastExtension: clock.now().Add(-test.since)}, test.alarm)
	}
	v.lock.RetentionPeriod = 30 * day
	check(0, upkeep{}, "") // never extended yet: its oldest blob counts
	clock.forward(23 * day)
	check(23*day, upkeep{}, "was not extended")
	check(0, upkeep{LastExtension: clock.now(), Failure: "denied"}, "failed: denied")
}

func TestFailedExtensionIsSaidAndTriedAgain(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now, Lock: Lock{Mode: "GOVERNANCE", Period: 30 * 24 * time.Hour}})
	_, err := v.Maintain(t.Context(), MaintainOptions{})
	must(t, err)
	clock.forward(25 * time.Hour)
	st.failExtend = errors.New("not today")
	if _, err := v.Maintain(t.Context(), MaintainOptions{}); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("got %v, want the store's refusal", err)
	}
	s, err := v.LockStatus(t.Context())
	must(t, err)
	if !strings.Contains(s.Alarm, "not today") {
		t.Errorf("alarm %q, want the store's refusal", s.Alarm)
	}
	st.failExtend = nil
	clock.forward(time.Minute)
	r, err := v.Maintain(t.Context(), MaintainOptions{})
	must(t, err)
	if r.ExtendedBlobs == 0 || r.Lock.Alarm != "" {
		t.Errorf("got %+v %+v, want it made up for", r, r.Lock)
	}
}

func TestLocksAreExtendedAlsoWhereTheVaultIsDamaged(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now, Lock: Lock{Mode: "GOVERNANCE", Period: 30 * 24 * time.Hour}})
	pointOf(t, v, "a", noise(1, 1<<20))
	clock.forward(20 * 24 * time.Hour)
	must(t, st.ListBlobs(t.Context(), "q", func(m blob.Metadata) error { return st.DeleteBlob(t.Context(), m.BlobID) }))
	if _, err := v.Maintain(t.Context(), MaintainOptions{}); err == nil {
		t.Error("a vault without its metadata was maintained without complaint")
	}
	if ids := st.unlockedBefore(clock.now().Add(29 * 24 * time.Hour)); len(ids) > 0 {
		t.Errorf("not extended: %v", ids)
	}
}

func TestMaintainDeletesOldCheckpoints(t *testing.T) {
	clock := newHandClock()
	v := vaultIn(t, newLockStore(clock), Options{Clock: clock.now})
	abandon := func(subject string) {
		d, err := v.Begin(t.Context(), point.Subject{Kind: point.SubjectRepository, Name: subject}, "")
		must(t, err)
		w, err := d.Part(t.Context(), "git/x.git", point.KindGit)
		must(t, err)
		_, err = w.Put(t.Context(), point.Entry{Name: "HEAD"}, strings.NewReader(subject), point.Text)
		must(t, err)
		must(t, w.Store(t.Context(), point.Part{}))
		must(t, d.Abandon(t.Context()))
	}
	abandon("old")
	clock.forward(10 * 24 * time.Hour)
	abandon("new")
	clock.forward(5 * 24 * time.Hour)
	r, err := v.Maintain(t.Context(), MaintainOptions{})
	must(t, err)
	l, err := v.manifests(t.Context())
	must(t, err)
	if r.Drafts != 1 || len(l.drafts) != 1 || l.drafts[0].Subject.Name != "new" {
		t.Errorf("deleted %d, left %+v", r.Drafts, l.drafts)
	}
}

func TestMaintainMergesChecksums(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now})
	id := pointOf(t, v, "a", noise(1, 1<<20))
	for range sumsMerged + 4 {
		must(t, v.Hold(t.Context(), id, "for the test"))
	}
	_, err := v.Maintain(t.Context(), MaintainOptions{})
	must(t, err)
	c, err := v.readCatalogue(t.Context())
	must(t, err)
	if len(c.sums) > 2 {
		t.Errorf("%d lists of checksums are left", len(c.sums))
	}
	everyBlobIsSummed(t, v)
	must(t, v.Hold(t.Context(), id, ""))
	pointOf(t, v, "b", noise(1, 1<<20)) // refers to the same blobs
	must(t, v.Delete(t.Context(), id))
	everyBlobIsSummed(t, v)
}

// everyBlobIsSummed fails for each pack and index of which the catalogue has no checksum.
func everyBlobIsSummed(t *testing.T, v *Vault) {
	t.Helper()
	c, err := v.readCatalogue(t.Context())
	must(t, err)
	leaves := slices.Clone(c.sums)
	for id := range c.points {
		leaves = append(leaves, pointLeaf(id))
	}
	summed := map[blob.ID]bool{}
	for _, name := range leaves {
		l, err := v.getLeaf(t.Context(), name)
		must(t, err)
		for _, s := range l.Sums {
			summed[s.ID] = true
		}
	}
	must(t, v.store.ListBlobs(t.Context(), "", func(m blob.Metadata) error {
		if c := m.BlobID[0]; strings.IndexByte("bsk", c) < 0 && !summed[m.BlobID] {
			t.Errorf("no checksum of %s", m.BlobID)
		}
		return nil
	}))
}

func TestMaintainNeedsTheLease(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	v := vaultIn(t, st, Options{Clock: clock.now})
	other := testLease(st, "another machine", clock.now)
	must(t, other.hold(t.Context(), func(ctx context.Context) error {
		if _, err := v.Maintain(ctx, MaintainOptions{}); !errors.Is(err, fault.ErrBusy) || !strings.Contains(err.Error(), "another machine") {
			t.Errorf("got %v, want busy, naming the holder", err)
		}
		return nil
	}))
}

func TestReadOnlyVaultIsNotMaintained(t *testing.T) {
	clock := newHandClock()
	st := newLockStore(clock)
	vaultIn(t, st, Options{Clock: clock.now})
	v, err := openIn(t.Context(), keepOpen{st}, "test", testPassword, Options{Clock: clock.now, ReadOnly: true})
	must(t, err)
	defer v.Close(context.Background())
	if _, err := v.Maintain(t.Context(), MaintainOptions{}); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("got %v, want refused", err)
	}
}

// Without full safety maintenance deletes what a running backup refers to (facts of the engine: broken within seconds).
func TestNothingButFullSafety(t *testing.T) {
	files, err := filepath.Glob("*.go")
	must(t, err)
	uses := 0
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(t, err)
		ast.Inspect(tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(s.Sel.Name, "Safety") {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "maintenance" {
				uses++
				if s.Sel.Name != "SafetyFull" {
					t.Errorf("%s uses maintenance.%s", file, s.Sel.Name)
				}
			}
			return true
		})
	}
	if uses == 0 {
		t.Error("maintenance.SafetyFull is used nowhere: does this test look in the right place?")
	}
}

func TestCheckLock(t *testing.T) {
	env := func(string) string { return "" }
	tests := []struct {
		location string
		lock     Lock
		want     error
	}{
		{"/srv/vault", Lock{}, nil},
		{"/srv/vault", Lock{"GOVERNANCE", 48 * time.Hour}, fault.ErrUnsupported},
		{"sftp://a@b/c", Lock{"COMPLIANCE", 48 * time.Hour}, fault.ErrUnsupported},
		{"gs://b", Lock{"COMPLIANCE", 24 * time.Hour}, nil},
		{"gs://b", Lock{"COMPLIANCE", 23 * time.Hour}, fault.ErrInvalid},
		{"gs://b", Lock{"compliance", 24 * time.Hour}, fault.ErrInvalid},
		{"gs://b", Lock{"", 24 * time.Hour}, fault.ErrInvalid},
	}
	for _, test := range tests {
		err := mustParse(t, test.location).checkLock(t.Context(), env, test.lock)
		if !errors.Is(err, test.want) {
			t.Errorf("%s %+v: got %v, want %v", test.location, test.lock, err, test.want)
		}
	}
}
