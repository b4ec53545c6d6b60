package worker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// Databases of applications are in parts databases/NAME, as package database has them; beside the dump lies what is known of its server,
// so that it comes back where the policy is gone.
const (
	partDatabases = "databases"
	serverFile    = "server.json"
	maxServer     = 64 << 10 // bytes of it
	// standTime is how long an application may be kept at rest for one dump to stand: a server may wait for its own long transactions.
	standTime = 2 * time.Minute
)

// errNotStanding ends a dump that keeps the application waiting.
var errNotStanding = fault.New("dump", fault.ErrUnavailable, "it did not stand within "+standTime.String(), "look for long transactions and locks at the server")

// overlong is errNotStanding where that ended ctx.
func overlong(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errNotStanding) {
		return cause
	}
	return nil
}

func databasePart(name string) string { return path.Join(partDatabases, name) }

// dump is one dump of an application that is under way.
type dump struct {
	of     v1alpha1.Database
	number int           // in the status
	stands chan struct{} // closed when it stands, or does not come to it
	at     string
	moment *metav1.MicroTime // that it is of; nil where it does not stand
	place  string            // the server's own name of the moment
	mark   string            // of its part
	ended  bool              // stored, or failed for that
	failed error
}

// dumps are the dumps of an application.
type dumps struct {
	all    []*dump
	stop   context.CancelFunc
	ending sync.WaitGroup
}

// end waits for what still runs; stopped, that is at once.
func (d *dumps) end() {
	if d != nil {
		d.stop()
		d.ending.Wait()
	}
}

// dump begins the dumps of the application's databases. Each goes on into the vault when it stands, whatever the application does then.
func (b *backup) dump(ctx context.Context, begun metav1.MicroTime) *dumps {
	ctx, stop := context.WithCancel(ctx)
	d := &dumps{stop: stop}
	for i, of := range b.servers {
		one := &dump{of: of, number: i, stands: make(chan struct{}), mark: b.dumpMark(of.Name, begun)}
		d.all = append(d.all, one)
		own := b.object.DeepCopy() // the work goes on with the other meanwhile
		d.ending.Go(func() {
			stand := sync.OnceFunc(func() { close(one.stands) })
			defer stand()
			err := b.dumpOne(ctx, own, one, stand)
			if ctx.Err() != nil {
				return // who takes the Backup up says what became of it
			}
			one.ended, one.failed = true, err
			err = b.persist(ctx, own, func() error { // at once: a gate may wait for it
				if own.Status.Phase == v1alpha1.PhaseFailed {
					return errEnded
				}
				one.tell(&own.Status)
				return nil
			})
			if err != nil && ctx.Err() == nil {
				b.Log.Error("what became of a dump could not be written down", "backup", own.Name, "database", of.Name, "error", err.Error())
			}
		})
	}
	return d
}

// tell writes how a dump ended.
func (d *dump) tell(s *v1alpha1.BackupStatus) {
	if !d.ended || d.number >= len(s.Databases) {
		return
	}
	is := &s.Databases[d.number]
	d.show(is)
	if is.Stored = d.failed == nil; d.failed != nil {
		is.Problem = shorten(d.failed.Error())
	}
}

// show writes which moments the dumps are of that stand.
func (d *dumps) show(s *v1alpha1.BackupStatus) {
	for _, one := range d.all {
		one.show(&s.Databases[one.number])
	}
}

func (d *dump) show(is *v1alpha1.DatabaseStatus) {
	is.At, is.Captured, is.Position = d.at, d.moment, d.place
}

// dumpOne dumps one server, and says when the dump stands.
func (b *backup) dumpOne(ctx context.Context, of *v1alpha1.Backup, d *dump, stands func()) error {
	server, err := b.reach(ctx, of.Namespace, b.rights, d.of)
	if err != nil {
		return err
	}
	defer server.close()
	d.at = server.at
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(standTime, func() { cancel(errNotStanding) })
	taken, err := database.Begin(ctx, server.server, server.runner)
	if late.Stop(); err != nil {
		return cmp.Or(overlong(ctx), err)
	}
	defer taken.Close() //nolint:errcheck // what it took is stored or lost by then
	instant := taken.Instant()
	moment := metav1.NewMicroTime(instant.Stands)
	d.moment, d.place = &moment, instant.Position
	stands()
	known, err := json.Marshal(d.of)
	if err != nil {
		return fmt.Errorf("encode the server: %w", err)
	}
	source := dumpSource{subject: b.subject(), name: databasePart(d.of.Name), mark: d.mark, server: known, dump: taken}
	parts, err := protect.WriteShard(ctx, b.store, source, of.Spec.Policy)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(parts, func(p point.Part) bool { return p.State != point.Stored }); i >= 0 {
		return errors.New(parts[i].Reason)
	}
	return nil
}

