package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// ends plays the controller that empties namespaces and ends them, for those of drills, until the test does. looks are shown each before it goes.
func (l *lab) ends(looks ...func(namespace string)) {
	ctx, stop := context.WithCancel(context.Background())
	var over sync.WaitGroup
	over.Go(func() {
		for ctx.Err() == nil {
			for _, n := range l.scratch(ctx) {
				if n.DeletionTimestamp.IsZero() {
					continue
				}
				for _, look := range looks {
					look(n.Name)
				}
				for _, o := range []client.Object{
					&networkingv1.NetworkPolicy{}, &corev1.ResourceQuota{}, &corev1.ConfigMap{}, &corev1.Service{}, &appsv1.Deployment{},
				} {
					_ = l.cluster.Client.DeleteAllOf(ctx, o, client.InNamespace(n.Name))
				}
				n.Spec.Finalizers = nil
				_ = l.cluster.Client.SubResource("finalize").Update(ctx, &n) // it may be gone by now
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	l.Cleanup(func() { stop(); over.Wait() })
}

// scratch are the namespaces of drills.
func (l *lab) scratch(ctx context.Context) []corev1.Namespace {
	var all corev1.NamespaceList
	_ = l.cluster.Client.List(ctx, &all, client.HasLabels{v1alpha1.LabelOwner}) // when the test is over there are none
	return slices.DeleteFunc(all.Items, func(n corev1.Namespace) bool { return !strings.HasPrefix(n.Name, v1alpha1.ScratchPrefix) })
}

func (l *lab) drill(name string, spec v1alpha1.DrillSpec) {
	l.Helper()
	l.create(&v1alpha1.Drill{ObjectMeta: l.named(name), Spec: spec})
}

func (l *lab) drilled(name string, spec v1alpha1.DrillSpec) v1alpha1.DrillStatus {
	l.Helper()
	l.drill(name, spec)
	if err := l.worker().Drill(l.Context(), l.system, name); err != nil {
		l.Fatal(err)
	}
	return l.drillStatus(name)
}

func (l *lab) drillStatus(name string) v1alpha1.DrillStatus {
	l.Helper()
	var d v1alpha1.Drill
	l.get(name, &d)
	return d.Status
}

// proof is that of the point that a Backup made, by the vault and by the point's object.
func (l *lab) proof(made v1alpha1.BackupStatus) (*point.Proof, *v1alpha1.PointProof) {
	l.Helper()
	for _, p := range l.points() {
		if p.ID == made.Point {
			return p.Proof, l.restorePoints()[made.Point].Spec.Proof
		}
	}
	l.Fatalf("no point %s", made.Point)
	return nil, nil
}

func TestDrillProvesAPointAndLeavesNothing(t *testing.T) {
	l := newLab(t)
	app := l.application()
	l.create(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: "web"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	})
	made, before := l.backedUp("backup", app), l.settings(app)
	var kinds []string
	l.ends(func(namespace string) {
		var web corev1.Service
		var closed networkingv1.NetworkPolicy
		for name, o := range map[string]client.Object{"web": &web, scratchName: &closed} {
			if l.cluster.Client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: name}, o) != nil {
				return
			}
		}
		kinds = append(kinds, string(web.Spec.Type), fmt.Sprint(len(closed.Spec.Ingress)), fmt.Sprint(len(closed.Spec.Egress)))
	})
	s := l.drilled("drill", v1alpha1.DrillSpec{Latest: latest(app)})
	if s.Phase != v1alpha1.PhaseComplete || s.Point != made.Point || s.RestorePoint != made.RestorePoint || len(s.Problems) > 0 || s.RestoreTook == "" {
		t.Fatalf("status %+v", s)
	}
	for _, want := range []string{"objects kubernetes/" + app, "ready"} {
		if !slices.ContainsFunc(s.Checks, func(c v1alpha1.DrillCheck) bool { return strings.TrimSpace(c.What+" "+c.Of) == want && c.OK }) {
			t.Errorf("checks %+v, want %s", s.Checks, want)
		}
	}
	proof, told := l.proof(made)
	if proof == nil || !proof.Proven || told == nil || !told.Proven || !strings.HasSuffix(proof.By, "/drill") {
		t.Errorf("proof %+v, told %+v", proof, told)
	}
	if n := l.scratch(t.Context()); len(n) > 0 {
		t.Errorf("namespaces are left: %+v", n)
	}
	if now := l.settings(app); now.ResourceVersion != before.ResourceVersion {
		t.Error("the live application was touched")
	}
	if want := []string{"ClusterIP", "1", "2"}; len(kinds) < len(want) || !slices.Equal(kinds[:len(want)], want) {
		t.Errorf("in scratch there were %q, want %q", kinds, want)
	}
}

// never makes a Deployment that runs, of which nobody would make pods again.
func (l *lab) never(app string) {
	l.Helper()
	labels := map[string]string{"app": "web"}
	web := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: app, Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1"}}},
			},
		},
	}
	l.create(web)
	web.Status = appsv1.DeploymentStatus{ObservedGeneration: web.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	if err := l.cluster.Client.Status().Update(l.Context(), web); err != nil {
		l.Fatal(err)
	}
}

