package kando

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

const (
	subjectArtifact = "artifact" // of points that pushes make by themselves
	partData        = "data"     // the part of such a point
	kindStream      = "stream"   // a part of one file, streamFile
	streamFile      = "data"
)

// vaultPlace is the place of a profile that leads to a vault.
type vaultPlace struct {
	t        *tool
	d        *Vault
	location vault.Location
}

func newVaultPlace(t *tool, d *Document) (place, error) {
	const op = "open profile of a vault"
	if d.Vault == nil {
		return nil, fault.New(op, fault.ErrInvalid, "it has no vault", "")
	}
	l, err := vault.ParseLocation(d.Vault.URL)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if d.Vault.Subject.Name == "" || d.Vault.Mark != "" && (d.Vault.Subject.Kind == "" || d.Vault.Part == "") {
		return nil, fault.New(op, fault.ErrInvalid, "it does not say what points are of", "")
	}
	return &vaultPlace{t: t, d: d.Vault, location: l}, nil
}

// writers is how many files are stored in a vault at once: kando has to do with little memory.
const writers = 1

// closeTime bounds how long closing may take after an interrupt.
const closeTime = 30 * time.Second

func (p *vaultPlace) with(ctx context.Context, readOnly bool, do func(*vault.Vault) error) error {
	passwords := []fault.Secret{fault.Secret(p.d.Password), fault.Secret(p.d.OtherPassword)}
	v, err := vault.OpenEither(ctx, p.location, passwords, vault.Options{
		ReadOnly: readOnly,
		Tool:     "backstay kando " + p.t.Version,
		Writers:  writers,
		Clock:    p.t.Clock,
		Evidence: p.t.evidenceKey,
		Env: func(name string) string {
			if value, given := p.d.Credentials[name]; given {
				return value
			}
			return p.t.Getenv(name)
		},
	})
	if err != nil {
		return err
	}
	err = do(v)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, v.Close(tidy))
}

// envEvidenceKey has the key that statements are signed with, in PEM. Nothing gives it to a container unasked: who may write a Blueprint could
// sign anything with it.
const envEvidenceKey = "BACKSTAY_EVIDENCE_KEY"

// evidenceKey is the key that the container was given, if any.
func (t *tool) evidenceKey(context.Context) (*evidence.Key, error) {
	text := t.Getenv(envEvidenceKey)
	if text == "" {
		return nil, nil //nolint:nilnil // no key: the statement is left unsigned
	}
	key, err := evidence.ParseKey([]byte(text))
	return key, fault.Wrap(envEvidenceKey, nil, err, "")
}

// below is a path of the command line as one below something: "../x" and "/x" are x.
func below(name string) string { return strings.TrimPrefix(path.Join("/", name), "/") }

// push makes a part of the capture that has the profile's mark, or a point by itself where there is none.
func (p *vaultPlace) push(ctx context.Context, s *source, name string) (made *snapshot, err error) {
	err = p.with(ctx, false, func(v *vault.Vault) error {
		if p.d.Mark == "" {
			made, err = p.pushPoint(ctx, v, s, name)
		} else {
			made, err = p.pushPart(ctx, v, s, name)
		}
		return err
	})
	return made, err
}

func (p *vaultPlace) pushPart(ctx context.Context, v *vault.Vault, s *source, name string) (*snapshot, error) {
	part := path.Join(p.d.Part, below(name))
	parts, err := protect.WriteShard(ctx, v, &pushed{source: s, subject: p.d.Subject, part: part, mark: p.d.Mark + " " + part}, p.d.Policy)
	if err != nil {
		return nil, err
	}
	for _, written := range parts {
		if written.Name != part {
			continue
		}
		if written.State != point.Stored {
			return nil, fault.New("push "+s.name, fault.ErrIncomplete, written.Reason, "")
		}
		for _, c := range written.Counts {
			if !c.Closes() { // the ledger of the point will say so
				p.t.warn("%s: %d of %d %s were stored", s.name, c.Stored, c.Expected, c.Of)
			}
		}
		return &snapshot{ID: part, LogicalSize: written.Bytes, PhysicalSize: written.NewBytes}, nil
	}
	return nil, fmt.Errorf("push %s: no part %s was written", s.name, part)
}

