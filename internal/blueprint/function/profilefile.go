package function

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// profileVolume is the volume of the pods of phases that holds the profile.
const profileVolume = "backstay-profile"

// dropTime is what it may take to remove a profile from a container whose phase is over.
const dropTime = 30 * time.Second

// withProfile does something with the profile's file in the containers of commands that name it. It is there no longer than that.
// Containers of one pod may share the place, so that it is removed from all at the end.
func (o Options) withProfile(ctx context.Context, c blueprint.Call, commands []kube.Command, do func() error) error {
	file := c.Params.ProfileFile
	if file == nil || !slices.ContainsFunc(commands[0].Args, func(arg string) bool { return strings.Contains(arg, file.Path) }) {
		return do()
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
		defer cancel()
		for _, command := range commands {
			command.Args = []string{"kando", "profile", "drop", file.Path}
			if err := o.Cluster.Exec(ctx, command); err != nil {
				c.Log(fmt.Sprintf("the profile may still be in pod %s: %v", command.Pod, err))
			}
		}
	}()
	for _, command := range commands {
		command.Args, command.Stdin = []string{"kando", "profile", "put", file.Path}, bytes.NewReader(file.Content)
		if err := o.Cluster.Exec(ctx, command); err != nil {
			return fault.Wrap("bring the profile to pod "+command.Pod, nil, err,
				"credentials come by file where the profile stands for a Location, or the Blueprint says so: the container needs kando from Backstay's image")
		}
	}
	return do()
}

// mountProfile has the profile's file mounted in the containers of a pod that name it, and makes the Secret that it comes from.
func (o Options) mountProfile(ctx context.Context, c blueprint.Call, pod *corev1.Pod) error {
	file := c.Params.ProfileFile
	if file == nil {
		return nil
	}
	mounted := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if !names(containers[i], file.Path) {
				continue
			}
			mounted = true
			containers[i].VolumeMounts = append(containers[i].VolumeMounts,
				corev1.VolumeMount{Name: profileVolume, MountPath: path.Dir(file.Path), ReadOnly: true})
		}
	}
	if !mounted {
		return nil
	}
	readable := int32(0o444) // as whom the image runs is not known; nobody else is in the container
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: profileVolume, VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: pod.Name, DefaultMode: &readable},
	}})
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Data:       map[string][]byte{path.Base(file.Path): file.Content},
	}
	mark(secret, c)
	return fault.Wrap("store the profile for the pod", nil, o.writeSecret(ctx, c, secret), "")
}

// names reports whether a container's specification names a file.
func names(c corev1.Container, file string) bool {
	text, err := json.Marshal(c)
	return err == nil && bytes.Contains(text, []byte(file))
}

// writeSecret creates a Secret, or writes it over that of an earlier run of the phase.
func (o Options) writeSecret(ctx context.Context, c blueprint.Call, secret *corev1.Secret) error {
	return o.call(ctx, func(ctx context.Context) error {
		err := o.Cluster.Client.Create(ctx, secret.DeepCopy())
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		there := secret.DeepCopy()
		if err := kube.Refresh(ctx, o.Cluster.Client, there); err != nil {
			return err
		}
		if there.Labels[labelPhase] != c.ID {
			return fault.New("", fault.ErrExists, "there is a Secret of that name that is not of this phase", "delete it")
		}
		there.Data = secret.Data
		return o.Cluster.Client.Update(ctx, there)
	})
}

// ownProfile has the Secret of a pod's profile go with the pod.
func (o Options) ownProfile(ctx context.Context, pod *corev1.Pod) error {
	if !hasProfile(pod) {
		return nil
	}
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": []metav1.OwnerReference{owner}}})
	if err != nil {
		return fault.Wrap("", fault.ErrInvalid, err, "")
	}
	return o.call(ctx, func(ctx context.Context) error {
		return o.Cluster.Client.Patch(ctx, profileSecret(pod), client.RawPatch(types.MergePatchType, patch))
	})
}

func hasProfile(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == profileVolume })
}

// profileSecret is what a pod's profile is in, not read yet.
func profileSecret(pod *corev1.Pod) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: pod.Name, Labels: map[string]string{labelPhase: pod.Labels[labelPhase]},
	}}
}
