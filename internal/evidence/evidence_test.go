package evidence_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// day is when the statements of these tests begin.
func day() time.Time { return time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC) }

// history makes statements of a vault, each after those that nothing followed yet.
type history struct {
	*testing.T
	key        *evidence.Key
	vault      string
	now        time.Time
	statements []*evidence.Statement
}

func newHistory(t *testing.T) *history {
	return &history{T: t, key: evidence.NewKey(), vault: "v", now: day()}
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

func of(n int) evidence.Point {
	return evidence.Point{ID: id(n), Record: fmt.Sprintf("%064x", n), Root: fmt.Sprintf("k%d", n)}
}

func (h *history) state(d evidence.Deed, previous ...string) *evidence.Statement {
	h.Helper()
	h.now = h.now.Add(time.Minute)
	d.Vault, d.Time, d.Previous = h.vault, h.now, previous
	s, err := evidence.State(d, h.key)
	if err != nil {
		h.Fatal(err)
	}
	h.statements = append(h.statements, s)
	return s
}

func (h *history) made(n int, previous ...string) *evidence.Statement {
	h.Helper()
	return h.state(evidence.Deed{What: evidence.Committed, Points: []evidence.Point{of(n)}, Made: &evidence.Made{State: point.Complete}}, previous...)
}

func (h *history) deleted(n int, previous ...string) *evidence.Statement {
	h.Helper()
	return h.state(evidence.Deed{What: evidence.Deleted, Points: []evidence.Point{{ID: id(n), Root: of(n).Root}}}, previous...)
}

// forked is a history in which two processes wrote at once: 1 ← 2 ← 4 ← drill, 1 ← 3 ← 4, 1 deleted last.
func forked(t *testing.T) *history {
	t.Helper()
	h := newHistory(t)
	one := h.made(1)
	two, three := h.made(2, one.Hash), h.made(3, one.Hash)
	four := h.made(4, two.Hash, three.Hash)
	drill := h.state(evidence.Deed{
		What: evidence.Drilled, Points: []evidence.Point{{ID: id(4), Root: of(4).Root}},
		Drill: evidence.DrillOf(point.Proof{Proven: true, Checks: []point.Check{{What: "fsck", OK: true}}}),
	}, four.Hash)
	h.deleted(1, drill.Hash)
	return h
}

func (h *history) document() []byte {
	h.Helper()
	var b bytes.Buffer
	if err := evidence.Write(&b, h.vault, h.statements, h.key, h.now); err != nil {
		h.Fatal(err)
	}
	return b.Bytes()
}

// check reads a document and returns its faults.
func (h *history) check(document []byte) []evidence.Fault {
	h.Helper()
	_, r, err := evidence.Read(bytes.NewReader(document), []evidence.PublicKey{h.key.Public()})
	if err != nil {
		h.Fatal(err)
	}
	return r.Faults
}

func TestDocumentIsGood(t *testing.T) {
	h := forked(t)
	slices.Reverse(h.statements) // Write puts them in order
	statements, r, err := evidence.Read(bytes.NewReader(h.document()), []evidence.PublicKey{h.key.Public()})
	if err != nil || len(r.Faults) > 0 {
		t.Fatalf("%v, faults %v", err, r.Faults)
	}
	if len(statements) != 6 || r.Statements != 6 || r.Points != 4 || r.Deleted != 1 || len(r.Heads) != 1 || len(r.Unsigned) != 0 {
		t.Errorf("report %+v", r)
	}
	if got := r.Signers[h.key.Public().ID()]; got != 6 {
		t.Errorf("%d statements are signed with the key", got)
	}
	if !r.From.Equal(day().Add(time.Minute)) || !r.To.Equal(h.now) || !r.Written.Equal(h.now) {
		t.Errorf("from %v to %v, written %v", r.From, r.To, r.Written)
	}
}

func TestEmptyDocumentIsGood(t *testing.T) {
	h := newHistory(t)
	if faults := h.check(h.document()); len(faults) > 0 {
		t.Errorf("faults %v", faults)
	}
}

func TestEveryAlteredByteIsFound(t *testing.T) {
	h := newHistory(t)
	h.made(2, h.made(1).Hash)
	good := h.document()
	for at := range good {
		bad := slices.Clone(good)
		bad[at] ^= []byte{1, 2, 0x20, 0x80}[at%4]
		if len(h.check(bad)) == 0 {
			t.Fatalf("byte %d: %q for %q is not found", at, bad[at], good[at])
		}
	}
}

func TestEveryCutIsFound(t *testing.T) {
	h := newHistory(t)
	h.made(2, h.made(1).Hash)
	good := h.document()
	for length := range good {
		if len(h.check(good[:length])) == 0 {
			t.Fatalf("cut to %d of %d bytes, it passes", length, len(good))
		}
	}
}

func TestWhatIsDoneToLinesIsFound(t *testing.T) {
	h := forked(t)
	lines := strings.SplitAfter(string(h.document()), "\n")
	lines = lines[:len(lines)-1] // what follows the last break
	end := len(lines) - 1
	changed := map[string][]string{
		"nothing left":                {},
		"only the end":                lines[end:],
		"added space":                 slices.Concat(lines[:1], []string{" " + lines[1]}, lines[2:]),
		"empty line":                  slices.Concat(lines[:1], []string{"\n"}, lines[1:]),
		"after the end":               slices.Concat(lines, lines[:1]),
		"two ends":                    slices.Concat(lines, lines[end:]),
		"the end first":               slices.Concat(lines[end:], lines[:end]),
		"reversed":                    func() []string { r := slices.Clone(lines[:end]); slices.Reverse(r); return append(r, lines[end]) }(),
		"carriage return":             slices.Concat([]string{strings.TrimSuffix(lines[0], "\n") + "\r\n"}, lines[1:]),
		"members the other way round": slices.Concat([]string{reordered(lines[0])}, lines[1:]),
	}
	for i := range end {
		changed[fmt.Sprintf("line %d dropped", i)] = slices.Concat(lines[:i], lines[i+1:])
		changed[fmt.Sprintf("line %d twice", i)] = slices.Concat(lines[:i+1], lines[i:])
		if i > 0 {
			swapped := slices.Clone(lines)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			changed[fmt.Sprintf("lines %d and %d swapped", i-1, i)] = swapped
		}
	}
	for name, lines := range changed {
		if len(h.check([]byte(strings.Join(lines, "")))) == 0 {
			t.Errorf("%s: it passes", name)
		}
	}
}

// reordered is an envelope that says the same with its members in another order.
func reordered(line string) string {
	before, after, _ := strings.Cut(line, `,"payloadType"`)
	kind, signatures, _ := strings.Cut(after, `,"signatures"`)
	return `{"payloadType"` + kind + "," + strings.TrimPrefix(before, "{") + `,"signatures"` + signatures
}

// faultsOf joins what a check found.
func faultsOf(r *evidence.Report) string {
	var all []string
	for _, f := range r.Faults {
		all = append(all, f.String())
	}
	return strings.Join(all, "; ")
}

func TestChainShowsWhatIsWrong(t *testing.T) {
	tests := []struct {
		name string
		make func(h *history)
		want string
	}{
		{"good", func(h *history) { h.deleted(1, h.made(1).Hash) }, ""},
		{"two at once", func(h *history) { h.made(1); h.made(2) }, ""},
		{"a replayed deletion of what is gone", func(h *history) { h.deleted(1, h.deleted(1, h.made(1).Hash).Hash) }, ""},
		{"told again late", func(h *history) { h.made(1, h.made(1).Hash) }, ""},
		{"dropped", func(h *history) { h.made(2, h.made(1).Hash); h.statements = h.statements[1:] }, "which is not before it"},
		{"twice", func(h *history) { h.made(1); h.statements = append(h.statements, h.statements[0]) }, "there twice"},
		{"another vault's", func(h *history) { one := h.made(1); h.vault = "w"; h.made(2, one.Hash) }, "of another vault"},
		{"another's key", func(h *history) { one := h.made(1); h.key = evidence.NewKey(); h.made(2, one.Hash) }, "not among those given"},
		{"another content", func(h *history) {
			p := of(1)
			p.Root = "k2"
			h.state(evidence.Deed{What: evidence.Committed, Points: []evidence.Point{p}, Made: &evidence.Made{}}, h.made(1).Hash)
		}, "not what was said"},
		{"another record", func(h *history) {
			p := of(1)
			p.Record = of(2).Record
			h.state(evidence.Deed{What: evidence.Committed, Points: []evidence.Point{p}, Made: &evidence.Made{}}, h.made(1).Hash)
		}, "not what was said"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory(t)
			key := h.key.Public()
			test.make(h)
			got := faultsOf(evidence.Check(h.statements, []evidence.PublicKey{key}))
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("faults %q, want %q", got, test.want)
			}
		})
	}
}

