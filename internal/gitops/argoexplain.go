package gitops

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// explains stands between Argo CD's own words on an operation that failed and the cause that Explain adds.
const explains = "; backstay gate: "

// Explain adds a cause to what Argo CD says of the operation that began at started: of a failed hook it says there that something failed, and no
// more. It is written once, and to an operation that has failed only: where another is asked for or has begun meanwhile, nothing is. Argo CD
// writes that message again when an operation runs, not when it compares. The Application may be one that was trimmed.
func Explain(ctx context.Context, c client.Client, of *unstructured.Unstructured, started time.Time, cause string) error {
	a := Application{of.DeepCopy()}
	d := argoCD{c, a.Name()}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) {
		if a.object == nil {
			if a, err = d.application(ctx); err != nil {
				return err
			}
		}
		before := a.object.DeepCopy()
		if !a.explain(started, cause) {
			return nil
		}
		err = c.Patch(ctx, a.object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(manager))
		if apierrors.IsConflict(err) { // then what was read does not count
			a.object = nil
		}
		return err
	})
	return fault.Wrap(d.does("explain the sync of"), kube.ClassOf(err), err, "")
}

// explain reports whether it has changed the message.
func (a Application) explain(started time.Time, cause string) bool {
	o := a.Operation()
	if o == nil || !o.Failed() || !o.Started.Equal(started) {
		return false
	}
	state, _ := a.field("status", "operationState").(map[string]any)
	message := o.Message + explains + cause
	if text(state, "message") == message {
		return false
	}
	state["message"] = message
	return true
}
