package volume

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// MoverClaim is a claim of Backstay's own namespace that a mover works on.
type MoverClaim struct {
	Claim    string
	Path     string // where it is mounted, or its device; as in Task.Volumes
	Block    bool
	ReadOnly bool
}

// mover is one Job.
type mover struct {
	name     string
	claims   []MoverClaim
	live     *liveMount // instead of claims: a directory of a node
	task     Task
	deadline time.Duration
}

const (
	containerName = "mover"
	retries       = 2    // of a pod that fails, and of a Job whose report is lost
	maxResult     = 4096 // bytes that a node keeps of a termination message
)

// RunMover carries out a task in a Job of Backstay's own namespace and returns what the mover reports: one result for each of the task's
// volumes, in their order. The name is unique to what is done: when there is a Job of this owner under it, that one is waited for.
// Claims that are not bound are waited for until the deadline; a pod that cannot start for another reason, StartDeadline. Job and Secret
// are left for EndMover, also when ctx ends.
func (k *Keeper) RunMover(ctx context.Context, name string, claims []MoverClaim, t Task, deadline time.Duration) (Result, error) {
	return k.runMover(ctx, mover{name: name, claims: claims, task: t, deadline: deadline})
}

func (k *Keeper) runMover(ctx context.Context, m mover) (Result, error) {
	op := "run mover " + m.name
	if err := k.handOver(ctx, m); err != nil {
		return Result{}, fault.Wrap(op, nil, err, "")
	}
	for try := 0; ; try++ {
		job, err := ensure(ctx, k, k.job(m))
		if err != nil {
			return Result{}, fault.Wrap(op, nil, err, "")
		}
		result, err := k.waitForMover(ctx, m, job)
		if !errors.Is(err, errReportLost) || try == retries {
			return result, fault.Wrap(op, nil, err, "")
		}
		if err := k.remove(ctx, job); err != nil { // what it did is found again by the next, and said again
			return Result{}, fault.Wrap(op, nil, err, "")
		}
	}
}

// handOver writes the task into the Secret, also over one of the same owner from before: its credentials may have changed.
func (k *Keeper) handOver(ctx context.Context, m mover) error {
	task, err := json.Marshal(m.task)
	if err != nil {
		return fault.Wrap("write the task", fault.ErrInvalid, err, "")
	}
	data := map[string][]byte{path.Base(TaskFile): task}
	secret, err := ensure(ctx, k, &corev1.Secret{ObjectMeta: k.moverMeta(m), Data: data})
	if err != nil || bytes.Equal(secret.Data[path.Base(TaskFile)], task) {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fault.Wrap("write the task", fault.ErrInvalid, err, "")
	}
	return k.call(ctx, "update "+describe(secret), func(ctx context.Context) error {
		return k.Cluster.Client.Patch(ctx, secret, client.RawPatch(types.MergePatchType, patch))
	})
}

func (k *Keeper) moverMeta(m mover) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: k.System, Name: m.name, Labels: map[string]string{
		v1alpha1.LabelOwner:           k.Owner,
		v1alpha1.LabelClaim:           strings.TrimPrefix(m.name, k.prefix()),
		"app.kubernetes.io/name":      "backstay",
		"app.kubernetes.io/component": containerName,
	}}
}

// job is the Job of a mover. A mover that says why it failed, and that another try would not help, is not tried again; a node that is
// drained costs no try.
func (k *Keeper) job(m mover) *batchv1.Job {
	meta := k.moverMeta(m)
	backoff, deadline, container := int32(retries), int64(m.deadline/time.Second), containerName
	return &batchv1.Job{
		ObjectMeta: meta,
		Spec: batchv1.JobSpec{
			BackoffLimit:          &backoff,
			ActiveDeadlineSeconds: &deadline,
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
				{
					Action: batchv1.PodFailurePolicyActionFailJob,
					OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
						ContainerName: &container, Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: finalExits(),
					},
				},
				{
					Action: batchv1.PodFailurePolicyActionIgnore,
					OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
						{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
					},
				},
			}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: k.pod(m)},
		},
	}
}

// finalExits are the exit codes of a mover that failed for good.
func finalExits() []int32 {
	var codes []int32
	for _, kind := range faultKinds() {
		class := fault.Of(kind)
		if !class.Retry && !slices.Contains(codes, int32(class.Exit)) { //nolint:gosec // exit codes are small
			codes = append(codes, int32(class.Exit)) //nolint:gosec // exit codes are small
		}
	}
	slices.Sort(codes)
	return codes
}

