package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// What worker Jobs carry. They have no LabelOwner: the tidying that it asks for is done by such a Job.
const (
	// LabelWork is on the controller's own Jobs and says what they do: backup, restore, load-back, release, location, actions or tidy.
	LabelWork = v1alpha1.Group + "/work"
	// annotationFor says whose Job it is: NAMESPACE/NAME; of backups NAMESPACE/RUN.
	annotationFor = v1alpha1.Group + "/for"
	// annotationGeneration is that of the Location that a Job looked at.
	annotationGeneration = v1alpha1.Group + "/generation"
)

const (
	workBackup   = "backup"
	workRestore  = "restore"
	workLocation = "location"
	workTidy     = "tidy"
)

// Bounds of Jobs.
const (
	jobGrace       = 10 * time.Minute // beyond the worker's own deadline, for what it then puts right
	locationTime   = 4 * time.Hour    // maintenance reads and rewrites
	tidyTime       = 30 * time.Minute
	maxRunTime     = 24 * time.Hour // of a run of many Backups, unless one of them may take longer
	settledFor     = time.Hour      // that a Job whose result was read stays, for its log
	queueLook      = 15 * time.Second
	backoffLimit   = 3
	stopSeconds    = 150 // between the signal and the kill: a worker releases what is at rest
	workerCPU      = "100m"
	workerMemory   = "256Mi"
	workerMost     = "1Gi"
	scratch        = "/tmp"
	workerName     = "worker"
	exitStoppedJob = 130
)

// task is one piece of work for a Job. The same task always has the same name, so that it never runs twice at once.
type task struct {
	work       string
	key        types.NamespacedName // of the object, or namespace and run
	uid        types.UID            // of the object: a new one of the same name is another task
	generation int64
	deadline   time.Duration
	urgent     bool // it waits for no other
	force      bool // of workRelease
	shards     int  // pods that share it; 0 or 1 for one
}

func (t task) name() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{t.work, t.key.Namespace, t.key.Name, string(t.uid)}, "\n")))
	return "backstay-" + t.work + "-" + hex.EncodeToString(sum[:8])
}

func (t task) args() []string {
	switch t.work {
	case workBackup:
		args := []string{"worker", t.work, "--namespace", t.key.Namespace, "--run", t.key.Name, "--job", t.name()}
		if t.shards > 1 {
			args = append(args, "--shards", strconv.Itoa(t.shards))
		}
		return args
	case workTidy:
		return []string{"worker", t.work}
	case workLoadBack:
		return []string{"worker", workRestore, t.key.String()}
	case workRelease:
		return []string{"worker", t.work, t.key.String(), "--force=" + strconv.FormatBool(t.force)}
	}
	return []string{"worker", t.work, t.key.String()}
}

