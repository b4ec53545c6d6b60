package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
)

// keeping is a lab with an application whose rows are in two databases of a real server: one is reached over the network, one in a pod.
type keeping struct {
	*lab
	server *database.Scratch
	port   int
	app    string
	tools  *breaking
}

func newKeeping(t *testing.T) *keeping {
	k := &keeping{lab: newLab(t), tools: &breaking{}, port: databasetest.Port(t)}
	k.server = databasetest.Start(t, database.MySQL, database.ScratchOptions{Port: k.port})
	k.lab.tools, k.app = k.tools, k.application()
	k.store = memory.New(time.Now) // points are of the moments of dumps, which are real
	k.pod("db")
	k.fill("before")
	return k
}

func (k *keeping) sql(text string) string { return databasetest.SQL(k.T, k.server.Server, text) }

func (k *keeping) fill(rows string) {
	for _, name := range []string{"orders", "stock"} {
		k.sql(fmt.Sprintf("DROP DATABASE IF EXISTS %[1]s; CREATE DATABASE %[1]s; CREATE TABLE %[1]s.rows (what TEXT); INSERT INTO %[1]s.rows VALUES ('%[2]s')", name, rows))
	}
}

func (k *keeping) rows() string {
	return strings.Join(strings.Fields(k.sql("SELECT what FROM orders.rows; SELECT what FROM stock.rows")), " ")
}

// pod makes a pod that is ready, although no node runs it.
func (k *keeping) pod(name string) {
	k.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.app, Name: name, Labels: map[string]string{"app": "db"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "db", Image: "none"}}},
	}
	k.create(pod)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "db", Image: "none", ImageID: "none", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	if err := k.cluster.Client.Status().Update(k.Context(), pod); err != nil {
		k.Fatal(err)
	}
}

func (k *keeping) databases(b *v1alpha1.Backup) {
	inPod := &v1alpha1.DatabasePod{Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}
	b.Spec.Application.ExcludeKinds = []string{"pods"} // no node would run them
	b.Spec.Application.Databases = []v1alpha1.Database{
		{Name: "orders", Engine: v1alpha1.EngineMySQL, Host: "127.0.0.1", Port: k.port, Databases: []string{"orders"}},
		{Name: "stock", Engine: v1alpha1.EngineMySQL, Host: "127.0.0.1", Port: k.port, Databases: []string{"stock"}, Pod: inPod},
	}
}

// partsOf are the databases in a point, by their names.
func (k *keeping) parts(id string) map[string]point.Part {
	k.Helper()
	record, _, err := k.store.Open(k.Context(), id)
	if err != nil {
		k.Fatal(err)
	}
	parts := map[string]point.Part{}
	for _, p := range record.Point.Parts {
		if p.Kind == point.KindDatabase {
			parts[p.Name] = p
		}
	}
	return parts
}

// breaking runs tools on this machine, and can have dumps break off half way, as of a server that was killed.
type breaking struct {
	database.Local
	after   atomic.Int64 // bytes of a dump; 0 for none
	stall   atomic.Bool  // and stand still then, until somebody ends them
	stalled atomic.Int64 // dumps that do
}

var errBroken = &database.Ended{Program: "mariadb-dump", Status: 2, Said: "Error 2013: Lost connection to server during query"}

func (b *breaking) Run(ctx context.Context, c database.Command) error {
	if n := b.after.Load(); n > 0 && slices.Contains(c.Argv, "--single-transaction") {
		to := &first{Writer: c.Stdout, left: n}
		if b.stall.Load() {
			to.over = func() {
				b.stalled.Add(1)
				<-ctx.Done()
			}
		}
		c.Stdout = to
		err := b.Local.Run(ctx, c)
		if to.left < 0 {
			return errBroken
		}
		return err
	}
	return b.Local.Run(ctx, c)
}

// first lets so many bytes through.
type first struct {
	io.Writer
	left int64
	over func() // when they are through; may be nil
}

func (f *first) Write(p []byte) (int, error) {
	through := min(int64(len(p)), max(f.left, 0))
	f.left -= int64(len(p))
	if n, err := f.Writer.Write(p[:through]); err != nil {
		return n, err
	}
	if f.left < 0 && f.over != nil {
		f.over()
	}
	return len(p), nil
}