func (p *vaultPlace) pushPoint(ctx context.Context, v *vault.Vault, s *source, name string) (*snapshot, error) {
	subject := point.Subject{Kind: subjectArtifact, Name: path.Join(p.d.Subject.Name, below(name))}
	r, err := protect.Backup(ctx, v, &pushed{source: s, subject: subject, part: partData, whole: true}, p.d.Policy)
	if err != nil {
		return nil, err
	}
	for _, warning := range r.Warnings {
		p.t.warn("%s", warning)
	}
	return &snapshot{ID: r.Point.ID, LogicalSize: r.Point.Bytes, PhysicalSize: r.StoredBytes}, nil
}

// pushed is what is pushed as the source of a part.
type pushed struct {
	source  *source
	subject point.Subject
	part    string
	mark    string
	whole   bool // what cannot be stored as it is ends the capture, so that no point is made
}

func (s *pushed) Subject() point.Subject { return s.subject }

func (s *pushed) Capture(ctx context.Context, to point.Sink) error {
	kind, capture := kindStream, s.stream
	if s.source.dir {
		kind, capture = point.KindVolume, s.directory
	}
	w, err := to.Part(ctx, s.part, kind)
	if err != nil {
		return err
	}
	p, err := capture(ctx, w)
	if err != nil {
		return err
	}
	p.Mark = s.mark
	return w.Store(ctx, p)
}

func (s *pushed) stream(ctx context.Context, w point.PartWriter) (point.Part, error) {
	n, err := w.Put(ctx, point.Entry{Name: streamFile}, s.source.read, point.Text)
	return point.Part{Bytes: n}, err
}

func (s *pushed) directory(ctx context.Context, w point.PartWriter) (point.Part, error) {
	p, err := vault.CaptureTree(ctx, w, s.source.name)
	if err != nil || !s.whole {
		return p, err
	}
	for _, c := range p.Counts {
		if !c.Closes() {
			return p, fault.New("push "+s.source.name, fault.ErrIncomplete,
				fmt.Sprintf("%d of %d %s were stored: %s", c.Stored, c.Expected, c.Of, strings.Join(p.Notes, "; ")), "")
		}
	}
	return p, nil
}

// isPoint tells the id of a point from the name of a part.
func isPoint(id string) bool { return regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) }

// find opens the part that an id names: of the point that is being restored, or of a point of its own.
func (p *vaultPlace) find(ctx context.Context, v *vault.Vault, id string) (point.Part, point.Reader, error) {
	op := "find " + id
	from, name := p.d.Point, id
	if isPoint(id) {
		from, name = id, partData
	}
	if from == "" {
		return point.Part{}, nil, fault.New(op, fault.ErrNotFound, "it is a part of a point, and the profile names none", "restore the point")
	}
	record, r, err := v.Open(ctx, from)
	if err != nil {
		return point.Part{}, nil, fault.Wrap(op, nil, err, "")
	}
	for _, part := range record.Point.Parts {
		switch {
		case part.Name != name:
		case part.State != point.Stored && part.State != point.Carried:
			return part, nil, fault.New(op, fault.ErrIncomplete, "it is not in the point: "+part.Reason, "")
		default:
			return part, protect.Within(r, name), nil
		}
	}
	return point.Part{}, nil, fault.New(op, fault.ErrNotFound, "the point has no such part", "")
}

func (p *vaultPlace) pull(ctx context.Context, to *target, name, id string) error {
	if err := needed(id); err != nil {
		return err
	}
	return p.with(ctx, true, func(v *vault.Vault) error {
		part, r, err := p.find(ctx, v, id)
		switch {
		case err != nil:
			return err
		case part.Kind == kindStream:
			return writeFile(ctx, r, streamFile, to)
		case to.stream():
			return writeFile(ctx, r, path.Base(below(name)), to)
		}
		return fault.Wrap("pull to "+to.name, nil, vault.RestoreTreeOver(ctx, r, to.name), "")
	})
}

// writeFile writes one file of a part.
func writeFile(ctx context.Context, r point.Reader, name string, to *target) error {
	return to.write(func(w io.Writer) error {
		f, err := r.Open(ctx, name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
}

// delete deletes a point that a push made by itself. A part goes with its point, when that expires.
func (p *vaultPlace) delete(ctx context.Context, _, id string) error {
	if err := needed(id); err != nil || !isPoint(id) {
		return err
	}
	return p.with(ctx, false, func(v *vault.Vault) error {
		record, _, err := v.Open(ctx, id)
		switch {
		case errors.Is(err, fault.ErrNotFound):
			return nil
		case err != nil:
			return err
		case record.Point.Subject.Kind != subjectArtifact:
			return fault.New("delete point "+id, fault.ErrRefused, "no push made it", "")
		}
		return v.Delete(ctx, id)
	})
}
