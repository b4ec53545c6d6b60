package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

const (
	// labelStopped is on Secrets in Backstay's own namespace that hold pods which nothing would make again, and says by which Restore
	// they were stopped. They have no LabelOwner: they may not be tidied away before their pod is back.
	labelStopped = v1alpha1.Group + "/stopped"
	savedPod     = "pod.json" // in such a Secret
	// noNode is what no node is labelled with.
	noNode = v1alpha1.Group + "/no-node"
	// writer is under which name the cluster notes what Backstay changes.
	writer = client.FieldOwner("backstay")
)

// held is how a workload was before it was stopped; the value of AnnotationScaled.
type held struct {
	Replicas *int64 `json:"replicas,omitempty"`
	Suspend  *bool  `json:"suspend,omitempty"`
	// A StatefulSet whose claims would go with its pods says so again only when the pods are back.
	WhenScaled string `json:"whenScaled,omitempty"`
}

// stopping is one call of Stop.
type stopping struct {
	*Restorer
	claims map[string][]string // by namespace; nil for all
	names  map[string]bool     // of what is stopped
	again  map[string]int      // how often a workload had to be stopped
}

// Stop stops everything that uses the claims and waits until no pod is left that does. A claim without a name means all of its
// namespace. What is stopped is noted on the workload itself, beside LabelOwner, before it is stopped; Start puts it back. It returns
// the names of what is stopped, with what is worth to be known about it. Pods that have ended are deleted: they would hold their
// claims. A workload that another Restore holds, is fault.ErrBusy, one that is started again each time fault.ErrRefused, one that cannot
// be stopped fault.ErrUnsupported. On an error what is stopped stays so until Start.
func (r *Restorer) Stop(ctx context.Context, claims []types.NamespacedName) ([]string, error) {
	s := &stopping{Restorer: r, claims: map[string][]string{}, names: map[string]bool{}, again: map[string]int{}}
	for _, c := range claims {
		all, seen := s.claims[c.Namespace]
		switch {
		case c.Name == "":
			s.claims[c.Namespace] = nil
		case !seen || all != nil:
			s.claims[c.Namespace] = append(all, c.Name)
		}
	}
	const op = "stop what uses the claims"
	kinds, err := r.scalable(ctx, r.Application)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if err := s.nameSaved(ctx); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	first := true
	err = r.until(ctx, "wait until pods have ended", func(ctx context.Context) (bool, error) {
		u := &users{cluster: r.Application, scalable: kinds, seen: map[string]bool{}}
		left, err := s.round(ctx, u, first)
		first = false
		return left == 0, err
	})
	return slices.Sorted(maps.Keys(s.names)), fault.Wrap(op, nil, err, "")
}

// nameSaved names the pods that an earlier call put away.
func (s *stopping) nameSaved(ctx context.Context) error {
	saved, err := s.savedPods(ctx)
	for _, secret := range saved {
		var p corev1.Pod
		if secret.Labels[labelStopped] == s.Owner && json.Unmarshal(secret.Data[savedPod], &p) == nil {
			s.names["Pod "+p.Namespace+"/"+p.Name] = true
		}
	}
	return err
}

// round stops what is found and counts the pods that are left.
func (s *stopping) round(ctx context.Context, u *users, first bool) (left int, err error) {
	var ends []corev1.Pod
	for namespace, claims := range s.claims {
		pods, err := s.podsUsing(ctx, namespace, claims)
		if err != nil {
			return 0, err
		}
		left += len(pods)
		if len(pods) == 0 && !first {
			continue
		}
		if err := u.find(ctx, namespace, claims, pods); err != nil {
			return 0, err
		}
		ends = append(ends, slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !ended(&p) || p.DeletionTimestamp != nil })...)
	}
	for _, w := range u.found {
		if err := s.hold(ctx, w); err != nil {
			return 0, fault.Wrap(kindAndName(w.object), nil, err, "")
		}
	}
	for i := range u.bare {
		if err := s.putAway(ctx, &u.bare[i]); err != nil {
			return 0, err
		}
	}
	for i := range ends {
		if err := s.deletePod(ctx, &ends[i]); err != nil {
			return 0, err
		}
	}
	return left, nil
}

// most is how often a workload is stopped before it is clear that somebody else wants it to run.
const most = 4