func TestDatabasesAreInThePointAndComeBack(t *testing.T) {
	k := newKeeping(t)
	s := k.backedUp("backup", k.app, k.databases)
	if s.Phase != v1alpha1.PhaseComplete || len(s.Databases) != 2 {
		t.Fatalf("status %+v", s)
	}
	parts := k.parts(s.Point)
	for i, at := range []string{fmt.Sprintf("127.0.0.1:%d", k.port), k.app + "/db"} {
		d := s.Databases[i]
		p := parts["databases/"+d.Name]
		if d.At != at || !d.Stored || p.State != point.Stored || p.Captured == nil || !p.Captured.Equal(d.Captured.Time) {
			t.Errorf("database %+v, part %+v", d, p)
		}
		if d.Captured.Before(&s.Instant.Begun) || s.Instant.Released.Before(d.Captured) {
			t.Errorf("database %s is of %s, and the application was at rest from %s to %s", d.Name, d.Captured, s.Instant.Begun, s.Instant.Released)
		}
	}
	record, _, err := k.store.Open(t.Context(), s.Point)
	if err != nil {
		t.Fatal(err)
	}
	if apart := s.Databases[1].Captured.Sub(s.Databases[0].Captured.Time).Abs(); point.Skew(record.Point.Parts) < apart {
		t.Errorf("the skew is %s, and the databases lie %s apart", point.Skew(record.Point.Parts), apart)
	}

	k.fill("after")
	kept := k.restored("keeps", v1alpha1.RestoreSpec{RestorePoint: s.RestorePoint})
	if kept.Phase != v1alpha1.PhaseIncomplete || len(kept.Problems) != 2 || !strings.Contains(kept.Problems[0], "not empty") || k.rows() != "after after" {
		t.Errorf("a restore that keeps: %+v, rows %s", kept, k.rows())
	}
	fails := k.restored("fails", v1alpha1.RestoreSpec{RestorePoint: s.RestorePoint, Existing: v1alpha1.ExistingFail})
	if fails.Phase != v1alpha1.PhaseFailed || k.rows() != "after after" {
		t.Errorf("a restore that fails: %+v, rows %s", fails, k.rows())
	}
	elsewhere := k.restored("elsewhere", v1alpha1.RestoreSpec{
		RestorePoint: s.RestorePoint, Namespaces: map[string]string{k.app: k.application()}, Only: v1alpha1.OnlyConfig,
	})
	if len(elsewhere.Databases) != 0 || k.rows() != "after after" {
		t.Errorf("a restore of configuration: %+v, rows %s", elsewhere, k.rows())
	}
	replaced := k.restored("replaces", v1alpha1.RestoreSpec{RestorePoint: s.RestorePoint, Only: v1alpha1.OnlyData, Existing: v1alpha1.ExistingReplace})
	if replaced.Phase != v1alpha1.PhaseComplete || k.rows() != "before before" {
		t.Errorf("a restore that replaces: %+v, rows %s", replaced, k.rows())
	}
	var plan corev1.ConfigMap
	k.get(replaced.PlanName, &plan)
	for _, want := range []string{"database orders, mysql at 127.0.0.1", "database stock, mysql in a pod of namespace " + k.app} {
		if !strings.Contains(plan.Data[v1alpha1.PlanText], want) {
			t.Errorf("the plan does not say %q:\n%s", want, plan.Data[v1alpha1.PlanText])
		}
	}
}

func TestDumpThatBreaksOffIsNoDump(t *testing.T) {
	k := newKeeping(t)
	good := k.backedUp("good", k.app, k.databases)
	k.fill("after")
	k.tools.after.Store(1200)
	s := k.backedUp("broken", k.app, k.databases)
	if s.Phase != v1alpha1.PhaseIncomplete {
		t.Fatalf("status %+v", s)
	}
	for name, p := range k.parts(s.Point) {
		if p.State != point.Carried || p.CarriedFrom == nil || !strings.Contains(p.Reason, "Lost connection") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	k.tools.after.Store(0)
	restored := k.restored("carried", v1alpha1.RestoreSpec{RestorePoint: s.RestorePoint, Existing: v1alpha1.ExistingReplace})
	if len(restored.Databases) != 2 || k.rows() != "before before" {
		t.Errorf("of what was carried from %s: %+v, rows %s", good.Point, restored, k.rows())
	}
}

// TestDumpsOfAProcessThatEnded: a dump that was not whole is begun anew while the instant is not over; afterwards nothing brings it back.
func TestDumpsOfAProcessThatEnded(t *testing.T) {
	for _, test := range []struct {
		when  string
		after int64 // bytes of each dump, at which it stands still
		until func(*v1alpha1.BackupStatus) bool
		phase v1alpha1.Phase
		state point.State
	}{
		{"before the instant is over", 1, func(s *v1alpha1.BackupStatus) bool { return s.Phase == v1alpha1.PhaseQuiescing }, v1alpha1.PhaseComplete, point.Stored},
		{"after it", 1200, func(s *v1alpha1.BackupStatus) bool { return s.Instant != nil }, v1alpha1.PhaseIncomplete, point.Carried},
	} {
		t.Run(test.when, func(t *testing.T) {
			k := newKeeping(t)
			k.backedUp("good", k.app, k.databases)
			k.fill("meanwhile")
			k.backup("ended", k.app, k.databases)
			k.tools.after.Store(test.after)
			k.tools.stall.Store(true)
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- k.worker().Backup(ctx, k.system, "ended") }()
			for s := k.statusOf("ended"); !test.until(&s) || k.tools.stalled.Load() < 2; s = k.statusOf("ended") {
				select {
				case err := <-ended:
					t.Fatalf("it has ended before: %v, %+v", err, s)
				case <-time.After(20 * time.Millisecond): // the dumps need the processor, too
				}
			}
			end()
			if err := <-ended; err == nil {
				t.Fatal("it was not ended")
			}
			if s := k.statusOf("ended"); !s.Dumping() {
				t.Fatalf("no dump is under way: %+v", s)
			}
			k.tools.after.Store(0)
			k.fill("after")
			if err := k.worker().Backup(t.Context(), k.system, "ended"); err != nil {
				t.Fatal(err)
			}
			s := k.statusOf("ended")
			for name, p := range k.parts(s.Point) {
				if p.State != test.state || s.Phase != test.phase || p.State == point.Carried && !strings.Contains(p.Reason, "was ended") {
					t.Errorf("%s of a point that is %s: %+v", name, s.Phase, p)
				}
			}
			want := map[point.State]string{point.Stored: "after after", point.Carried: "before before"}[test.state]
			r := k.restored("back", v1alpha1.RestoreSpec{RestorePoint: s.RestorePoint, Existing: v1alpha1.ExistingReplace})
			if k.rows() != want {
				t.Errorf("rows %s, want %s: %+v", k.rows(), want, r)
			}
		})
	}
}

