package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/controller"
)

func (w *world) drill(namespace, name string) *v1alpha1.Drill {
	w.Helper()
	d := &v1alpha1.Drill{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.DrillSpec{RestorePoint: "shop-1"}}
	w.create(d)
	return d
}

func TestDrillHasAJobAndEnds(t *testing.T) {
	w := newWorld(t)
	w.start()
	d := w.drill(w.system, "proof")
	w.stands(d, &d.Status.Conditions, "Reconciling", "True/NotFound")
	w.location(w.system)
	w.point(w.system)
	j := w.job("drill")
	if got, want := j.Spec.Template.Spec.Containers[0].Args[:3], []string{"worker", "drill", w.system + "/proof"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	w.status(d, func() { d.Status.Phase = v1alpha1.PhaseComplete })
	w.succeed(j)
	w.letGo(d)
}

func TestDeletedDrillIsStoppedAndTidied(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.location(w.system)
	w.point(w.system)
	d := w.drill(w.system, "proof")
	j := w.job("drill")
	w.status(d, func() { d.Status.Phase, d.Status.Started = v1alpha1.PhaseMoving, &metav1.Time{Time: w.clock.now()} })
	w.remove(d)
	w.gone(j)
	w.letGoTidied(d)
	if n := len(w.jobs("drill")); n > 0 {
		t.Errorf("%d jobs are left", n)
	}
}

func TestDrillsAreOfBackstaysOwnNamespace(t *testing.T) {
	w := newWorld(t)
	w.start()
	tenant := w.namespace()
	w.location(tenant)
	w.point(tenant)
	d := w.drill(tenant, "proof")
	w.stands(d, &d.Status.Conditions, "Stalled", "True/Denied")
	if n := len(w.jobs("drill")); n > 0 {
		t.Errorf("%d jobs were started", n)
	}
}

// pointOf makes a RestorePoint of an application, made by a policy so long ago.
func (w *world) pointOf(p *v1alpha1.Policy, application, name string, ago time.Duration) *v1alpha1.RestorePoint {
	w.Helper()
	o := &v1alpha1.RestorePoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name},
		Spec: v1alpha1.RestorePointSpec{
			Location: p.Spec.Location, Point: name, Cluster: "test", Application: application, Policy: p.Name, State: "complete",
			Time: metav1.NewTime(w.clock.now().Add(-ago)),
		},
	}
	w.create(o)
	w.stands(o, &o.Status.Conditions, "Ready", "True/Complete") // so the controller has seen it
	return o
}

// found is what the location's worker does after a drill; it returns when the controller has seen it, where the last drill found something else.
func (w *world) found(p *v1alpha1.RestorePoint, problems ...string) {
	w.Helper()
	proof := &v1alpha1.PointProof{Time: metav1.NewTime(w.clock.now()), Proven: len(problems) == 0, RestoreTook: "43s", Problems: problems}
	w.eventually("proof", func() string {
		if err := w.get(p); err != nil {
			return err.Error()
		}
		p.Spec.Proof = proof
		if err := w.admin.Update(w.Context(), p); err != nil {
			return err.Error()
		}
		return ""
	})
	w.stands(p, &p.Status.Conditions, "Proven", map[bool]string{true: "True/Proven", false: "False/NotProven"}[proof.Proven])
}

func (w *world) drills() []v1alpha1.Drill {
	w.Helper()
	var all v1alpha1.DrillList
	if err := w.admin.List(w.Context(), &all, client.InNamespace(w.system)); err != nil {
		w.Fatal(err)
	}
	return all.Items
}

// planned makes a policy that says something of drills, without a schedule of its own.
func (w *world) planned(plan v1alpha1.DrillPlan, applications ...string) *v1alpha1.Policy {
	w.Helper()
	w.location(w.system)
	p := w.policy(w.system, nil, applications...)
	p.Spec.Drill = &plan
	w.eventually("plan", func() string {
		drill := p.Spec.Drill
		if err := w.get(p); err != nil {
			return err.Error()
		}
		p.Spec.Drill = drill
		if err := w.admin.Update(w.Context(), p); err != nil {
			return err.Error()
		}
		return ""
	})
	return p
}

func TestPolicyDrillsTheNewestPointsOldestProofFirst(t *testing.T) {
	w := newWorld(t)
	w.start()
	shop, blog := w.namespace(), w.namespace()
	p := w.planned(v1alpha1.DrillPlan{Schedule: &v1alpha1.Schedule{Cron: "@every 1h"}, Limit: 1, DrillChecks: v1alpha1.DrillChecks{
		HTTP: []v1alpha1.HTTPCheck{{Service: "web"}},
	}}, shop, blog)
	w.pointOf(p, shop, "shop-old", 2*time.Hour)
	w.pointOf(p, shop, "shop-new", time.Hour)
	w.found(w.pointOf(p, blog, "blog-new", time.Hour))
	w.eventually("next drill", func() string {
		_ = w.get(p)
		if p.Status.NextDrill == nil {
			return "none"
		}
		return ""
	})
	w.clock.forward(time.Hour + time.Minute)
	w.touch(p)
	var made v1alpha1.Drill
	w.eventually("drill", func() string {
		all := w.drills()
		if len(all) == 0 {
			return "none"
		}
		made = all[0]
		return ""
	})
	if n := len(w.drills()); n != 1 || made.Spec.RestorePoint != "shop-new" || len(made.Spec.HTTP) != 1 || len(made.OwnerReferences) != 1 ||
		made.Labels[v1alpha1.LabelApplication] != shop || made.Labels[v1alpha1.LabelPolicy] != p.Name {
		t.Errorf("%d drills, the first %+v", n, made)
	}
	w.eventually("the time after it", func() string {
		_ = w.get(p)
		if p.Status.LastDrill == nil || !p.Status.NextDrill.After(w.clock.now()) {
			return "it is not said"
		}
		return ""
	})
}

func TestPolicyDemandsProofs(t *testing.T) {
	address := "127.0.0.1:" + freePort(t)
	w := newWorld(t, func(o *controller.Options) { o.Metrics = address })
	w.start()
	shop, blog := w.namespace(), w.namespace()
	p := w.planned(v1alpha1.DrillPlan{ProvenWithin: "7d"}, shop, blog)
	w.stands(p, &p.Status.Conditions, "Proven", "False/NotProven")
	w.found(w.pointOf(p, shop, "shop-1", time.Hour))
	o := w.pointOf(p, blog, "blog-1", time.Hour)
	unproven := func(want string) {
		t.Helper()
		line := `backstay_policy_unproven_applications{namespace="` + w.system + `",policy="nightly"} ` + want
		w.eventually(line, func() string {
			if !strings.Contains(w.fetch("http://"+address+"/metrics"), "\n"+line+"\n") {
				return "there is no such line"
			}
			return ""
		})
	}
	unproven("1")
	w.found(o)
	w.stands(p, &p.Status.Conditions, "Proven", "True/Proven")
	unproven("0")
	w.stands(o, &o.Status.Conditions, "Proven", "True/Proven")
	w.found(o, "sql: wants 7, has 0")
	w.stands(o, &o.Status.Conditions, "Proven", "False/NotProven")
	w.event(w.system, "NotProven")
	w.stands(p, &p.Status.Conditions, "Proven", "False/NotProven")
	unproven("1")
	w.found(o)
	w.stands(p, &p.Status.Conditions, "Proven", "True/Proven")
	w.clock.forward(8 * 24 * time.Hour) // the points are too old now, proven or not
	w.touch(p)
	w.stands(p, &p.Status.Conditions, "Proven", "False/NotProven")
	unproven("2")
}
