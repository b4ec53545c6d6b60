package worker

import (
	"context"
	"hash/fnv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/protect"
)

// Share is what one of several processes, the pods of an Indexed Job, does of a run: each application is one process's, by its Backup's
// name, so that they need not ask each other, and the work on repositories is shared by notes in the vault. The zero value does all.
type Share struct {
	Index int
	Of    int    // processes; 0 or 1 for one alone
	Job   string // which is told when others wait; empty for none
}

// has reports whether a Backup is this process's.
func (s Share) has(b *v1alpha1.Backup) bool {
	if s.Of <= 1 || b.Spec.Repositories {
		return true
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(b.Name)) // never fails
	return int(sum.Sum32())%s.Of == s.Index
}

// first reports whether this process writes the status of what several work on.
func (s Share) first() bool { return s.Index == 0 }

// yields reports whether others wait for their turn: then no more applications are begun.
func (w *Worker) yields(ctx context.Context) bool {
	if w.Share.Job == "" {
		return false
	}
	job := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}}
	err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: w.System, Name: w.Share.Job}, &job)
	return err == nil && job.Annotations[v1alpha1.AnnotationYield] != ""
}

// shared is the run that the Backup's repositories are captured in; nil for one of this process alone.
func (b *backup) shared() *protect.Shared {
	if b.Share.Of <= 1 {
		return nil
	}
	return &protect.Shared{Run: string(b.object.UID)} // the same after the pod was started again
}

// help works on the repositories of a Backup whose status another process writes. What goes wrong is said there.
func (b *backup) help(ctx context.Context) error {
	run, err := b.captureRepositories(ctx)
	if run == nil && err != nil && again(ctx, err) {
		return err
	}
	if err != nil {
		b.Log.Warn("the first of the processes says how it came out", "backup", b.object.Name, "error", err.Error())
	}
	return nil
}