// dumpMark is what a dump is marked with that was begun for some instant of the Backup: the dump of an earlier one is none of its.
func (b *backup) dumpMark(name string, begun metav1.MicroTime) string {
	return b.mark(databasePart(name)) + " " + begun.UTC().Format(metav1.RFC3339Micro)
}

// dumpSource is the one part that a dump is.
type dumpSource struct {
	subject    point.Subject
	name, mark string
	server     []byte
	dump       *database.Dump
}

func (s dumpSource) Subject() point.Subject { return s.subject }

func (s dumpSource) Capture(ctx context.Context, to point.Sink) error {
	w, err := to.Part(ctx, s.name, point.KindDatabase)
	if err != nil {
		return err
	}
	if _, err := w.Put(ctx, point.Entry{Name: serverFile, Time: s.dump.Instant().Stands}, bytes.NewReader(s.server), point.Text); err != nil {
		return err
	}
	return s.dump.Capture(ctx, marked{w, s.mark})
}

// marked is a part that is stored with a mark.
type marked struct {
	point.PartWriter
	mark string
}

func (m marked) Store(ctx context.Context, p point.Part) error {
	p.Mark = m.mark
	return m.PartWriter.Store(ctx, p)
}

// databases are the servers of the application, each with a name, and in one namespace where it is in a pod.
func (b *backup) databases() ([]v1alpha1.Database, error) {
	var all []v1alpha1.Database
	for _, d := range b.app.Capture.Databases {
		d = *d.DeepCopy()
		d.Name = nameOfDatabase(d)
		if d.Pod != nil && d.Pod.Namespace == "" && len(b.app.Namespaces) == 1 {
			d.Pod.Namespace = b.app.Namespaces[0]
		}
		if slices.ContainsFunc(all, func(other v1alpha1.Database) bool { return other.Name == d.Name }) {
			return nil, fault.New("backup "+b.object.Name, fault.ErrInvalid, "two databases have the name "+d.Name, "give each a name")
		}
		all = append(all, d)
	}
	return all, nil
}

// planned is how the databases stand before anything is done.
func (b *backup) planned() []v1alpha1.DatabaseStatus {
	var all []v1alpha1.DatabaseStatus
	for _, d := range b.servers {
		all = append(all, v1alpha1.DatabaseStatus{Name: d.Name, Engine: d.Engine})
	}
	return all
}

// standing waits until all dumps stand, or do not come to it.
func (d *dumps) standing(ctx context.Context) error {
	for _, one := range d.all {
		select {
		case <-one.stands:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// dumped waits until all dumps have ended. Those of a process that was ended are lost: nothing brings a server back to the moment that
// they were of, and dumps of another one would not go with the rest of the point.
func (b *backup) dumped(ctx context.Context) error {
	if b.dumps != nil {
		b.dumps.ending.Wait()
		b.dumps.stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := b.save(ctx, func(s *v1alpha1.BackupStatus) {
			for _, one := range b.dumps.all {
				one.tell(s)
			}
		})
		if err != nil {
			return err
		}
	}
	if !b.object.Status.Dumping() {
		return nil
	}
	begun := b.object.Status.Instant.Begun
	var shards []protect.Shard
	for _, d := range b.object.Status.Databases {
		shards = append(shards, protect.Shard{Name: databasePart(d.Name), Mark: b.dumpMark(d.Name, begun)})
	}
	found, err := protect.Found(ctx, b.store, b.subject(), b.object.Spec.Policy, shards)
	if err != nil {
		return err
	}
	return b.save(ctx, func(s *v1alpha1.BackupStatus) {
		for i := range s.Databases {
			d := &s.Databases[i]
			if d.Stored || d.Problem != "" {
				continue
			}
			if _, d.Stored = found[databasePart(d.Name)]; !d.Stored {
				d.Problem = "the process that dumped it was ended before the dump was whole, and the moment that it was of is over"
			}
		}
	})
}

// dumpShards are the parts of the databases.
func (b *backup) dumpShards() []protect.Shard {
	var shards []protect.Shard
	for _, d := range b.object.Status.Databases {
		s := protect.Shard{Name: databasePart(d.Name), Kind: point.KindDatabase, Mark: b.dumpMark(d.Name, b.object.Status.Instant.Begun)}
		if d.Captured != nil {
			s.Captured = &d.Captured.Time
		}
		if d.Problem != "" {
			s.Failed = errors.New(d.Problem)
		}
		shards = append(shards, s)
	}
	return shards
}

// readServer reads what a part says of the server that it was dumped from.
func readServer(ctx context.Context, r point.Reader) (*v1alpha1.Database, error) {
	f, err := r.Open(ctx, serverFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxServer+1))
	if err != nil {
		return nil, err
	}
	var d v1alpha1.Database
	if len(content) > maxServer || json.Unmarshal(content, &d) != nil || d.Name == "" {
		return nil, fault.New("", fault.ErrCorrupt, "it does not say which server it is of", "")
	}
	return &d, nil
}
