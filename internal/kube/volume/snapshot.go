package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// annotationSource is on every snapshot that a Keeper makes, and holds its source.
const annotationSource = v1alpha1.Group + "/source"

// cutGrace is how long a driver's error must last before it counts: snapshot controllers report, and get over, every conflict of two
// writers.
const cutGrace = 10 * time.Second

// longestMessage bounds what is taken over from others' messages, in bytes.
const longestMessage = 400

// Snapshot takes the snapshots that Plan of the same Keeper decided on, all at the same time, and returns when each one is cut: its
// driver has said which moment it is of. They cannot be read yet; Move waits for that. What becomes of a volume is written into vols;
// one whose snapshot fails has a Problem, and the others go on. After a kill it takes up what is there, so who starts over calls
// Discard first. An error means that the work was interrupted: by ctx, or by save.
func (k *Keeper) Snapshot(ctx context.Context, vols []v1alpha1.VolumeStatus, save func([]v1alpha1.VolumeStatus) error) error {
	const op = "take snapshots"
	sources, err := k.sources(vols)
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	deadline, cancel := context.WithTimeout(ctx, k.CutDeadline)
	defer cancel()
	groups := k.groups(vols, sources)
	single := numbersOf(vols, v1alpha1.MethodSnapshot)
	var working sync.WaitGroup
	for _, g := range groups {
		working.Go(func() { g.failed = k.cutGroup(deadline, g, vols) })
	}
	working.Go(func() { k.cut(deadline, vols, single, sources) })
	working.Wait()
	var again []int
	for _, g := range groups {
		if g.failed == nil || ctx.Err() != nil {
			continue
		}
		k.Note(fmt.Sprintf("%s: the driver took no group snapshot, so claims have snapshots of their own: %v", g.namespace, g.failed))
		for _, i := range g.numbers {
			vols[i].Method = v1alpha1.MethodSnapshot
			again = append(again, i)
		}
	}
	k.cut(deadline, vols, again, sources)
	if err := ctx.Err(); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	return fault.Wrap(op, nil, save(vols), "")
}

// sources finds what Plan knew of each claim that a snapshot is taken of.
func (k *Keeper) sources(vols []v1alpha1.VolumeStatus) (map[claimKey]source, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := map[claimKey]source{}
	for _, v := range vols {
		from, planned := k.planned[keyOf(v)]
		if !planned && (v.Method == v1alpha1.MethodSnapshot || v.Method == v1alpha1.MethodGroup) {
			return nil, fault.New("", fault.ErrInvalid, fmt.Sprintf("claim %s/%s was not planned", v.Namespace, v.Claim), "")
		}
		found[keyOf(v)] = from
	}
	return found, nil
}

// numbersOf finds the volumes of a method that nothing is wrong with.
func numbersOf(vols []v1alpha1.VolumeStatus, method string) []int {
	var numbers []int
	for i, v := range vols {
		if v.Method == method && v.Problem == "" {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// cut takes one snapshot each of the volumes of these numbers, and waits until each is cut.
func (k *Keeper) cut(ctx context.Context, vols []v1alpha1.VolumeStatus, numbers []int, sources map[claimKey]source) {
	var working sync.WaitGroup
	for _, i := range numbers {
		working.Go(func() {
			v := &vols[i]
			from := sources[keyOf(*v)]
			v.Snapshot = k.Name(v.Namespace, v.Claim)
			taken, err := k.cutOne(ctx, *v, from)
			if err != nil {
				v.Problem = clip(err.Error())
				return
			}
			v.Taken = &taken
		})
	}
	working.Wait()
}

// cutOne takes the snapshot of one claim and returns the moment that it is of.
func (k *Keeper) cutOne(ctx context.Context, v v1alpha1.VolumeStatus, from source) (metav1.MicroTime, error) {
	annotations, err := from.annotations()
	if err != nil {
		return metav1.MicroTime{}, err
	}
	snapshot, err := ensure(ctx, k, &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v.Namespace, Name: v.Snapshot, Labels: k.labels(v.Namespace, v.Claim), Annotations: annotations,
		},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &v.Claim},
			VolumeSnapshotClassName: &from.snapshotClass,
		},
	})
	if err != nil {
		return metav1.MicroTime{}, err
	}
	if of := snapshot.Spec.Source.PersistentVolumeClaimName; of == nil || *of != v.Claim {
		return metav1.MicroTime{}, fault.New("take snapshot "+v.Snapshot, fault.ErrExists, "there is one of another claim", "")
	}
	return k.waitForCut(ctx, snapshot)
}

// waitForCut waits until the driver has said of which moment a snapshot is. It looks at the content, which has the name that snapshot
// controllers give it: there the moment stands seconds before it stands on the snapshot, and the application is at rest meanwhile.
func (k *Keeper) waitForCut(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot) (metav1.MicroTime, error) {
	const often = 5 // questions about the content for one about the snapshot
	var taken metav1.MicroTime
	trouble := trouble{grace: cutGrace}
	asked := 0
	err := k.watch(ctx, "take snapshot "+snapshot.Name, &trouble, func(ctx context.Context) (bool, error) {
		at, found, err := k.contentTime(ctx, dynamicContent(snapshot), snapshot.UID)
		if err != nil || found {
			taken = at
			return found, err
		}
		if asked++; asked%often != 0 {
			return false, nil
		}
		if err := k.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(snapshot), snapshot); err != nil {
			return false, err
		}
		status := snapshot.Status
		if status == nil || status.CreationTime == nil {
			return false, trouble.add(k.Now(), snapshotError(status))
		}
		taken = k.precise(ctx, snapshot, metav1.NewMicroTime(status.CreationTime.Time))
		return true, nil
	})
	return taken, err
}

