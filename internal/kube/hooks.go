package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

const (
	// hookTimeout is what a hook's command may take where the policy says nothing.
	hookTimeout = 30 * time.Second
	// releasePatience is how long an API server or node may be away before a container is left at rest for the next attempt.
	releasePatience = 2 * time.Minute
	// releasePause is between two attempts.
	releasePause = time.Second

	defaultContainer = "kubectl.kubernetes.io/default-container"
)

// Rest brings an application to rest: it runs the first commands of its hooks, one hook after the other, the pods of one hook at the same
// time. Before a command is begun, record is told of all that were, so that Release can undo them whoever calls it; when record fails,
// nothing more is begun. A hook that fails, or has no running pod, does not keep the others from their work; the error names each
// of them with its pod. Release is due in any case.
func (c *Cluster) Rest(ctx context.Context, a Application, record func([]v1alpha1.RestingPod) error) error {
	const op = "bring the application to rest"
	var begun []v1alpha1.RestingPod
	var failures []error
	for number, hook := range a.Capture.Hooks {
		pods, err := c.hookPods(ctx, a, number)
		if err != nil {
			failures = append(failures, fault.Wrap(fmt.Sprintf("hook %d", number+1), nil, err, ""))
			continue
		}
		begun = append(begun, pods...)
		if err := record(slices.Clone(begun)); err != nil {
			return fault.Wrap(op, nil, errors.Join(append(failures, err)...), "")
		}
		failures = append(failures, each(pods, func(p v1alpha1.RestingPod) error { return c.runHook(ctx, p, hook, hook.Before) })...)
	}
	return fault.Wrap(op, nil, errors.Join(failures...), "")
}

// Release undoes hooks that Rest began, the last first, and tells record what is left each time. It works on when ctx has ended, for
// an application at rest is down; each command has the hook's time, and is run again while the way to its pod is blocked. The end of a
// pod, or of its container, ended its rest: that is an error too, for what the snapshots saw is not known, but the pod is not kept on
// record. So is a command that fails; it stays on record. Commands that undo may run more than once.
func (c *Cluster) Release(
	ctx context.Context, a Application, resting []v1alpha1.RestingPod, record func([]v1alpha1.RestingPod) error,
) error {
	ctx = context.WithoutCancel(ctx)
	var stuck []v1alpha1.RestingPod
	var failures []error
	for left := slices.Clone(resting); len(left) > 0; {
		number := slices.MaxFunc(left, func(a, b v1alpha1.RestingPod) int { return cmp.Compare(a.Hook, b.Hook) }).Hook
		var pods []v1alpha1.RestingPod
		left, pods = divide(left, number)
		var mu sync.Mutex
		failures = append(failures, each(pods, func(p v1alpha1.RestingPod) error {
			err := c.undo(ctx, a, p)
			if err != nil && !errors.Is(err, fault.ErrNotFound) {
				mu.Lock()
				defer mu.Unlock()
				stuck = append(stuck, p)
			}
			return err
		})...)
		if err := record(append(slices.Clone(left), stuck...)); err != nil {
			failures = append(failures, err)
		}
	}
	return fault.Wrap("end the application's rest", nil, errors.Join(failures...), "")
}

// divide takes the pods of one hook out of all.
func divide(all []v1alpha1.RestingPod, hook int) (others, its []v1alpha1.RestingPod) {
	for _, p := range all {
		if p.Hook == hook {
			its = append(its, p)
		} else {
			others = append(others, p)
		}
	}
	return others, its
}

// each does something for all pods at the same time and returns what failed, in the order of the pods.
func each(pods []v1alpha1.RestingPod, do func(v1alpha1.RestingPod) error) []error {
	failures := make([]error, len(pods))
	var working sync.WaitGroup
	for i, p := range pods {
		working.Go(func() { failures[i] = do(p) })
	}
	working.Wait()
	return failures
}

