package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/gitops"
)

// terminated is how Argo CD words that somebody ended a sync: who does that decides what comes after it.
const terminated = "Operation terminated"

// afterFailure makes the Restore that a policy wants after a sync that failed behind an open gate: once for each operation, when the point
// of the sync is stored.
func (d deployments) afterFailure(ctx context.Context, u *unstructured.Unstructured, p *v1alpha1.Policy) error {
	a := gitops.ReadApplication(u)
	o, wants := a.Operation(), p.Spec.GitOps.AfterFailure
	seen, is := sightingOf(a)
	failed := is && o.Failed() && o.Hooks() && o.Restore == "" && !strings.HasPrefix(o.Message, terminated)
	if !failed || wants == "" || wants == v1alpha1.AfterFailureNothing || d.Now().Sub(a.Ended()) > recordFor {
		return nil
	}
	sync := seen.sync(v1alpha1.EngineArgoCD + "/" + seen.application.String())
	gates, err := d.gatesOfSync(ctx, sync)
	if err != nil {
		return err
	}
	gates = slices.DeleteFunc(gates, func(g v1alpha1.Gate) bool { return g.Status.Phase != v1alpha1.GateOpen || g.Status.Point == "" })
	if len(gates) == 0 || slices.ContainsFunc(gates, func(g v1alpha1.Gate) bool { return g.Status.Restore != "" }) {
		return nil
	}
	g := &gates[0]
	from, err := d.restorePoint(ctx, p, g.Status.Point)
	if from == "" || err != nil {
		return err
	}
	r := &v1alpha1.Restore{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "after-" + seen.name()},
		Spec: v1alpha1.RestoreSpec{
			RestorePoint: from, PlanOnly: wants == v1alpha1.AfterFailurePropose, ServiceAccountName: p.Spec.ServiceAccountName,
			GitOps: &v1alpha1.Transaction{Deployment: sync.Deployment},
		},
	}
	if err := d.client.Create(ctx, r); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create restore %s: %w", r.Name, err)
	}
	if err := d.save(ctx, g, func() { g.Status.Restore = r.Name }); err != nil {
		return err
	}
	what := "is rolled back by"
	if r.Spec.PlanOnly {
		what = "may be rolled back as planned by"
	}
	d.tell(u, corev1.EventTypeWarning, "SyncFailed", fmt.Sprintf("the sync to %s failed (%s), and %s Restore %s/%s", seen.to, o.Message, what, r.Namespace, r.Name))
	return nil
}

// restorePoint is the object that stands for a point; empty where it is not there yet, or not any more.
func (d deployments) restorePoint(ctx context.Context, p *v1alpha1.Policy, point string) (string, error) {
	var points v1alpha1.RestorePointList
	if err := d.client.List(ctx, &points, client.InNamespace(p.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return "", fmt.Errorf("list restore points: %w", err)
	}
	for i := range points.Items {
		if s := &points.Items[i].Spec; s.Point == point && s.State == stateComplete && points.Items[i].DeletionTimestamp.IsZero() {
			return points.Items[i].Name, nil
		}
	}
	return "", nil
}