// contentTime is the moment that the content of a snapshot is of, if it is there and its driver has said so.
func (k *Keeper) contentTime(ctx context.Context, name string, of types.UID) (at metav1.MicroTime, found bool, err error) {
	var content snapshotv1.VolumeSnapshotContent
	if err := k.Cluster.Client.Get(ctx, client.ObjectKey{Name: name}, &content); err != nil {
		return at, false, client.IgnoreNotFound(err)
	}
	if content.Spec.VolumeSnapshotRef.UID != of || content.Status == nil || content.Status.CreationTime == nil {
		return at, false, nil
	}
	return metav1.NewMicroTime(time.Unix(0, *content.Status.CreationTime)), true, nil
}

// watch is await until ctx's deadline without pauses that grow, for the application is at rest meanwhile. At the deadline, what the
// driver complained of last is the reason.
func (k *Keeper) watch(ctx context.Context, op string, t *trouble, done func(context.Context) (bool, error)) error {
	for {
		ok, err := done(ctx)
		switch {
		case err == nil && ok:
			return nil
		case err != nil && !passing(err):
			return fault.Wrap(op, nil, classify(err), "")
		}
		select {
		case <-ctx.Done():
			text := t.text
			if text == "" {
				text = "the driver took none in time"
			}
			return fault.New(op, fault.ErrUnavailable, text, "")
		case <-time.After(k.Poll):
		}
	}
}

// trouble is what a driver complains of, and since when.
type trouble struct {
	grace time.Duration
	text  string
	since time.Time
}

// add notes a complaint, and is an error once the driver has complained for a while. No complaint forgets the one before.
func (t *trouble) add(now time.Time, text string) error {
	if text == "" || t.text == "" {
		t.since = now
	}
	t.text = text
	if text != "" && now.Sub(t.since) >= t.grace {
		return fault.New("", fault.ErrUnavailable, text, "")
	}
	return nil
}

// snapshotError is what a driver says is wrong with a snapshot.
func snapshotError(status *snapshotv1.VolumeSnapshotStatus) string {
	if status == nil || status.Error == nil || status.Error.Message == nil {
		return ""
	}
	return "the driver says: " + clip(*status.Error.Message)
}

// precise asks the snapshot's content for the moment, which is there to the nanosecond; on the snapshot it is in whole seconds.
func (k *Keeper) precise(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot, taken metav1.MicroTime) metav1.MicroTime {
	if snapshot.Status == nil || snapshot.Status.BoundVolumeSnapshotContentName == nil {
		return taken
	}
	at, found, err := k.contentTime(ctx, *snapshot.Status.BoundVolumeSnapshotContentName, snapshot.UID)
	if err != nil || !found {
		return taken // it is right, only not as exact
	}
	return at
}

// annotations holds the source.
func (s source) annotations() (map[string]string, error) {
	text, err := json.Marshal(s)
	return map[string]string{annotationSource: string(text)}, err
}

// sourceOf reads the source of a snapshot.
func sourceOf(snapshot *snapshotv1.VolumeSnapshot) (source, error) {
	var s source
	if err := json.Unmarshal([]byte(snapshot.Annotations[annotationSource]), &s); err != nil {
		return s, fault.Wrap("read annotation "+annotationSource+" of "+describe(snapshot), fault.ErrCorrupt, err, "")
	}
	return s, nil
}

// clip shortens a message of somebody else's.
func clip(text string) string {
	if len(text) <= longestMessage {
		return text
	}
	return text[:longestMessage] + "…"
}

// Discard removes all that this owner made, and waits until the snapshots are gone: who starts over must not take up one of another
// moment.
func (k *Keeper) Discard(ctx context.Context) error {
	const op = "discard snapshots"
	owned := client.MatchingLabels{v1alpha1.LabelOwner: k.Owner}
	marked, err := k.list(ctx, &corev1.PersistentVolumeClaimList{}, client.HasLabels{LabelSnapshot})
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	var failures []error
	for _, claim := range marked {
		if markedBy(claim) == k.Owner {
			failures = append(failures, k.unmark(ctx, claim))
		}
	}
	made, err := k.made(ctx, owned)
	if err := errors.Join(append(failures, err, k.dropAll(ctx, made))...); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	err = k.await(ctx, k.ReadyDeadline, "wait until they are gone", func(ctx context.Context) (bool, error) {
		left, err := k.snapshots(ctx, owned)
		return len(left) == 0, err
	})
	return fault.Wrap(op, nil, err, "")
}

// claimsOf names the claims of the volumes of some numbers.
func claimsOf(vols []v1alpha1.VolumeStatus, numbers []int) []*corev1.PersistentVolumeClaim {
	var claims []*corev1.PersistentVolumeClaim
	for _, i := range numbers {
		claims = append(claims, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: vols[i].Namespace, Name: vols[i].Claim}})
	}
	return claims
}