// hold stops one workload, unless it does not run.
func (s *stopping) hold(ctx context.Context, w workload) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		o := w.object.DeepCopy()
		if err := s.Application.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return readFault("read it", client.IgnoreNotFound(err))
		}
		now, runs, err := s.state(ctx, o, w.way)
		if err != nil {
			return err
		}
		switch owner := o.GetLabels()[v1alpha1.LabelOwner]; {
		case o.GetAnnotations()[v1alpha1.AnnotationScaled] == "":
			if !runs {
				return nil
			}
		case owner != s.Owner:
			return fault.New("", fault.ErrBusy, "it is stopped by Restore "+owner, "")
		default:
			s.names[w.String()] = true
			if !runs {
				return nil
			}
			if err := json.Unmarshal([]byte(o.GetAnnotations()[v1alpha1.AnnotationScaled]), &now); err != nil {
				return fault.Wrap("read annotation "+v1alpha1.AnnotationScaled, fault.ErrCorrupt, err, "")
			}
		}
		if s.again[w.String()]++; s.again[w.String()] > most {
			return fault.New("", fault.ErrRefused, "it is started again as often as it is stopped", "suspend what starts it: a GitOps controller, an operator, an autoscaler")
		}
		s.names[w.String()] = true
		return s.stop(ctx, o, w.way, now)
	})
}

// state says how a workload is, and whether it would run pods.
func (s *stopping) state(ctx context.Context, o *unstructured.Unstructured, how way) (now held, runs bool, err error) {
	switch how {
	case byReplicas:
		n, found, err := unstructured.NestedInt64(o.Object, "spec", "replicas")
		if !found {
			n = 1 // as the API server has it
		}
		if policy, _, _ := unstructured.NestedString(o.Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled"); policy == "Delete" {
			now.WhenScaled = policy
		}
		now.Replicas = &n
		return now, n != 0, err
	case bySuspend:
		suspended, _, err := unstructured.NestedBool(o.Object, "spec", "suspend")
		now.Suspend = &suspended
		return now, !suspended && !jobEnded(o), err
	case byNodes:
		selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "spec", "nodeSelector")
		_, stopped := selector[noNode]
		return now, !stopped, err
	}
	scale := scaleOf(o)
	if err := s.Application.Client.SubResource("scale").Get(ctx, o, scale); err != nil {
		return now, false, readFault("read its scale", err)
	}
	n, _, err := unstructured.NestedInt64(scale.Object, "spec", "replicas")
	now.Replicas = &n
	return now, n != 0, err
}

func jobEnded(o *unstructured.Unstructured) bool {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	return slices.ContainsFunc(all, func(c any) bool {
		one, _ := c.(map[string]any)
		return (one["type"] == "Complete" || one["type"] == "Failed") && one["status"] == "True"
	})
}

// stop writes down how a workload was and stops it: in one call where its kind allows that.
func (s *stopping) stop(ctx context.Context, o *unstructured.Unstructured, how way, was held) error {
	text, err := json.Marshal(was)
	if err != nil {
		return fmt.Errorf("write down how it was: %w", err)
	}
	patch := map[string]any{"metadata": map[string]any{
		"resourceVersion": o.GetResourceVersion(), // what was read is what is written down
		"labels":          map[string]any{v1alpha1.LabelOwner: s.Owner},
		"annotations":     map[string]any{v1alpha1.AnnotationScaled: string(text)},
	}}
	switch how {
	case byReplicas:
		spec := map[string]any{"replicas": 0}
		if was.WhenScaled != "" {
			spec["persistentVolumeClaimRetentionPolicy"] = map[string]any{"whenScaled": "Retain"}
		}
		patch["spec"] = spec
	case bySuspend:
		patch["spec"] = map[string]any{"suspend": true}
	case byNodes:
		patch["spec"] = templateNodes("true")
	case byScale:
		if err := mergePatch(ctx, s.Application.Client, o, patch); err != nil {
			return err
		}
		return setScale(ctx, s.Application.Client, o, 0)
	}
	return mergePatch(ctx, s.Application.Client, o, patch)
}

func templateNodes(value any) map[string]any {
	return map[string]any{"template": map[string]any{"spec": map[string]any{"nodeSelector": map[string]any{noNode: value}}}}
}

// mergePatch changes an object; a conflict is returned as it came, for who tries again.
func mergePatch(ctx context.Context, c client.Client, o *unstructured.Unstructured, patch map[string]any) error {
	text, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode change: %w", err)
	}
	err = c.Patch(ctx, o, client.RawPatch(types.MergePatchType, text), writer)
	if apierrors.IsConflict(err) {
		return err
	}
	return readFault("change it", err)
}