func TestRestoreOfDatabasesKilled(t *testing.T) {
	k := newKeeping(t)
	made := k.backedUp("backup", k.app, k.databases)
	for n := int64(1); ; n += 2 * step() {
		name := fmt.Sprintf("killed-%d", n)
		k.fill("after")
		k.restore(name, v1alpha1.RestoreSpec{RestorePoint: made.RestorePoint, Existing: v1alpha1.ExistingReplace})
		killed := k.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Restore(ctx, k.system, name) })
		if err := k.worker().Restore(t.Context(), k.system, name); err != nil {
			t.Fatalf("killed after %d writes: %v", n, err)
		}
		if s := k.restoreStatus(name); s.Phase != v1alpha1.PhaseComplete || k.rows() != "before before" {
			t.Errorf("killed after %d writes: rows %s, %+v", n, k.rows(), s)
		}
		if !killed {
			break
		}
	}
}

func TestTenantsReachDatabasesInTheirOwnPodsOnly(t *testing.T) {
	l := newLab(t)
	w := l.worker()
	inPod := func(namespace string) *v1alpha1.DatabasePod {
		return &v1alpha1.DatabasePod{Namespace: namespace, Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}
	}
	for name, test := range map[string]struct {
		home string
		of   v1alpha1.Database
		says string
	}{
		"from Backstay's own pods":   {"team-a", v1alpha1.Database{Engine: "mysql", Host: "db.example"}, "Backstay's own pods"},
		"a socket of Backstay's own": {l.system, v1alpha1.Database{Engine: "mysql", Host: "/run/mysqld.sock"}, "neither host nor pod"},
		"a pod of somebody else":     {"team-a", v1alpha1.Database{Engine: "mysql", Pod: inPod("team-b")}, "not of team-a"},
		"a pod of nowhere":           {l.system, v1alpha1.Database{Engine: "mysql", Pod: inPod("")}, "several namespaces"},
	} {
		if r, err := w.reach(t.Context(), test.home, l.cluster, test.of); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestDatabasesOfOneNameAreRefused(t *testing.T) {
	l := newLab(t)
	s := l.backedUp("twins", l.application(), func(b *v1alpha1.Backup) {
		b.Spec.Application.Databases = []v1alpha1.Database{{Engine: "mysql", Host: "a"}, {Name: "a", Engine: "redis", Host: "b"}}
	})
	if s.Phase != v1alpha1.PhaseFailed || len(s.Problems) == 0 || !strings.Contains(s.Problems[0], "two databases have the name a") {
		t.Errorf("status %+v", s)
	}
}

func TestAFileOfSQLiteHasNoServer(t *testing.T) {
	for _, pod := range []*v1alpha1.DatabasePod{nil, {Namespace: "shop"}} {
		_, err := (&Worker{}).reach(t.Context(), "shop", nil, v1alpha1.Database{Name: "app", Engine: v1alpha1.EngineSQLite, File: "/etc/app.db", Pod: pod})
		if !errors.Is(err, fault.ErrUnsupported) || len(fault.Hints(err)) == 0 {
			t.Errorf("pod %v: %v", pod, err)
		}
	}
}
