package gitops

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// Suspend holds the Applications off by one more deny window of their AppProject, which is always active, and lets through only what
// somebody asks for: the sync of Deploy. No Application is changed, so nobody takes it back, and every Application is afterwards what it
// was before.
func (d argoCD) Suspend(ctx context.Context, s v1alpha1.Suspension, by string) error {
	err := d.changeWindows(ctx, s, func(windows []any) []any {
		others, ours := divide(windows, by)
		if len(ours) == 1 && isWindow(ours[0], s.Of) {
			return windows
		}
		return append(others, window(others, s.Of, by))
	})
	return fault.Wrap(fmt.Sprintf("hold syncs off by AppProject %s/%s", s.Namespace, s.Name), kube.ClassOf(err), err, "")
}

// Resume takes the window of by away. A sync that began to be automated in the moment that the window came, and was blocked by it, is
// ended before: it would go on, with what Git had then.
func (d argoCD) Resume(ctx context.Context, s v1alpha1.Suspension, by string) error {
	if slices.Contains(s.Of, d.key.Name) {
		if err := d.stopBlocked(ctx, by); err != nil {
			return err
		}
	}
	err := d.changeWindows(ctx, s, func(windows []any) []any {
		others, _ := divide(windows, by)
		return others
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fault.Wrap(fmt.Sprintf("let syncs go by AppProject %s/%s", s.Namespace, s.Name), kube.ClassOf(err), err, "")
}

// stopBlocked ends an automated sync while a window is there.
func (d argoCD) stopBlocked(ctx context.Context, by string) error {
	a, err := d.application(ctx)
	if fault.Of(err) == fault.Of(fault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fault.Wrap(d.does("read"), nil, err, "")
	}
	if o := a.Operation(); o == nil || o.Ended() || !o.Automated {
		return nil
	}
	return fault.Wrap(d.does("stop the sync of"), nil, d.open(ctx, by), "")
}

// changeWindows writes the windows of an AppProject anew, in one patch, or again where somebody else writes it too.
func (d argoCD) changeWindows(ctx context.Context, s v1alpha1.Suspension, change func([]any) []any) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		project := &unstructured.Unstructured{}
		project.SetGroupVersionKind(argoKind("AppProject"))
		if err := d.client.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, project); err != nil {
			return err
		}
		spec, _ := field(project.Object, "spec").(map[string]any)
		if spec == nil {
			spec = map[string]any{}
		}
		windows, _ := spec["syncWindows"].([]any)
		changed := change(slices.Clone(windows))
		if reflect.DeepEqual(windows, changed) {
			return nil
		}
		before := project.DeepCopy()
		spec["syncWindows"] = changed
		if len(changed) == 0 {
			delete(spec, "syncWindows")
		}
		project.Object["spec"] = spec
		return d.client.Patch(ctx, project, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(manager))
	})
}

// closeWindow has the window of by keep off what is asked for by hand, or not any more. Without a window there is nothing to do.
func (d argoCD) closeWindow(ctx context.Context, a Application, by string, closed bool) error {
	key := a.project()
	err := d.changeWindows(ctx, v1alpha1.Suspension{Namespace: key.Namespace, Name: key.Name}, func(windows []any) []any {
		changed, _ := runtime.DeepCopyJSONValue(windows).([]any)
		_, ours := divide(changed, by)
		for _, w := range ours {
			asMap(w)["manualSync"] = !closed
		}
		return changed
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fault.Wrap("change the window of AppProject "+key.String(), kube.ClassOf(err), err, "")
}

// window denies all but what is asked for by hand. Argo CD refuses projects with two windows that differ in nothing but their description,
// so the duration, which may be any from a minute up, is one that no other has.
func window(others []any, of []string, by string) map[string]any {
	hours := 1
	for slices.ContainsFunc(others, func(w any) bool { return field(asMap(w), "duration") == fmt.Sprintf("%dh", hours) }) {
		hours++
	}
	names := make([]any, len(of))
	for i, name := range of {
		names[i] = name
	}
	return map[string]any{
		"kind": "deny", "schedule": "* * * * *", "duration": fmt.Sprintf("%dh", hours), "timeZone": "UTC",
		"applications": names, "manualSync": true, "description": description(by),
	}
}

// isWindow reports whether a window of ours is still as it was made, for the same Applications, or closed since.
func isWindow(w any, of []string) bool {
	made := window(nil, of, "")
	for name, value := range asMap(w) {
		if !slices.Contains([]string{"duration", "description", "manualSync"}, name) && !reflect.DeepEqual(made[name], value) {
			return false
		}
	}
	return len(asMap(w)) == len(made)
}

func description(by string) string { return manager + " " + by }

// divide tells the windows that Suspend made for by from all others.
func divide(windows []any, by string) (others, ours []any) {
	for _, w := range windows {
		if text(asMap(w), "description") == description(by) {
			ours = append(ours, w)
		} else {
			others = append(others, w)
		}
	}
	return others, ours
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}