// scaleOf is an empty Scale of an object.
func scaleOf(o *unstructured.Unstructured) *unstructured.Unstructured {
	scale := &unstructured.Unstructured{}
	scale.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	scale.SetNamespace(o.GetNamespace())
	scale.SetName(o.GetName())
	return scale
}

func setScale(ctx context.Context, c client.Client, o *unstructured.Unstructured, replicas int64) error {
	scale := scaleOf(o)
	scale.Object["spec"] = map[string]any{"replicas": replicas}
	err := c.SubResource("scale").Update(ctx, o, client.WithSubResourceBody(scale), writer)
	if apierrors.IsInvalid(err) {
		return fault.Wrap("", fault.ErrUnsupported, err, "stop it by hand, and restore again")
	}
	return readFault("scale it", err)
}

// putAway saves a pod that nothing would make again, and deletes it.
func (s *stopping) putAway(ctx context.Context, p *corev1.Pod) error {
	text, err := json.Marshal(podAsWritten(p))
	if err != nil {
		return fmt.Errorf("save pod %s: %w", p.Name, err)
	}
	err = s.Cluster.Client.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.System, Name: "backstay-pod-" + digest(s.Owner+"/"+p.Namespace+"/"+p.Name),
			Labels: map[string]string{labelStopped: s.Owner},
		},
		Data: map[string][]byte{savedPod: text},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return readFault("save pod "+p.Namespace+"/"+p.Name, err)
	}
	s.names["Pod "+p.Namespace+"/"+p.Name] = true
	return s.deletePod(ctx, p)
}

func (s *stopping) deletePod(ctx context.Context, p *corev1.Pod) error {
	err := s.Application.Client.Delete(ctx, p, client.Preconditions{UID: &p.UID})
	if apierrors.IsConflict(err) {
		return nil // it is another one by now
	}
	return readFault("delete pod "+p.Namespace+"/"+p.Name, client.IgnoreNotFound(err))
}

// podAsWritten is a pod without what the server put in and no new pod may have.
func podAsWritten(p *corev1.Pod) *corev1.Pod {
	saved := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, GenerateName: p.GenerateName, Labels: p.Labels, Annotations: p.Annotations,
			Finalizers: p.Finalizers, OwnerReferences: p.OwnerReferences,
		},
		Spec: *p.Spec.DeepCopy(),
	}
	saved.Spec.NodeName = "" // its volume may be elsewhere
	saved.Spec.EphemeralContainers = nil
	return saved
}

// Start puts everything back that Stop stopped, as it was, and forgets it. What somebody else has started meanwhile stays as it is. It
// goes on after a failure.
func (r *Restorer) Start(ctx context.Context) error {
	return fault.Wrap("start what was stopped", nil, r.start(ctx, func(uid string) bool { return uid == r.Owner }), "")
}

func (r *Restorer) start(ctx context.Context, mine func(uid string) bool) error {
	kinds, err := r.scalable(ctx, r.Cluster)
	if err != nil {
		return err
	}
	for _, k := range known {
		kinds[k.kind.GroupKind()] = k.kind
	}
	var errs []error
	for _, kind := range kinds {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		ask := r.call
		if knownWay(kind) == 0 { // kinds come and go, and some servers of others' kinds do not answer
			ask = once
		}
		err := ask(ctx, "list "+kind.Kind, func(ctx context.Context) error {
			return ignoreAbsent(client.IgnoreNotFound(r.Cluster.Client.List(ctx, &list, client.HasLabels{v1alpha1.LabelOwner})))
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range list.Items {
			o := &list.Items[i]
			if o.GetAnnotations()[v1alpha1.AnnotationScaled] == "" || !mine(o.GetLabels()[v1alpha1.LabelOwner]) {
				continue
			}
			errs = append(errs, fault.Wrap(kindAndName(o), nil, r.resumeWorkload(ctx, o), ""))
		}
	}
	return errors.Join(append(errs, r.bringPods(ctx, mine))...)
}

// once is call for what is not worth to be waited for.
func once(ctx context.Context, op string, f func(context.Context) error) error {
	return fault.Wrap(op, nil, classify(f(ctx)), "")
}

// resumeWorkload starts one workload again.
func (r *Restorer) resumeWorkload(ctx context.Context, o *unstructured.Unstructured) error {
	return r.call(ctx, "start it", func(ctx context.Context) error {
		if err := r.Application.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return readFault("read it", client.IgnoreNotFound(err))
		}
		text := o.GetAnnotations()[v1alpha1.AnnotationScaled]
		if text == "" {
			return nil
		}
		var was held
		if err := json.Unmarshal([]byte(text), &was); err != nil {
			return fault.Wrap("read annotation "+v1alpha1.AnnotationScaled, fault.ErrCorrupt, err, "")
		}
		s := &stopping{Restorer: r}
		how := knownWay(o.GroupVersionKind())
		if how == 0 {
			how = byScale
		}
		_, runs, err := s.state(ctx, o, how)
		if err != nil {
			return err
		}
		if how == byScale && !runs && was.Replicas != nil {
			if err := setScale(ctx, r.Application.Client, o, *was.Replicas); err != nil {
				return err
			}
			if err := r.Application.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
				return readFault("read it", err)
			}
		}
		return mergePatch(ctx, r.Application.Client, o, was.startPatch(o, how, runs))
	})
}