func TestDrillOfWhatDoesNotRunTakesTheProofAway(t *testing.T) {
	l := newLab(t)
	l.ends()
	app := l.application()
	l.never(app)
	made := l.backedUp("backup", app)
	if err := l.store.Prove(t.Context(), point.Proof{Point: made.Point, Proven: true}); err != nil {
		t.Fatal(err)
	}
	s := l.drilled("drill", v1alpha1.DrillSpec{RestorePoint: made.RestorePoint, DrillScratch: v1alpha1.DrillScratch{ReadyWithin: "1s"}})
	if s.Phase != v1alpha1.PhaseIncomplete || len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0], "ready "+app+"/deployment.apps/web: ") {
		t.Errorf("status %+v", s)
	}
	if proof, told := l.proof(made); proof == nil || proof.Proven || told == nil || told.Proven {
		t.Errorf("proof %+v, told %+v", proof, told)
	}
	if n := l.scratch(t.Context()); len(n) > 0 {
		t.Errorf("namespaces are left: %+v", n)
	}
}

// damaged is a vault whose points cannot be read.
type damaged struct{ open }

func (damaged) Open(context.Context, string) (*point.Record, point.Reader, error) {
	return nil, nil, fault.New("read blob p1", fault.ErrCorrupt, "its checksum is another", "")
}

func TestDrillOfADamagedPointNamesTheDamage(t *testing.T) {
	l := newLab(t)
	l.ends()
	made := l.backedUp("backup", l.application())
	l.drill("drill", v1alpha1.DrillSpec{RestorePoint: made.RestorePoint})
	if err := l.workerOf(l.cluster, damaged{open{l.store}}).Drill(t.Context(), l.system, "drill"); err != nil {
		t.Fatal(err)
	}
	if s := l.drillStatus("drill"); s.Phase != v1alpha1.PhaseIncomplete || !strings.Contains(strings.Join(s.Problems, "\n"), "read blob p1") {
		t.Errorf("status %+v", s)
	}
	if proof, _ := l.proof(made); proof == nil || proof.Proven {
		t.Errorf("proof %+v", proof)
	}
}

func TestDrillThatCannotBeMadeSaysNothingOfThePoint(t *testing.T) {
	l := newLab(t)
	l.ends()
	tenant := l.application()
	l.create(&v1alpha1.Drill{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "drill"}, Spec: v1alpha1.DrillSpec{RestorePoint: "any"}})
	if err := l.worker().Drill(t.Context(), tenant, "drill"); err != nil {
		t.Fatal(err)
	}
	var d v1alpha1.Drill
	if err := l.cluster.Client.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: "drill"}, &d); err != nil {
		t.Fatal(err)
	}
	if d.Status.Phase != v1alpha1.PhaseFailed || d.Status.Conditions[0].Reason != "Denied" {
		t.Errorf("status %+v", d.Status)
	}
	made := l.backedUp("backup", l.application())
	l.drill("other", v1alpha1.DrillSpec{RestorePoint: made.RestorePoint})
	l.opened = fault.New("open the vault", fault.ErrDenied, "the password is another", "")
	if err := l.worker().Drill(t.Context(), l.system, "other"); err != nil {
		t.Fatal(err)
	}
	if s := l.drillStatus("other"); s.Phase != v1alpha1.PhaseFailed {
		t.Errorf("status %+v", s)
	}
	if proof, told := l.proof(made); proof != nil || told != nil {
		t.Errorf("proof %+v, told %+v", proof, told)
	}
}

