package function

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// ownPod is a pod of our own, in which nothing runs but what we run in it.
type ownPod struct {
	suffix    string // tells pods of one call apart
	namespace string
	image     string
	volumes   map[string]string // claim → where it is mounted
}

// idleCommand waits for ever, in images without tail too: nobody writes to its standard input.
const idleCommand = "tail -f /dev/null || read -r _"

// shellIn is a shell in a container that is there.
func (o Options) shellIn(namespace, pod, container string) shell {
	return func(ctx context.Context, script string, stdout, stderr io.Writer) (int, error) {
		err := o.Cluster.Exec(ctx, kube.Command{
			Namespace: namespace, Pod: pod, Container: container, Args: []string{"sh"},
			Stdin: strings.NewReader(script), Stdout: stdout, Stderr: stderr,
		})
		var ended *kube.Ended
		if errors.As(err, &ended) {
			return ended.Status, nil
		}
		return 0, err
	}
}

// inPod makes a pod, does something in it, and removes it. One that a killed run left is removed first, with what may still run in it.
func (o Options) inPod(ctx context.Context, c blueprint.Call, p ownPod, do func(context.Context, shell) error) error {
	pod, err := o.idlePod(ctx, c, p)
	if err != nil {
		return err
	}
	op := fmt.Sprintf("work in pod %s/%s", pod.Namespace, pod.Name)
	if err := o.removeLeft(ctx, c, pod); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if err := o.ensurePod(ctx, c, pod); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if err = o.started(ctx, pod, container); err == nil && over(pod) {
		err = o.failure(ctx, pod, nil)
	}
	if err == nil {
		err = do(ctx, o.shellIn(pod.Namespace, pod.Name, container))
	}
	return fault.Wrap(op, nil, errors.Join(err, o.removePod(ctx, pod)), "")
}

// idlePod is the pod as it is asked for.
func (o Options) idlePod(ctx context.Context, c blueprint.Call, p ownPod) (*corev1.Pod, error) {
	soon := int64(1) // its shell does not listen to signals
	spec := corev1.PodSpec{TerminationGracePeriodSeconds: &soon, Containers: []corev1.Container{{
		Name: container, Image: p.image, Command: []string{"sh", "-c", idleCommand}, Stdin: true,
	}}}
	if p.image == o.Image && len(p.volumes) > 0 { // it would run as nobody in particular, and files have other owners
		root := int64(0)
		spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &root}
	}
	if deadline, is := ctx.Deadline(); is { // should nobody come back for it
		left := max(int64(deadline.Sub(o.Now()).Seconds()), 1)
		spec.ActiveDeadlineSeconds = &left
	}
	for claim, path := range p.volumes {
		readOnly, err := o.readOnly(ctx, p.namespace, claim)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("volume-%d", len(spec.Volumes))
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: readOnly},
		}})
		mounts := &spec.Containers[0].VolumeMounts
		*mounts = append(*mounts, corev1.VolumeMount{Name: name, MountPath: path, ReadOnly: readOnly})
	}
	pod, err := o.newPod(c, spec)
	if err != nil {
		return nil, err
	}
	pod.Name += p.suffix
	return pod, nil
}

// readOnly reports whether a claim can only be read; that there is none is an error that names it.
func (o Options) readOnly(ctx context.Context, namespace, name string) (bool, error) {
	var claim corev1.PersistentVolumeClaim
	err := o.call(ctx, func(ctx context.Context) error {
		return o.Cluster.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &claim)
	})
	return slices.Contains(claim.Spec.AccessModes, corev1.ReadOnlyMany), fault.Wrap("read the claim "+name, nil, err, "")
}

// removeLeft removes the pod of an earlier run of the phase.
func (o Options) removeLeft(ctx context.Context, c blueprint.Call, pod *corev1.Pod) error {
	left := &corev1.Pod{}
	err := o.call(ctx, func(ctx context.Context) error {
		return client.IgnoreNotFound(o.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), left))
	})
	if err != nil || left.Labels[labelPhase] != c.ID {
		return err
	}
	return o.removePod(ctx, left)
}