// startPatch takes off what Stop put on, and starts the workload unless it runs.
func (h held) startPatch(o *unstructured.Unstructured, how way, runs bool) map[string]any {
	spec := map[string]any{}
	switch {
	case how == byReplicas && !runs && h.Replicas != nil:
		spec["replicas"] = *h.Replicas
	case how == bySuspend && !runs && h.Suspend != nil && !jobEnded(o):
		spec["suspend"] = *h.Suspend
	case how == byNodes && !runs:
		spec = templateNodes(nil)
	}
	if h.WhenScaled != "" {
		spec["persistentVolumeClaimRetentionPolicy"] = map[string]any{"whenScaled": h.WhenScaled}
	}
	patch := map[string]any{"metadata": map[string]any{
		"resourceVersion": o.GetResourceVersion(),
		"labels":          map[string]any{v1alpha1.LabelOwner: nil},
		"annotations":     map[string]any{v1alpha1.AnnotationScaled: nil},
	}}
	if len(spec) > 0 {
		patch["spec"] = spec
	}
	return patch
}

// bringPods makes the pods again that nothing else would.
func (r *Restorer) bringPods(ctx context.Context, mine func(uid string) bool) error {
	saved, err := r.savedPods(ctx)
	errs := []error{err}
	for i := range saved {
		s := &saved[i]
		if mine(s.Labels[labelStopped]) {
			errs = append(errs, r.bringPod(ctx, s))
		}
	}
	return errors.Join(errs...)
}

// savedPods reads them in Backstay's own namespace alone: elsewhere anybody could write down a pod of any namespace.
func (r *Restorer) savedPods(ctx context.Context) ([]corev1.Secret, error) {
	var secrets corev1.SecretList
	err := r.call(ctx, "list saved pods", func(ctx context.Context) error {
		return r.Cluster.Client.List(ctx, &secrets, client.InNamespace(r.System), client.HasLabels{labelStopped})
	})
	return secrets.Items, err
}

func (r *Restorer) bringPod(ctx context.Context, s *corev1.Secret) error {
	var p corev1.Pod
	if err := json.Unmarshal(s.Data[savedPod], &p); err != nil {
		return fault.Wrap("read saved pod "+s.Name, fault.ErrCorrupt, err, "")
	}
	err := r.until(ctx, "create pod "+p.Namespace+"/"+p.Name+" again", func(ctx context.Context) (bool, error) {
		err := r.Application.Client.Create(ctx, p.DeepCopy(), writer)
		switch {
		case apierrors.IsNotFound(err): // of a namespace that is gone nothing comes back
			return true, nil
		case apierrors.IsAlreadyExists(err):
			var there corev1.Pod
			err := r.Application.Client.Get(ctx, client.ObjectKeyFromObject(&p), &there)
			return err == nil && there.DeletionTimestamp == nil, client.IgnoreNotFound(err)
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	return r.call(ctx, "forget saved pod "+s.Name, func(ctx context.Context) error {
		return client.IgnoreNotFound(r.Cluster.Client.Delete(ctx, s))
	})
}

// StartAll starts what ended Restores left stopped. active says whether the Restore of a uid is still under way. What one left whose
// exchange is still to be taken back stays stopped: it would write to volumes of two times.
func (r *Restorer) StartAll(ctx context.Context, active func(uid string) bool) error {
	const op = "start what was left stopped"
	halfway, err := r.halfway(ctx)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	return fault.Wrap(op, nil, r.start(ctx, func(uid string) bool { return !active(uid) && !halfway[uid] }), "")
}