// job is the Job of a task, as it is created.
func (c *controller) job(t task) *batchv1.Job {
	most := int64(t.deadline / time.Second)
	backoff, stop, yes, no := int32(backoffLimit), int64(stopSeconds), true, false
	meta := metav1.ObjectMeta{
		Name: t.name(), Namespace: c.System,
		Labels: map[string]string{
			LabelWork: t.work, "app.kubernetes.io/name": "backstay", "app.kubernetes.io/component": workerName,
		},
		Annotations: map[string]string{annotationFor: t.key.String(), annotationGeneration: strconv.FormatInt(t.generation, 10)},
	}
	var mode *batchv1.CompletionMode
	var pods *int32
	if t.shards > 1 {
		indexed, n := batchv1.IndexedCompletion, int32(t.shards) //nolint:gosec // at most mostShards
		mode, pods, backoff = &indexed, &n, backoff*n
	}
	var stays *int32
	if t.work == workLoadBack || t.work == workRelease { // what they found is in the Restore's status
		stays = new(int32(settledFor / time.Second))
	}
	return &batchv1.Job{
		ObjectMeta: meta,
		Spec: batchv1.JobSpec{
			TTLSecondsAfterFinished: stays,
			CompletionMode:          mode,
			Completions:             pods,
			Parallelism:             pods,
			BackoffLimit:            &backoff,
			ActiveDeadlineSeconds:   &most,
			PodFailurePolicy:        podFailures(),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels},
				Spec: corev1.PodSpec{
					ServiceAccountName:            c.ServiceAccount,
					ImagePullSecrets:              c.PullSecrets,
					RestartPolicy:                 corev1.RestartPolicyNever,
					TerminationGracePeriodSeconds: &stop,
					SecurityContext: &corev1.PodSecurityContext{
						RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
					},
					Containers: []corev1.Container{{
						Name:  workerName,
						Image: c.Image, ImagePullPolicy: c.PullPolicy,
						Args: append(t.args(), c.WorkerFlags...),
						Env:  []corev1.EnvVar{{Name: "HOME", Value: scratch}, {Name: "TMPDIR", Value: scratch}},
						Resources: corev1.ResourceRequirements{
							Requests: corev1.ResourceList{
								corev1.ResourceCPU: resource.MustParse(workerCPU), corev1.ResourceMemory: resource.MustParse(workerMemory),
							},
							Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(workerMost)},
						},
						SecurityContext: &corev1.SecurityContext{
							AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
							Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						},
						TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
						VolumeMounts:             []corev1.VolumeMount{{Name: "scratch", MountPath: scratch}},
					}},
					Volumes: []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
				},
			},
		},
	}
}

// podFailures has a Job end at once where another try would end the same way, and forgives pods that were told to go.
func podFailures() *batchv1.PodFailurePolicy {
	name := workerName
	var lasting []int32
	for _, class := range lastingClasses() {
		if !slices.Contains(lasting, int32(class.Exit)) { //nolint:gosec // exit statuses are below 256
			lasting = append(lasting, int32(class.Exit)) //nolint:gosec // as above
		}
	}
	slices.Sort(lasting)
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{
			Action:          batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
		},
		{
			Action: batchv1.PodFailurePolicyActionIgnore,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: &name, Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{exitStoppedJob},
			},
		},
		{
			Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: &name, Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: lasting,
			},
		},
	}}
}

// lastingClasses are those that another try does not change.
func lastingClasses() []fault.Class {
	var lasting []fault.Class
	for _, err := range []error{
		fault.ErrInvalid, fault.ErrIncomplete, fault.ErrNotFound, fault.ErrDenied, fault.ErrRefused, fault.ErrCorrupt,
	} {
		lasting = append(lasting, fault.Of(err))
	}
	return lasting
}

// state of a Job.
type state int

const (
	absent state = iota
	running
	succeeded
	failed
)

// outcome is how a Job stands: for one that has ended, when, and for one that failed why.
type outcome struct {
	state    state
	began    time.Time
	ended    time.Time
	reason   string
	message  string
	retries  bool // another try may end otherwise
	stopping bool // it is being deleted
}

// exitCode is how Kubernetes words which status of a container ended a Job.
var exitCode = regexp.MustCompile(`exit code (\d{1,3})\b`) //nolint:gochecknoglobals // a constant, but for its type

// outcomeOf reads a Job's conditions; nil is one that is not there.
func outcomeOf(j *batchv1.Job) outcome {
	if j == nil {
		return outcome{}
	}
	o := outcome{state: running, began: j.CreationTimestamp.Time, stopping: !j.DeletionTimestamp.IsZero()}
	for _, condition := range j.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			continue
		}
		switch condition.Type {
		case batchv1.JobComplete:
			o.state, o.ended = succeeded, condition.LastTransitionTime.Time
		case batchv1.JobFailed:
			o.state, o.ended = failed, condition.LastTransitionTime.Time
			o.reason, o.message, o.retries = whyFailed(j.Name, condition)
		}
	}
	if o.stopping {
		o.state = running
	}
	return o
}

