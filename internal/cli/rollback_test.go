package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/worker"
)

func deployedPoint(name, id string, day int, state, revision string) v1alpha1.RestorePoint {
	p := restorePoint(name, id, "main", day)
	p.Spec.State, p.Spec.Deployment, p.Spec.Revisions = state, "argocd/argocd/web", []string{revision}
	return p
}

func TestWhatIsRolledBackTo(t *testing.T) {
	const first, second = "1111111aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "2222222bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	points := []v1alpha1.RestorePoint{
		deployedPoint("shop-4", "2222222ccccc", 4, "incomplete", first),
		deployedPoint("shop-3", "cccc", 3, "complete", second),
		deployedPoint("shop-2", "bbbb", 2, "complete", first),
		deployedPoint("shop-1", "aaaa", 1, "complete", first),
	}
	for _, test := range []struct {
		app, to string
		want    string
		class   error
	}{
		{"shop", "1111111", "shop-2", nil}, // the newest complete one
		{"web", first, "shop-2", nil},
		{"argocd/web", second, "shop-3", nil},
		{"argocd/argocd/web", "shop-4", "shop-4", nil}, // by its name whatever it lacks
		{"shop", "aaaa", "shop-1", nil},
		{"shop", "2222222", "", fault.ErrInvalid}, // a revision, and the id of a point
		{"shop", "2222222b", "shop-3", nil},
		{"shop", "111111", "", fault.ErrNotFound}, // six digits
		{"eb", "1111111", "", fault.ErrNotFound},
	} {
		s := &site{app: &app{}, client: catalogue{points: points}, namespace: defaultNamespace}
		found, err := s.deployedPoints(t.Context(), test.app)
		var got worker.Choice
		if err == nil {
			past, _ := worker.ReadPast(t.Context(), s.client, s.namespace, found)
			got, err = rolledTo(test.app, found, past, test.to)
		}
		if !errors.Is(err, test.class) || err == nil && got.Point.Name != test.want {
			t.Errorf("%s to %s: %v, %v", test.app, test.to, got.Point, err)
		}
	}
}

func TestPointsThatAreNotRolledBackToAreTold(t *testing.T) {
	const first, second = "1111111aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "2222222bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	const third = "3333333ccccccccccccccccccccccccccccccccc"
	points := []v1alpha1.RestorePoint{
		deployedPoint("shop-6", "ffff", 6, "complete", third), deployedPoint("shop-5", "eeee", 5, "incomplete", third),
		deployedPoint("shop-4", "dddd", 4, "complete", first), deployedPoint("shop-3", "cccc", 3, "complete", first),
		deployedPoint("shop-2", "bbbb", 2, "complete", second), deployedPoint("shop-1", "aaaa", 1, "complete", first),
	}
	points[1].Spec.NextRevisions = []string{first}
	var out bytes.Buffer
	s := &site{app: &app{Process: Process{Stdout: &out}}, client: catalogue{points: points}, namespace: defaultNamespace}
	for _, test := range []struct {
		to   string
		want string // the point
		says []string
	}{
		{first[:7], "shop-1", []string{
			"point shop-1 of 2026-01-01 00:00:00 UTC is taken, the newest of 1111111 before another revision was tried or live",
			"shop-4 of 2026-01-04 00:00:00, shop-3 of 2026-01-03 00:00:00; --to POINT",
		}},
		{second[:7], "shop-2", nil},
		{"shop-4", "shop-4", nil},
		{"dddd", "shop-4", nil},
		{third[:7], "shop-6", []string{"point shop-6 of 2026-01-06 00:00:00 UTC is taken, the newest of 3333333; before each of those another revision was tried"}},
	} {
		out.Reset()
		past, err := worker.ReadPast(t.Context(), s.client, s.namespace, points)
		if err != nil {
			t.Fatal(err)
		}
		c, err := rolledTo("shop", points, past, test.to)
		if err != nil || c.Point.Name != test.want {
			t.Errorf("%s: %+v, %v", test.to, c.Point, err)
			continue
		}
		s.tellDoubts(c, test.to)
		for _, want := range test.says {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: it does not say %q:\n%s", test.to, want, out.String())
			}
		}
		if test.says == nil && out.Len() > 0 {
			t.Errorf("%s: it says %s", test.to, out.String())
		}
	}
}

func TestWhatIsSaidAfterARollback(t *testing.T) {
	const good, bad = "1111111aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "2222222bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	now := metav1.NewMicroTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	until := metav1.NewTime(now.Add(24 * time.Hour))
	for _, test := range []struct {
		name   string
		change func(*v1alpha1.Restore)
		want   []string
	}{
		{"resumed", func(r *v1alpha1.Restore) { r.Status.GitOps.Resumed = &now }, []string{
			"rows and configuration of 1111111 are back after 41s", "syncs of argocd/argocd/shop go on as before", "--undo back",
		}},
		{"held", func(r *v1alpha1.Restore) { r.Status.GitOps.Held = "git still has it" }, []string{
			"are held off: git still has it", "rollback argocd/shop --release --force",
		}},
		{"undone", func(r *v1alpha1.Restore) { r.Spec.Undo = "rollback" }, []string{"what was there before is back after 41s: 1111111 is live"}},
		{"undone in part", func(r *v1alpha1.Restore) { r.Spec.Undo, r.Status.GitOps.To = "rollback", nil }, []string{
			"the volumes that were there before are back after 41s; the configuration is as it was",
		}},
		{"data alone", func(r *v1alpha1.Restore) { r.Spec.Only = v1alpha1.OnlyData }, []string{"rows are back after 41s"}},
		{"out of the point", func(r *v1alpha1.Restore) { r.Status.GitOps.FromPoint = true }, []string{"git does not have it any more"}},
		{"with a branch", func(r *v1alpha1.Restore) {
			r.Status.GitOps.Reverts = []string{"https://git.example.com/shop.git backstay/revert-2222222"}
		}, []string{
			"pushed https://git.example.com/shop.git backstay/revert-2222222: merge it",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Name: "back"}}
			r.Status.UndoUntil = &until
			r.Status.GitOps = &v1alpha1.TransactionStatus{
				Deployment: "argocd/argocd/shop", From: []string{bad}, To: []string{good}, Settled: &now, Took: "41s",
			}
			test.change(r)
			var out bytes.Buffer
			s := &site{app: &app{Process: Process{Stdout: &out}}}
			s.tellRolledBack(r, "shop")
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestFlagsOfRollback(t *testing.T) {
	for _, o := range []rollbackOptions{
		{}, {to: "x", force: true}, {release: true, to: "x"}, {to: "x", dataOnly: true, configOnly: true}, {to: "x", dataOnly: true, revert: true},
	} {
		if err := o.check(); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, o := range []rollbackOptions{{release: true, force: true}, {to: "x"}, {to: "x", configOnly: true, plan: true, revert: true}} {
		if err := o.check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