func faultKinds() []error {
	return []error{
		fault.ErrInvalid, fault.ErrIncomplete, fault.ErrNotFound, fault.ErrUnsupported, fault.ErrDenied, fault.ErrRefused, fault.ErrLocked,
		fault.ErrExists, fault.ErrCorrupt, fault.ErrBusy, fault.ErrThrottled, fault.ErrUnavailable,
	}
}

// pod is a mover's pod. It is root without the powers of root but those over files: owners and modes are data. It knows nothing of the
// cluster, and nothing of it but its scratch directory can be written to.
func (k *Keeper) pod(m mover) corev1.PodSpec {
	no, yes, root := false, true, int64(0)
	secretMode := int32(0o400)
	capabilities := []corev1.Capability{"DAC_OVERRIDE"} // reads and searches whatever the modes are
	if m.task.Operation == Restore {
		capabilities = append(capabilities, "CHOWN", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
	}
	pod := corev1.PodSpec{
		RestartPolicy:                corev1.RestartPolicyNever,
		ServiceAccountName:           k.ServiceAccount,
		AutomountServiceAccountToken: &no,
		EnableServiceLinks:           &no,
		ImagePullSecrets:             k.PullSecrets,
		NodeSelector:                 k.NodeSelector,
		Tolerations:                  k.Tolerations,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsUser: &root, RunAsGroup: &root,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Volumes: []corev1.Volume{
			{Name: "task", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: m.name, DefaultMode: &secretMode}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		},
		Containers: []corev1.Container{{
			Name:            containerName,
			Image:           k.Image,
			ImagePullPolicy: k.PullPolicy,
			Args:            []string{"mover"},
			Env:             []corev1.EnvVar{{Name: "HOME", Value: scratch}, {Name: "TMPDIR", Value: scratch}},
			Resources:       k.Resources,
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities},
			},
			TerminationMessagePath: ResultFile,
			VolumeMounts: []corev1.VolumeMount{
				{Name: "task", MountPath: path.Dir(TaskFile), ReadOnly: true},
				{Name: "scratch", MountPath: scratch},
			},
		}},
	}
	for i, c := range m.claims {
		c.addTo(&pod, fmt.Sprintf("volume-%d", i))
	}
	if m.live != nil {
		m.live.addTo(&pod)
	}
	return pod
}

const scratch = "/tmp"

// addTo mounts the claim in a pod's first container. Read-only is how the container sees it: a file system that was cut in the middle of
// its work has to be replayed when the node mounts it.
func (c MoverClaim) addTo(pod *corev1.PodSpec, name string) {
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Claim},
	}})
	container := &pod.Containers[0]
	if c.Block {
		container.VolumeDevices = append(container.VolumeDevices, corev1.VolumeDevice{Name: name, DevicePath: c.Path})
		return
	}
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: c.Path, ReadOnly: c.ReadOnly})
}

// addTo mounts the directory, and holds the pod to its node, whatever else that node is kept free of.
func (l liveMount) addTo(pod *corev1.PodSpec) {
	directory := corev1.HostPathDirectory
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "live", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: l.directory, Type: &directory},
	}})
	container := &pod.Containers[0]
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: "live", MountPath: mountPath, ReadOnly: true})
	pod.NodeSelector = nil
	pod.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	pod.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{l.node}},
			},
		}}},
	}}
}

func defaultResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		},
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")},
	}
}

// waitForMover waits until a Job is over and reads what its last pod reported.
func (k *Keeper) waitForMover(ctx context.Context, m mover, job *batchv1.Job) (Result, error) {
	const spare = time.Minute // the Job ends itself at its deadline
	waits := since(k.Now())
	var over *batchv1.JobCondition
	var pods []corev1.Pod
	err := k.await(ctx, m.deadline+spare, "wait for its end", func(ctx context.Context) (bool, error) {
		if err := k.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return false, err
		}
		var err error
		if pods, err = k.pods(ctx, job); err != nil {
			return false, err
		}
		if over = finished(job); over != nil {
			return true, nil
		}
		return false, k.stuck(ctx, &waits, m, job, pods)
	})
	if err != nil {
		return Result{}, err
	}
	return k.outcome(m, over, pods)
}

