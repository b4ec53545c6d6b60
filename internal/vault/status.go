package vault

import (
	"context"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/backstay/backstay/internal/fault"
)

// Status is the state of a vault at a glance.
type Status struct {
	Location     string        `json:"location"`
	Points       int           `json:"points"`
	Missing      []string      `json:"missing"`      // ids of points that the catalogue knows and the vault has lost
	Unentered    int           `json:"unentered"`    // points that are not in the catalogue yet; the next backup enters them
	Drafts       int           `json:"drafts"`       // checkpoints of runs that have not ended, or were cut short
	Unreadable   int           `json:"unreadable"`   // lists of points that are lost or damaged
	FormatCopies int           `json:"formatCopies"` // undamaged copies of the format blobs
	FormatSame   bool          `json:"formatSame"`   // whether the newest copy is as the blobs in place
	LockMode     string        `json:"lockMode,omitempty"`
	LockPeriod   time.Duration `json:"lockPeriodNanoseconds,omitempty"`
	Bytes        int64         `json:"bytes"` // at the location, all blobs together
	Packs        int           `json:"packs"`
	Indexes      int           `json:"indexes"`
	Leaves       int           `json:"leaves"` // blobs of the catalogue
	Others       int           `json:"others"`
}

// Status looks at everything that can be seen without reading data.
func (v *Vault) Status(ctx context.Context) (*Status, error) {
	op := "status of vault " + v.name
	ctx, done, err := v.operation(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	s := &Status{Location: v.name, LockMode: string(v.lock.RetentionMode), LockPeriod: v.lock.RetentionPeriod}
	l, missing, err := v.compare(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	c, err := v.readCatalogue(ctx)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	s.Points, s.Missing, s.Drafts, s.Unreadable = len(l.points), append([]string{}, missing...), len(l.drafts), len(l.unread)
	for _, p := range l.points {
		if !c.points[p.ID] && !c.tombstones[p.ID] {
			s.Unentered++
		}
	}
	copies, err := readFormatCopies(ctx, v.store)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if s.FormatCopies = len(copies); len(copies) > 0 {
		if s.FormatSame, err = copies[0].same(ctx, v.store); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
	err = v.store.ListBlobs(ctx, "", func(m blob.Metadata) error {
		s.Bytes += m.Length
		*s.counter(m.BlobID)++
		return nil
	})
	return s, storageFault(op, err)
}

// counter finds where a blob counts, by the first letter of its name.
func (s *Status) counter(id blob.ID) *int {
	switch {
	case id == "":
	case strings.ContainsRune("pq", rune(id[0])):
		return &s.Packs
	case strings.ContainsRune("nx", rune(id[0])):
		return &s.Indexes
	case strings.HasPrefix(string(id), string(cataloguePrefix)):
		return &s.Leaves
	}
	return &s.Others
}