func TestDrillThatIsKilledAnywhereComesToItsEnd(t *testing.T) {
	l := newLab(t)
	l.ends()
	app := l.application()
	made := l.backedUp("backup", app)
	for n := int64(1); ; n += step() {
		name := fmt.Sprint("kill-", n)
		l.drill(name, v1alpha1.DrillSpec{RestorePoint: made.RestorePoint})
		killed := l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Drill(ctx, l.system, name) })
		if err := l.worker().Drill(t.Context(), l.system, name); err != nil {
			t.Fatalf("after %d writes: %v", n, err)
		}
		if s := l.drillStatus(name); s.Phase != v1alpha1.PhaseComplete {
			t.Fatalf("after %d writes: status %+v", n, s)
		}
		if left := l.scratch(t.Context()); len(left) > 0 {
			t.Fatalf("after %d writes namespaces are left: %+v", n, left)
		}
		if !killed {
			return
		}
	}
}

func TestTidyClearsWhatADeletedDrillLeft(t *testing.T) {
	l := newLab(t)
	l.ends()
	made := l.backedUp("backup", l.application())
	l.drill("drill", v1alpha1.DrillSpec{RestorePoint: made.RestorePoint})
	var d v1alpha1.Drill
	l.get("drill", &d)
	for n := int64(2); len(l.scratch(t.Context())) == 0; n++ { // until it came so far
		l.killedAfter(n, func(ctx context.Context, w *Worker) error { return w.Drill(ctx, l.system, "drill") })
	}
	if err := l.worker().Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.scratch(t.Context())) != 1 {
		t.Fatal("the namespace of a drill under way was removed")
	}
	if err := l.cluster.Client.Delete(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	if err := l.worker().Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := l.scratch(t.Context()); len(left) > 0 {
		t.Errorf("namespaces are left: %+v", left)
	}
}

// TestDrillTouchesNoDatabaseOutside: a drill loads nothing where the live application has its data, and proves no point whose databases
// nobody looked at, unless it is told that they need not be.
func TestDrillTouchesNoDatabaseOutside(t *testing.T) {
	k := newKeeping(t)
	k.ends()
	shared := *k
	shared.app = k.application()
	shared.pod("db")
	made := k.backedUp("backup", k.app, k.databases, func(b *v1alpha1.Backup) { b.Spec.Application.Databases[1].Pod.Namespace = shared.app })
	if made.Phase != v1alpha1.PhaseComplete || len(made.Databases) != 2 {
		t.Fatalf("status %+v", made)
	}
	k.fill("after")

	s := k.drilled("strict", v1alpha1.DrillSpec{RestorePoint: made.RestorePoint, DrillScratch: v1alpha1.DrillScratch{ExceptDatabases: []string{"orders"}}})
	if s.Phase != v1alpha1.PhaseIncomplete || len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0], "database databases/stock: not looked at") {
		t.Errorf("status %+v", s)
	}
	if proof, told := k.proof(made); proof == nil || proof.Proven || told == nil || told.Proven {
		t.Errorf("proof %+v, told %+v", proof, told)
	}
	s = k.drilled("told", v1alpha1.DrillSpec{
		RestorePoint: made.RestorePoint, DrillScratch: v1alpha1.DrillScratch{ExceptDatabases: []string{"orders", "stock"}},
	})
	if s.Phase != v1alpha1.PhaseComplete || !strings.Contains(s.Conditions[0].Message, "nobody looked at databases/orders, databases/stock") {
		t.Errorf("status %+v", s)
	}
	want := []string{"databases/orders", "databases/stock"}
	if proof, told := k.proof(made); proof == nil || !proof.Proven || !slices.Equal(proof.Excepted(), want) || !told.Proven || !slices.Equal(told.Excepted, want) {
		t.Errorf("proof %+v, told %+v", proof, told)
	}
	if k.rows() != "after after" {
		t.Errorf("the live databases have %s", k.rows())
	}
}

// TestDatabasesOutside: what a dump is of is in the point's namespaces only where it is in a pod of theirs, and that pod's own.
func TestDatabasesOutside(t *testing.T) {
	p := &point.Point{Parts: []point.Part{{Name: "kubernetes/shop", Kind: point.KindObjects}}}
	for host, want := range map[string]bool{
		"": false, "/run/mysqld.sock": false, "localhost": false, "127.0.0.1": false, "::1": false,
		"db.example.com": true, "mariadb": true, "10.0.0.1": true,
	} {
		d := v1alpha1.Database{Host: host, Pod: &v1alpha1.DatabasePod{Namespace: "shop"}}
		if got := outsideOf(p, d); got != want {
			t.Errorf("host %q in a pod of the application: outside %t, want %t", host, got, want)
		}
		d.Pod.Namespace = "shared"
		if !outsideOf(p, d) {
			t.Errorf("host %q in a pod of somebody else is inside", host)
		}
	}
	if !outsideOf(p, v1alpha1.Database{Host: "127.0.0.1"}) {
		t.Error("a server without a pod is inside")
	}
}