// pods lists a Job's pods, newest last.
func (k *Keeper) pods(ctx context.Context, job *batchv1.Job) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := k.Cluster.Client.List(ctx, &list, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.ControllerUidLabel: string(job.UID)})
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return list.Items, err
}

// finished is the condition that says how a Job ended.
func finished(job *batchv1.Job) *batchv1.JobCondition {
	for i, c := range job.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return &job.Status.Conditions[i]
		}
	}
	return nil
}

// errReportLost is of a Job that is over, and whose pod somebody deleted before it was read.
var errReportLost = fault.New("", fault.ErrUnavailable, "its pods are gone, and with them what they reported", "")

// outcome reads what the mover reported, or finds out why it reported nothing.
func (k *Keeper) outcome(m mover, over *batchv1.JobCondition, pods []corev1.Pod) (Result, error) {
	if over.Type == batchv1.JobComplete { // what earlier ones said is not how it ended
		pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { ended := termination(p); return ended == nil || ended.ExitCode != 0 })
	}
	for _, pod := range slices.Backward(pods) {
		ended := termination(pod)
		if ended == nil {
			continue
		}
		if ended.Message != "" {
			return parseResult(ended.Message, m.task.Volumes)
		}
		break
	}
	if over.Reason == batchv1.JobReasonDeadlineExceeded {
		return Result{}, fault.New("", fault.ErrUnavailable, fmt.Sprintf("not done within %s", m.deadline), "")
	}
	if len(pods) == 0 {
		return Result{}, errReportLost
	}
	return Result{}, k.unreported(pods[len(pods)-1])
}

// termination is how a mover's container ended.
func termination(pod corev1.Pod) *corev1.ContainerStateTerminated {
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == containerName {
			return c.State.Terminated
		}
	}
	return nil
}

// unreported says why a pod ended without a word.
func (k *Keeper) unreported(pod corev1.Pod) error {
	ended := termination(pod)
	switch {
	case ended != nil && ended.Reason == "OOMKilled":
		limit := k.Resources.Limits[corev1.ResourceMemory]
		return fault.New("", fault.ErrUnavailable, "it needed more memory than its limit, "+limit.String(), "raise the memory limit of movers")
	case pod.Status.Reason != "":
		return fault.New("", fault.ErrUnavailable, clip(strings.TrimSpace("its pod ended: "+pod.Status.Reason+" "+pod.Status.Message)), "")
	case ended != nil:
		return fault.New("", fault.ErrUnavailable, fmt.Sprintf("it ended with status %d and no report (%s)", ended.ExitCode, ended.Reason), "")
	}
	return fault.New("", fault.ErrUnavailable, "its pod ended without a report", "")
}

// parseResult reads a mover's report: one result for each volume of its task, or the reason why there is none.
func parseResult(message string, volumes []Mount) (Result, error) {
	const op = "read its report"
	if len(message) > maxResult {
		return Result{}, fault.New(op, fault.ErrCorrupt, "it is too long", "")
	}
	var reported Result
	if err := json.Unmarshal([]byte(message), &reported); err != nil {
		return Result{}, fault.Wrap(op, fault.ErrCorrupt, err, "")
	}
	result := Result{Error: clip(reported.Error), Class: reported.Class}
	for _, v := range volumes {
		i := slices.IndexFunc(reported.Parts, func(p PartResult) bool { return p.Part == v.Part })
		if i < 0 {
			if reported.Error == "" {
				return Result{}, fault.New(op, fault.ErrCorrupt, "it says nothing of "+v.Part, "")
			}
			return Result{}, fault.Wrap("", kindOf(reported.Class), errors.New(result.Error), "")
		}
		p := reported.Parts[i]
		if p.Bytes < 0 || p.State != point.Stored && p.State != point.Failed {
			return Result{}, fault.New(op, fault.ErrCorrupt, fmt.Sprintf("part %s is %q with %d bytes", p.Part, clip(string(p.State)), p.Bytes), "")
		}
		result.Parts = append(result.Parts, p)
	}
	return result, nil
}

// kindOf is the class of failure that a reason stands for.
func kindOf(reason string) error {
	for _, kind := range faultKinds() {
		if fault.Of(kind).Reason == reason {
			return kind
		}
	}
	return fault.ErrUnavailable
}