// undo runs the second command of a hook in one pod, until it has run or patience ends.
func (c *Cluster) undo(ctx context.Context, a Application, p v1alpha1.RestingPod) error {
	if p.Hook < 0 || p.Hook >= len(a.Capture.Hooks) {
		return fault.New(hookName(p), fault.ErrInvalid, "there is no such hook any more: what it did is not undone", "look after the pod")
	}
	hook := a.Capture.Hooks[p.Hook]
	if len(hook.After) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releasePatience)
	defer cancel()
	for {
		err := c.runHook(ctx, p, hook, hook.After)
		if err == nil || !fault.Of(err).Retry || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if gone := c.gone(ctx, p); gone != nil {
			return gone
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(releasePause):
		}
	}
}

// gone is an error when the container of a hook runs no more.
func (c *Cluster) gone(ctx context.Context, p v1alpha1.RestingPod) error {
	const text = "it ended while it was at rest, so whether the snapshots saw it at rest is not known"
	var pod corev1.Pod
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: p.Pod}, &pod)
	if apierrors.IsNotFound(err) || err == nil && (pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed) {
		return fault.New(hookName(p), fault.ErrNotFound, text, "")
	}
	return nil
}

// runHook runs one of a hook's commands in one pod.
func (c *Cluster) runHook(ctx context.Context, p v1alpha1.RestingPod, hook v1alpha1.Hook, command []string) error {
	if len(command) == 0 {
		return fault.New(hookName(p), fault.ErrInvalid, "its command is empty", "")
	}
	limit := hookTimeout
	if hook.Timeout != "" {
		var err error
		if limit, err = time.ParseDuration(hook.Timeout); err != nil {
			return fault.Wrap(hookName(p), fault.ErrInvalid, err, "")
		}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := c.Exec(limited, Command{Namespace: p.Namespace, Pod: p.Pod, Container: p.Container, Args: command})
	if limited.Err() != nil && ctx.Err() == nil && err != nil {
		err = fault.Wrap("", fault.ErrUnavailable, fmt.Errorf("%s did not end within %s: %w", command[0], limit, limited.Err()), "")
	}
	return fault.Wrap(hookName(p), nil, err, "")
}

func hookName(p v1alpha1.RestingPod) string {
	return fmt.Sprintf("hook %d in pod %s/%s", p.Hook+1, p.Namespace, p.Pod)
}

// hookPods chooses the containers of a hook.
func (c *Cluster) hookPods(ctx context.Context, a Application, number int) ([]v1alpha1.RestingPod, error) {
	hook := a.Capture.Hooks[number]
	selector, err := metav1.LabelSelectorAsSelector(&hook.Selector)
	if err != nil {
		return nil, fault.Wrap("selector", fault.ErrInvalid, err, "")
	}
	var chosen []v1alpha1.RestingPod
	for _, namespace := range a.Namespaces {
		var pods corev1.PodList
		if err := c.Client.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
			return nil, fault.Wrap("list pods of "+namespace, ClassOf(err), err, "")
		}
		slices.SortFunc(pods.Items, func(a, b corev1.Pod) int {
			return cmp.Or(cmp.Compare(unready(a), unready(b)), cmp.Compare(a.Name, b.Name))
		})
		for _, pod := range pods.Items {
			container := hookContainer(pod, hook.Container)
			if running(pod, container) && (hook.EachPod || len(chosen) == 0) {
				chosen = append(chosen, v1alpha1.RestingPod{Namespace: namespace, Pod: pod.Name, Container: container, Hook: number})
			}
		}
	}
	if len(chosen) == 0 {
		return nil, fault.New("", fault.ErrNotFound, fmt.Sprintf("no pod runs with labels %s", selector), "")
	}
	return chosen, nil
}

// unready is 1 for a pod that is not ready: one that is comes first.
func unready(pod corev1.Pod) int {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return 0
		}
	}
	return 1
}

// hookContainer is the container that a hook names, else the pod's default one, else its first.
func hookContainer(pod corev1.Pod, named string) string {
	if name := cmp.Or(named, pod.Annotations[defaultContainer]); name != "" || len(pod.Spec.Containers) == 0 {
		return name
	}
	return pod.Spec.Containers[0].Name
}

// running reports whether a container of a pod runs and is meant to.
func running(pod corev1.Pod, container string) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == container && s.State.Running != nil
	})
}
