package gitops

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// manager is who changes objects, as their managed fields and operations have it.
const manager = "backstay"

// argoCD is an Application of Argo CD as a Deployment.
type argoCD struct {
	client client.Client
	key    types.NamespacedName
}

// does names what is done, for errors.
func (d argoCD) does(what string) string { return what + " " + argoName(d.key) }

func argoName(key types.NamespacedName) string { return v1alpha1.EngineArgoCD + "/" + key.String() }

// State reads how it stands.
func (d argoCD) State(ctx context.Context) (State, error) {
	a, err := d.application(ctx)
	if err != nil {
		return State{}, fault.Wrap(d.does("read"), nil, err, "")
	}
	return a.State(), nil
}

func (d argoCD) application(ctx context.Context) (Application, error) {
	object, err := get(ctx, d.client, "Application", d.key)
	return Application{object}, err
}

// get reads an object of Argo CD. A cluster without Argo CD has none of them.
func get(ctx context.Context, c client.Reader, kind string, key types.NamespacedName) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(argoKind(kind))
	err := c.Get(ctx, key, object)
	if meta.IsNoMatchError(err) {
		return nil, fault.New("", fault.ErrNotFound, "Argo CD's definitions are not installed", "")
	}
	if err != nil {
		return nil, fault.Wrap("", kube.ClassOf(err), err, "")
	}
	return object, nil
}

// State is how the Application stands.
func (a Application) State() State {
	automated, _ := a.Automated()
	_, stands := a.Well()
	s := State{
		Name: argoName(a.Name()), UID: string(a.UID()), Namespace: a.Namespace(), Sources: a.Sources(), Live: a.Deployed(), Head: a.Compared(),
		Automated: automated, Operation: a.Operation(),
		Synced: a.text("status", "sync", "status") == "Synced", Healthy: a.text("status", "health", "status") == "Healthy",
	}
	var says []string
	if !s.Synced || !s.Healthy {
		says = append(says, stands)
	}
	for _, c := range a.list("status", "conditions") {
		condition, _ := c.(map[string]any)
		kind, message := text(condition, "type"), text(condition, "message")
		if strings.HasSuffix(kind, "Error") {
			says = append(says, kind+": "+message)
			s.Lost = s.Lost || unreadable(message)
			s.HeadLost = s.HeadLost || unreadable(message) && kind != "SyncError" // which is what an operation failed of
		}
	}
	if o := s.Operation; o != nil {
		failed := o.Phase != "Succeeded" && o.Message != ""
		if failed {
			says = append(says, "sync: "+o.Message)
		}
		if o.Restore == "" {
			s.Lost = s.Lost || failed && unreadable(o.Message)
		} else { // HEAD may be gone, and what a Restore asks for be there; a forge may be back at the next attempt
			s.Lost = failed && o.Ended() && unreadable(o.Message)
		}
	}
	s.Message = strings.Join(says, "; ")
	return s
}

// unreadable reports whether Argo CD says that it could not read a repository or a revision: words of its repo-server, of git, of Helm.
func unreadable(message string) bool {
	message = strings.ToLower(message)
	return slices.ContainsFunc([]string{
		"failed to list refs", "repository not found", "authentication required", "authorization failed", "could not read from remote repository",
		"unable to resolve", "failed to fetch", "failed to checkout", "failed to initialize repository resources",
		"not our ref", "reference is not a tree", "not a valid object",
		"error fetching chart", "failed to get index", "error retrieving helm chart",
	}, func(words string) bool { return strings.Contains(message, words) })
}

// Stop ends a sync as argocd-server does: its phase becomes Terminating, and Argo CD's controller deletes its running hooks. One that has
// not begun begins as such, so that the controller cannot have begun it meanwhile. Then the window of by keeps also from syncing who asks
// for it by hand, until Deploy.
//
// A window keeps the controller from ending a sync, too, which would be Terminating for as long as the window is there. So the sync is no
// longer automated, and the window lets what is not pass until there is nothing left to end.
func (d argoCD) Stop(ctx context.Context, by string) error {
	op := d.does("stop the sync of")
	for {
		if err := d.end(ctx, by); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
		a, err := d.application(ctx)
		if err != nil {
			return fault.Wrap(op, nil, err, "")
		}
		if o := a.Operation(); o != nil && by != "" && o.Restore == by { // the window is not needed any more
			return nil
		}
		if err := d.closeWindow(ctx, a, by, true); err != nil {
			return fault.Wrap(op, nil, err, "")
		}
		if a, err = d.application(ctx); err != nil || a.idle(by) {
			return fault.Wrap(op, nil, err, "")
		}
		if err := d.closeWindow(ctx, a, by, false); err != nil { // somebody asked in that moment
			return fault.Wrap(op, nil, err, "")
		}
	}
}

// idle reports whether no sync is under way or asked for but what was by by.
func (a Application) idle(by string) bool {
	o := a.Operation()
	return o == nil || o.Ended() || by != "" && o.Restore == by
}

// end ends syncs until there is none, or one that was asked for by by.
func (d argoCD) end(ctx context.Context, by string) error {
	const pause = 300 * time.Millisecond
	for {
		a, err := d.application(ctx)
		if err != nil || a.idle(by) {
			return err
		}
		if err := d.terminate(ctx, a); err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fault.Wrap("", fault.ErrUnavailable, fmt.Errorf("it is still %s: %w", a.Operation().phase(), context.Cause(ctx)),
				"see whether Argo CD's application controller runs")
		}
	}
}

func (o Operation) phase() string {
	if o.Phase == "" {
		return "waiting to begin"
	}
	return o.Phase
}