func TestUnsignedIsCountedAndSignedOver(t *testing.T) {
	h := newHistory(t)
	key := h.key
	h.key = nil
	one := h.made(1)
	h.key = key
	h.made(2, one.Hash)
	r := evidence.Check(h.statements, []evidence.PublicKey{key.Public()})
	if len(r.Faults) > 0 || !slices.Equal(r.Unsigned, []string{one.Hash}) || r.Signers[key.Public().ID()] != 1 {
		t.Errorf("report %+v", r)
	}
	if want := "not signed: point " + id(1) + " of "; len(r.Notes) != 1 || !strings.Contains(r.Notes[0], want) {
		t.Errorf("notes %q, want %q", r.Notes, want)
	}
}

func TestForgedSignature(t *testing.T) {
	h := newHistory(t)
	s := h.made(1)
	other := h.made(2)
	_, sig, _ := strings.Cut(string(other.Line), `"sig":`)
	head, _, _ := strings.Cut(string(s.Line), `"sig":`)
	forged, err := evidence.Parse([]byte(head + `"sig":` + sig))
	if err != nil {
		t.Fatal(err)
	}
	r := evidence.Check([]*evidence.Statement{forged}, []evidence.PublicKey{h.key.Public()})
	if got := faultsOf(r); !strings.Contains(got, "not of what it says") {
		t.Errorf("faults %q", got)
	}
}