// whyFailed names the class of failure that a worker ended with, where Kubernetes tells.
func whyFailed(job string, c batchv1.JobCondition) (reason, message string, retries bool) {
	logs := fmt.Sprintf("; see `kubectl logs job/%s` in Backstay's namespace", job)
	switch c.Reason {
	case batchv1.JobReasonDeadlineExceeded:
		return c.Reason, "the deadline is over", true
	case batchv1.JobReasonPodFailurePolicy:
		if m := exitCode.FindStringSubmatch(c.Message); m != nil {
			for _, class := range lastingClasses() {
				if strconv.Itoa(class.Exit) == m[1] {
					return class.Reason, "the worker ended with status " + m[1] + logs, false
				}
			}
		}
		return "Failed", "the worker failed" + logs, false
	}
	return cmp.Or(c.Reason, "Failed"), "the worker failed again and again" + logs, true
}

// find is the Job of a task; nil where there is none. What the cache does not know is looked for at the API server.
func (c *controller) find(ctx context.Context, t task) (*batchv1.Job, error) {
	var j batchv1.Job
	key := types.NamespacedName{Namespace: c.System, Name: t.name()}
	err := c.client.Get(ctx, key, &j)
	if apierrors.IsNotFound(err) {
		err = c.direct.Get(ctx, key, &j)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", key.Name, err)
	}
	return &j, nil
}

// start creates the Job of a task that has none, if it is its turn. Ahead are the tasks that have waited longer.
func (c *controller) start(ctx context.Context, t task, ahead []waiting) (started bool, _ error) {
	var live batchv1.JobList
	if err := c.direct.List(ctx, &live, client.InNamespace(c.System), client.HasLabels{LabelWork}); err != nil {
		return false, fmt.Errorf("list jobs: %w", err)
	}
	room := c.roomFor(t.work, live.Items)
	crowded := room.full()
	if !t.urgent && !room.admits(t, ahead) {
		if t.work != workBackup || !crowded {
			return false, nil
		}
		return false, c.askToYield(ctx, live.Items)
	}
	err := c.client.Create(ctx, c.job(t))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return false, fmt.Errorf("create job %s: %w", t.name(), err)
	}
	return true, nil
}

// settle lets a Job go whose result was read, after a while in which its log may be.
func (c *controller) settle(ctx context.Context, j *batchv1.Job) error {
	if j == nil || j.Spec.TTLSecondsAfterFinished != nil || outcomeOf(j).ended.IsZero() {
		return nil
	}
	before := j.DeepCopy()
	seconds := int32(settledFor / time.Second)
	j.Spec.TTLSecondsAfterFinished = &seconds
	return client.IgnoreNotFound(c.client.Patch(ctx, j, client.MergeFrom(before)))
}

// stop deletes a Job. It stays until its pods are gone.
func (c *controller) stop(ctx context.Context, j *batchv1.Job) error {
	if j == nil || !j.DeletionTimestamp.IsZero() {
		return nil
	}
	err := c.client.Delete(ctx, j, client.PropagationPolicy(metav1.DeletePropagationForeground), client.Preconditions{UID: &j.UID})
	if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("stop job %s: %w", j.Name, err)
	}
	return nil
}

// discard deletes the Jobs of an object that is gone.
func (c *controller) discard(ctx context.Context, work string, key types.NamespacedName) error {
	var known batchv1.JobList
	if err := c.client.List(ctx, &known, client.InNamespace(c.System), client.MatchingLabels{LabelWork: work}); err != nil {
		return fmt.Errorf("list jobs: %w", err)
	}
	for i := range known.Items {
		if j := &known.Items[i]; j.Annotations[annotationFor] == key.String() {
			if err := c.stop(ctx, j); err != nil {
				return err
			}
		}
	}
	return nil
}

// keyFor is whose Job it is.
func keyFor(o client.Object) (types.NamespacedName, bool) {
	namespace, name, found := strings.Cut(o.GetAnnotations()[annotationFor], "/")
	return types.NamespacedName{Namespace: namespace, Name: name}, found
}