// terminate asks for the end of what is asked for or under way, unless somebody else has changed the Application since it was read; then
// it is read again.
func (d argoCD) terminate(ctx context.Context, a Application) error {
	before := a.object.DeepCopy()
	object := a.object.Object
	status, _ := field(object, "status").(map[string]any)
	if status == nil {
		status = map[string]any{}
		object["status"] = status
	}
	state, _ := status["operationState"].(map[string]any)
	if phase := text(state, "phase"); phase != "Running" && phase != "Terminating" {
		state = map[string]any{
			"startedAt": metav1.Now().UTC().Format(time.RFC3339),
			"operation": runtime.DeepCopyJSONValue(object["operation"]),
		}
	}
	if object["operation"] == nil { // then the controller would not look at it
		object["operation"] = runtime.DeepCopyJSONValue(state["operation"])
	}
	state["phase"], state["message"] = "Terminating", "Backstay ends it, as data and configuration go back"
	if initiated, is := field(state, "operation", "initiatedBy").(map[string]any); is {
		delete(initiated, "automated")
	}
	status["operationState"] = state
	// It looks at the operation again when it looks at the Application: now, also where it is a window that was changed.
	annotations := a.object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	if _, asked := annotations[annotationRefresh]; !asked {
		annotations[annotationRefresh] = "normal"
		a.object.SetAnnotations(annotations)
	}
	return d.patch(ctx, before, a.object)
}

// patch writes what has changed. Where somebody else has written meanwhile, nothing is, and that is no error.
func (d argoCD) patch(ctx context.Context, before, after *unstructured.Unstructured) error {
	if reflect.DeepEqual(before.Object, after.Object) {
		return nil
	}
	err := d.client.Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(manager))
	if err = ignoreConflict(err); err != nil {
		return fault.Wrap("", kube.ClassOf(err), err, "")
	}
	return nil
}

// Deploy asks for a sync as Argo CD's own rollback does: of what the last sync of these revisions had for sources, by apply alone, so
// without hooks. The previous operation's state goes with the same patch, or Argo CD would take its results for those of the new one.
func (d argoCD) Deploy(ctx context.Context, to []string, by string) error {
	if err := d.open(ctx, by); err != nil {
		return fault.Wrap(d.does("deploy by"), nil, err, "")
	}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		a, err := d.application(ctx)
		if err != nil {
			return err
		}
		if o := a.Operation(); o != nil {
			ours := o.Restore == by && slices.Equal(o.Revisions, to)
			switch {
			case ours && (!o.Ended() || o.Phase == "Succeeded"):
				return nil
			case !o.Ended():
				return fault.New("", fault.ErrBusy, "another sync is "+o.phase(), "")
			}
		}
		operation, err := a.rollback(to, by)
		if err != nil {
			return err
		}
		before := a.object.DeepCopy()
		a.object.Object["operation"] = operation
		if status, is := a.field("status").(map[string]any); is {
			delete(status, "operationState")
		}
		return d.client.Patch(ctx, a.object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(manager))
	})
	return fault.Wrap(d.does("deploy "+strings.Join(to, ", ")+" by"), kube.ClassOf(err), err, "")
}

// open has the window of by let pass what is asked for by hand. What it blocked ends first: that was asked for while data came back.
func (d argoCD) open(ctx context.Context, by string) error {
	a, err := d.application(ctx)
	if err != nil {
		return err
	}
	if !a.idle(by) {
		if err := d.terminate(ctx, a); err != nil {
			return err
		}
	}
	if err := d.closeWindow(ctx, a, by, false); err != nil {
		return err
	}
	return d.end(ctx, by)
}

// rollback is the operation that deploys revisions: pruning as automated syncs do, with the Application's options.
func (a Application) rollback(to []string, by string) (map[string]any, error) {
	from, _ := a.field("spec").(map[string]any)
	for _, h := range slices.Backward(a.list("status", "history")) {
		if entry, is := h.(map[string]any); is && slices.Equal(revisions(entry), to) {
			from = entry
			break
		}
	}
	sync := map[string]any{
		"prune":        a.field("spec", "syncPolicy", "automated", "prune") == true,
		"syncStrategy": map[string]any{"apply": map[string]any{}},
	}
	sources, _ := from["sources"].([]any)
	switch {
	case len(to) == 0 || len(to) != max(1, len(sources)):
		return nil, fault.New("", fault.ErrInvalid,
			fmt.Sprintf("%d revisions for %d sources", len(to), max(1, len(sources))), "give one revision for each source")
	case len(sources) > 0:
		all := make([]any, len(to))
		for i, r := range to {
			all[i] = r
		}
		sync["revisions"], sync["sources"] = all, runtime.DeepCopyJSONValue(sources)
	default:
		sync["revision"] = to[0]
		if source, is := from["source"].(map[string]any); is {
			sync["source"] = runtime.DeepCopyJSONValue(source)
		}
	}
	if options, is := a.field("spec", "syncPolicy", "syncOptions").([]any); is {
		sync["syncOptions"] = runtime.DeepCopyJSONValue(options)
	}
	return map[string]any{
		"sync":        sync,
		"initiatedBy": map[string]any{"username": manager},
		"info":        []any{map[string]any{"name": v1alpha1.AnnotationRestore, "value": by}},
		// What was restored a moment ago (a webhook's pod, a definition) may not answer yet. Never with `refresh`, which takes HEAD.
		"retry": map[string]any{"limit": int64(3), "backoff": map[string]any{"duration": "5s", "factor": int64(2), "maxDuration": "30s"}},
	}, nil
}

// restoreOf is the Restore that asked for an operation.
func restoreOf(operation map[string]any) string {
	info, _ := operation["info"].([]any)
	for _, i := range info {
		if m, is := i.(map[string]any); is && text(m, "name") == v1alpha1.AnnotationRestore {
			return text(m, "value")
		}
	}
	return ""
}