func TestCompare(t *testing.T) {
	listed := func(n int, root string) evidence.Listed {
		return evidence.Listed{ID: id(n), Root: root, Time: day().Add(time.Hour)}
	}
	tests := []struct {
		name string
		with []evidence.Listed
		want string
	}{
		{"as it was made", []evidence.Listed{listed(2, "k2")}, ""},
		{"from before", []evidence.Listed{listed(2, "k2"), {ID: id(9), Root: "k9", Time: day()}}, ""},
		{"lost", nil, "neither listed nor said to be deleted"},
		{"exchanged", []evidence.Listed{listed(2, "k7")}, "its root is another"},
		{"smuggled in", []evidence.Listed{listed(2, "k2"), listed(8, "k8")}, "no statement says"},
		{"deletion not done", []evidence.Listed{listed(1, "k1"), listed(2, "k2")}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory(t)
			h.made(2, h.deleted(1, h.made(1).Hash).Hash)
			r := evidence.Check(h.statements, []evidence.PublicKey{h.key.Public()})
			r.Compare(test.with)
			got := faultsOf(r)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("faults %q, want %q", got, test.want)
			}
		})
	}
}

// TestOlderDocumentIsToldFromNewer: the newest statements cut off, and the end written anew by who has the key, or an older document
// given for the newest, show only beside a document of before.
func TestOlderDocumentIsToldFromNewer(t *testing.T) {
	h := forked(t)
	all := h.statements
	older := all[:4]
	r := evidence.Check(all, nil)
	before := len(r.Faults)
	r.Contains(all, older)
	if len(r.Faults) != before {
		t.Errorf("the newer one lacks something: %v", r.Faults[before:])
	}
	r = evidence.Check(older, nil)
	before = len(r.Faults)
	r.Contains(older, all)
	if len(r.Faults) != before+2 {
		t.Errorf("two are missing, it says %v", r.Faults[before:])
	}
}

func TestSortPutsCausesFirst(t *testing.T) {
	h := forked(t)
	for range 20 {
		rand.Shuffle(len(h.statements), func(i, j int) { h.statements[i], h.statements[j] = h.statements[j], h.statements[i] })
		if got := faultsOf(evidence.Check(evidence.Sort(h.statements), []evidence.PublicKey{h.key.Public()})); got != "" {
			t.Fatal(got)
		}
	}
}

func TestWriteNeedsAKey(t *testing.T) {
	if err := evidence.Write(&bytes.Buffer{}, "v", nil, nil, day()); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestKeysRoundTrip(t *testing.T) {
	key := evidence.NewKey()
	again, err := evidence.ParseKey(key.PEM())
	if err != nil {
		t.Fatal(err)
	}
	other := evidence.NewKey().Public()
	public, err := evidence.ParsePublicKeys(slices.Concat(key.Public().PEM(), []byte("\n"), other.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	if len(public) != 2 || public[0].ID() != again.Public().ID() || public[1].ID() != other.ID() || len(other.ID()) != 64 {
		t.Errorf("keys %v, want %s and %s", public, again, other.ID())
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", key, key, key, key); strings.Trim(shown, "0123456789abcdef ") != "" {
		t.Errorf("a key prints as %s", shown)
	}
	for name, text := range map[string][]byte{
		"empty": nil, "public": key.Public().PEM(), "two": append(key.PEM(), key.PEM()...), "long": bytes.Repeat([]byte("a"), 1<<20),
		"rsa": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
	} {
		if _, err := evidence.ParseKey(text); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string][]byte{
		"empty": nil, "private": key.PEM(), "private after public": append(other.PEM(), key.PEM()...),
		"rest": append(other.PEM(), "rest"...), "long": bytes.Repeat(other.PEM(), 1<<10),
	} {
		if _, err := evidence.ParsePublicKeys(text); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("public, %s: %v", name, err)
		}
	}
}

func TestDrillOfIsBounded(t *testing.T) {
	p := point.Proof{Checks: make([]point.Check, 1000)}
	if d := evidence.DrillOf(p); d.Checks != 1000 || len(d.Problems) != 20 {
		t.Errorf("%d checks, %d problems", d.Checks, len(d.Problems))
	}
}

func FuzzRead(f *testing.F) {
	t := &testing.T{}
	h := forked(t)
	good := h.document()
	f.Add(good)
	f.Add(good[:len(good)-20])
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"payload":"","payloadType":"","signatures":[]}` + "\n"))
	keys := []evidence.PublicKey{h.key.Public()}
	f.Fuzz(func(t *testing.T, b []byte) {
		statements, r, err := evidence.Read(bytes.NewReader(b), keys)
		if err != nil {
			t.Fatal(err) // reading from memory does not fail
		}
		if len(r.Faults) == 0 && len(r.Unsigned) == 0 && !bytes.Equal(b, good) {
			t.Errorf("it passes: %q", b)
		}
		sorted := evidence.Sort(statements)
		if len(sorted) > len(statements) {
			t.Errorf("%d of %d statements", len(sorted), len(statements))
		}
		r.Compare([]evidence.Listed{{ID: id(1), Root: "k1", Time: day()}})
	})
}

func FuzzParseKey(f *testing.F) {
	key := evidence.NewKey()
	f.Add(key.PEM())
	f.Add(key.Public().PEM())
	f.Add(append(key.Public().PEM(), evidence.NewKey().Public().PEM()...))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := evidence.ParseKey(b); err == nil && k.String() == "" {
			t.Error("a key without an id")
		}
		keys, err := evidence.ParsePublicKeys(b)
		if err == nil && len(keys) == 0 {
			t.Error("no key, and no error")
		}
		for _, k := range keys {
			if again, err := evidence.ParsePublicKeys(k.PEM()); err != nil || again[0].ID() != k.ID() {
				t.Errorf("%v", err)
			}
		}
	})
}
