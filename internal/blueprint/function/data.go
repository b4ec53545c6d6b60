package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// outputVersion is the version of functions that outputs name, as published.
const outputVersion = "v0.0.0"

// Names of arguments that several functions have.
const (
	argNamespace   = "namespace"
	argImage       = "image"
	argPrefix      = "backupArtifactPrefix"
	argKey         = "encryptionKey"
	argInsecureTLS = "insecureTLS"
)

// argsOfPods are those of every function that makes a pod.
func argsOfPods(more ...string) []string {
	return append(more, "podOverride", "podAnnotations", "podLabels")
}

// mostPods bounds how many pods one function works in at a time.
const mostPods = 8

// data are the functions on restic repositories.
type data struct {
	// in is a shell in a container that is there.
	in func(namespace, pod, container string) shell
	// own makes a pod of our own, does something in it, and removes it.
	own func(ctx context.Context, c blueprint.Call, p ownPod, do func(context.Context, shell) error) error
	// image is what runs restic where a Blueprint names none.
	image string
}

// dataFunctions are those on restic repositories. All of them may be run again: a backup drops the snapshot of the run that was
// interrupted, a restore writes the same files once more, and what is deleted already stays deleted.
func (o Options) dataFunctions() []blueprint.Function {
	return data{in: o.shellIn, own: o.inPod, image: o.Image}.functions()
}

func (d data) functions() []blueprint.Function {
	functions := []blueprint.Function{
		{
			Name:     "BackupData",
			Required: []string{argNamespace, "pod", "container", "includePath", argPrefix},
			Optional: []string{argKey, argInsecureTLS},
			Run:      d.backupData,
		},
		{
			Name:     "BackupDataAll",
			Required: []string{argNamespace, "container", "includePath", argPrefix},
			Optional: []string{"pods", argKey, argInsecureTLS},
			Run:      d.backupDataAll,
		},
		{
			Name:     "BackupDataStats",
			Required: []string{argNamespace, argPrefix, "backupID"},
			Optional: argsOfPods(argImage, "statsMode", argKey, argInsecureTLS),
			Run:      d.backupDataStats,
		},
		{
			Name:     "CheckRepository",
			Required: []string{argPrefix},
			Optional: argsOfPods(argImage, argKey, argInsecureTLS),
			Run:      d.checkRepository,
		},
		{
			Name:     "RestoreData",
			Required: []string{argNamespace, argImage, argPrefix},
			Optional: argsOfPods("restorePath", "backupPath", "backupTag", "backupIdentifier", "pod", "volumes", argKey, argInsecureTLS),
			Run:      d.restoreData,
		},
		{
			Name:     "RestoreDataAll",
			Required: []string{argNamespace, argImage, argPrefix, "backupInfo"},
			Optional: argsOfPods("restorePath", "pods", argKey, argInsecureTLS),
			Run:      d.restoreDataAll,
		},
		{
			Name:     "CopyVolumeData",
			Required: []string{argNamespace, "volume", "dataArtifactPrefix"},
			Optional: argsOfPods(argImage, "mountPath", argKey, argInsecureTLS),
			Run:      d.copyVolumeData,
		},
		{
			Name:     "DeleteData",
			Required: []string{argNamespace, argPrefix},
			Optional: argsOfPods(argImage, "backupID", "backupTag", "reclaimSpace", argKey, argInsecureTLS),
			Run:      d.deleteData,
		},
		{
			Name:     "DeleteDataAll",
			Required: []string{argNamespace, argPrefix, "backupInfo"},
			Optional: argsOfPods(argImage, "reclaimSpace", argKey, argInsecureTLS),
			Run:      d.deleteDataAll,
		},
	}
	for i := range functions {
		functions[i].Interrupted = blueprint.Repeats
	}
	return functions
}

func (d data) backupData(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	pod, container, path, prefix := a.text("pod"), a.text("container"), a.text("includePath"), a.text(argPrefix)
	if a.err != nil {
		return nil, a.err
	}
	r, err := w.repository(prefix)
	if err != nil {
		return nil, err
	}
	r.run = d.in(w.namespace, pod, container)
	k, err := r.backUp(ctx, c.ID, path, "")
	if err != nil {
		return nil, fault.Wrap("pod "+pod, nil, err, "")
	}
	return k.output(c.ID), nil
}

// output is what functions that back up put out.
func (k kept) output(tag string) map[string]any {
	return map[string]any{
		"backupID": k.ID, "backupTag": tag, "fileCount": fmt.Sprint(k.Files), "size": inUnits(k.Size), "phySize": inUnits(k.Added),
		"version": outputVersion,
	}
}

// podBackup is what BackupAllInfo has of each pod, by the published names.
type podBackup struct{ PodName, BackupID, BackupTag string }

func (d data) backupDataAll(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	container, path, prefix, named := a.text("container"), a.text("includePath"), a.text(argPrefix), a.words("pods")
	if a.err != nil {
		return nil, a.err
	}
	pods, err := podsOf(c, named)
	if err != nil {
		return nil, err
	}
	// What an interrupted run has done is not done again.
	done := map[string]podBackup{}
	if text, is := c.Saved["BackupAllInfo"].(string); is {
		if done, err = readBackupInfo(text); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	err = inEach(ctx, pods, func(ctx context.Context, pod string) error {
		mu.Lock()
		_, is := done[pod]
		mu.Unlock()
		if is {
			return nil
		}
		r, err := w.repository(prefix + "/" + pod)
		if err != nil {
			return err
		}
		r.run = d.in(w.namespace, pod, container)
		k, err := r.backUp(ctx, c.ID, path, "")
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		done[pod] = podBackup{PodName: pod, BackupID: k.ID, BackupTag: c.ID}
		return c.Save(ctx, backupInfo(done))
	})
	return backupInfo(done), err
}

func backupInfo(of map[string]podBackup) map[string]any {
	text, err := json.Marshal(of)
	if err != nil {
		panic(err) // strings always can be
	}
	return map[string]any{"BackupAllInfo": string(text), "version": outputVersion}
}

func readBackupInfo(text string) (map[string]podBackup, error) {
	info := map[string]podBackup{}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return nil, fault.Wrap("argument backupInfo", fault.ErrInvalid, err, "it is the output BackupAllInfo of BackupDataAll")
	}
	for pod, of := range info {
		if strings.ContainsAny(pod, "/ \t\n") || pod == ".." || pod == "" {
			return nil, fault.New("argument backupInfo", fault.ErrInvalid, fmt.Sprintf("no pod is named %.70q", pod), "")
		}
		if !snapshotID.MatchString(of.BackupID) {
			return nil, fault.New("argument backupInfo", fault.ErrInvalid, fmt.Sprintf("pod %s has no backup", pod), "")
		}
	}
	return info, nil
}

func (d data) backupDataStats(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	id, mode, prefix := a.text("backupID"), a.textOr("statsMode", "restore-size"), a.text(argPrefix)
	if err := errors.Join(a.err, identified(id)); err != nil {
		return nil, err
	}
	var output map[string]any
	err := w.inOwn(ctx, ownPod{}, prefix, func(ctx context.Context, r restic) error {
		count, size, err := r.stats(ctx, id, mode)
		output = map[string]any{"mode": mode, "fileCount": fmt.Sprint(count), "size": inUnits(size), "version": outputVersion}
		return err
	})
	return output, err
}

func (d data) checkRepository(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	prefix := a.text(argPrefix)
	if a.err != nil {
		return nil, a.err
	}
	var found error
	err := w.inOwn(ctx, ownPod{}, prefix, func(ctx context.Context, r restic) error {
		found = r.check(ctx)
		if errors.Is(found, fault.ErrDenied) || errors.Is(found, fault.ErrNotFound) {
			return nil
		}
		return found
	})
	return map[string]any{
		"passwordIncorrect": fmt.Sprint(errors.Is(found, fault.ErrDenied)),
		"repoUnavailable":   fmt.Sprint(errors.Is(found, fault.ErrNotFound)),
		"version":           outputVersion,
	}, err
}

func (d data) restoreData(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	id, tag, pod, volumes := a.text("backupIdentifier"), a.text("backupTag"), a.text("pod"), a.table("volumes")
	target, path, prefix := a.textOr("restorePath", "/"), a.text("backupPath"), a.text(argPrefix)
	if err := errors.Join(a.err, onlyOne("backupIdentifier", id, "backupTag", tag), identified(id)); err != nil {
		return nil, err
	}
	if (pod == "") == (len(volumes) == 0) {
		return nil, fault.New("restore", fault.ErrInvalid, "one of the arguments pod and volumes must be given", "")
	}
	if pod != "" {
		var err error
		if volumes, err = claimsOf(c.Params, pod); err != nil {
			return nil, err
		}
	}
	return nil, w.inOwn(ctx, ownPod{volumes: volumes}, prefix, func(ctx context.Context, r restic) error {
		return r.restore(ctx, id, tag, path, target)
	})
}

func (d data) restoreDataAll(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	prefix, target, named, text := a.text(argPrefix), a.textOr("restorePath", "/"), a.words("pods"), a.text("backupInfo")
	if a.err != nil {
		return nil, a.err
	}
	info, err := readBackupInfo(text)
	if err != nil {
		return nil, err
	}
	pods, err := podsOf(c, named)
	if err != nil { // they are scaled down
		pods = slices.Sorted(maps.Keys(info))
	}
	return nil, inEach(ctx, pods, func(ctx context.Context, pod string) error {
		of, is := info[pod]
		if !is {
			return fault.New("argument backupInfo", fault.ErrInvalid, "it has no backup of this pod", "")
		}
		volumes, err := claimsOf(c.Params, pod)
		if err != nil {
			return err
		}
		own := ownPod{suffix: fmt.Sprintf("-%d", slices.Index(pods, pod)), volumes: volumes}
		return w.inOwn(ctx, own, prefix+"/"+pod, func(ctx context.Context, r restic) error {
			return r.restore(ctx, of.BackupID, "", "", target)
		})
	})
}

func (d data) copyVolumeData(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	volume, prefix := a.text("volume"), a.text("dataArtifactPrefix")
	root := a.textOr("mountPath", "/mnt/vol_data/"+volume)
	if a.err != nil {
		return nil, a.err
	}
	own := ownPod{volumes: map[string]string{volume: root}}
	var output map[string]any
	err := w.inOwn(ctx, own, prefix, func(ctx context.Context, r restic) error {
		k, err := r.backUp(ctx, c.ID, root, volume)
		output = k.output(c.ID)
		output["backupRoot"], output["backupArtifactLocation"] = root, r.repository.path
		return err
	})
	if err != nil {
		return nil, err
	}
	return output, nil
}

// dropped is one snapshot to delete, or those of a tag.
type dropped struct{ prefix, id, tag string }

func (d data) deleteData(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	prefixes, ids, tags, reclaim := a.words(argPrefix), a.words("backupID"), a.words("backupTag"), a.flag("reclaimSpace")
	if a.err != nil {
		return nil, a.err
	}
	if err := onlyOne("backupID", strings.Join(ids, " "), "backupTag", strings.Join(tags, " ")); err != nil {
		return nil, err
	}
	named := max(len(ids), len(tags))
	if len(prefixes) == 1 { // it is that of all
		prefixes = slices.Repeat(prefixes, named)
	}
	if len(prefixes) != named {
		return nil, fault.New("argument "+argPrefix, fault.ErrInvalid,
			fmt.Sprintf("it names %d repositories, for %d backups", len(prefixes), named), "")
	}
	drop := make([]dropped, named)
	for i, prefix := range prefixes {
		drop[i].prefix = prefix
		if len(ids) > 0 {
			drop[i].id = ids[i]
		} else {
			drop[i].tag = tags[i]
		}
	}
	return w.drop(ctx, drop, reclaim)
}

func (d data) deleteDataAll(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	w, a := d.begin(c)
	prefix, text, reclaim := a.text(argPrefix), a.text("backupInfo"), a.flag("reclaimSpace")
	if a.err != nil {
		return nil, a.err
	}
	info, err := readBackupInfo(text)
	if err != nil {
		return nil, err
	}
	var drop []dropped
	for _, pod := range slices.Sorted(maps.Keys(info)) {
		drop = append(drop, dropped{prefix: prefix + "/" + pod, id: info[pod].BackupID})
	}
	return w.drop(ctx, drop, reclaim)
}

// drop deletes snapshots, one after the other in one pod. What is gone already is no error: an interrupted run may have deleted it.
func (w work) drop(ctx context.Context, drop []dropped, reclaim bool) (map[string]any, error) {
	repositories := make([]restic, len(drop))
	for i, of := range drop {
		if err := identified(of.id); err != nil {
			return nil, err
		}
		r, err := w.repository(of.prefix)
		if err != nil {
			return nil, err
		}
		repositories[i] = r
	}
	var freed int64
	err := w.data.own(ctx, w.call, w.complete(ownPod{}), func(ctx context.Context, run shell) error {
		for i, r := range repositories {
			r.run = run
			n, err := r.drop(ctx, drop[i], reclaim)
			if err != nil {
				return err
			}
			freed += n
		}
		return nil
	})
	return map[string]any{"spaceFreed": fmt.Sprintf("%d B", freed)}, err
}

func (r restic) drop(ctx context.Context, of dropped, reclaim bool) (freed int64, err error) {
	if err := r.unlock(ctx); err != nil {
		return 0, err
	}
	if of.id != "" {
		err = r.forget(ctx, of.id)
	} else {
		err = r.forgetTag(ctx, of.tag)
	}
	if err != nil || !reclaim {
		return 0, err
	}
	return r.prune(ctx)
}

// work is one call, with the arguments that all of these functions have.
type work struct {
	data        data
	call        blueprint.Call
	namespace   string
	image       string
	key         string
	insecureTLS bool
}

// begin reads those arguments; the others are read after them.
func (d data) begin(c blueprint.Call) (work, *reader) {
	a := &reader{of: c.Args}
	c.Log = oneAtATime(c.Log)
	return work{
		data: d, call: c,
		namespace: a.textOr(argNamespace, c.Namespace), image: a.textOr(argImage, d.image),
		// The original hands the key to a shell, which drops the newline that ends many a Secret.
		key:         strings.TrimSpace(a.textOr(argKey, publishedPassword)),
		insecureTLS: a.flag(argInsecureTLS),
	}, a
}

// repository is the one below a prefix, without a shell yet.
func (w work) repository(prefix string) (restic, error) {
	at, err := repositoryOf(w.call.Params, prefix, w.key, w.insecureTLS)
	return restic{repository: at, log: w.call.Log}, err
}

// inOwn does something with the repository below a prefix in a pod of our own.
func (w work) inOwn(ctx context.Context, p ownPod, prefix string, do func(context.Context, restic) error) error {
	r, err := w.repository(prefix)
	if err != nil {
		return err
	}
	return w.data.own(ctx, w.call, w.complete(p), func(ctx context.Context, run shell) error {
		r.run = run
		return do(ctx, r)
	})
}

// complete is a pod with what all of them have.
func (w work) complete(p ownPod) ownPod {
	p.namespace, p.image = w.namespace, w.image
	return p
}

// identified refuses what is not an id of restic's: it might be an option. None is none.
func identified(id string) error {
	if id != "" && id != "latest" && !snapshotID.MatchString(id) {
		return fault.New("find the backup", fault.ErrInvalid, fmt.Sprintf("%.70q is no id of a snapshot", id), "")
	}
	return nil
}

// onlyOne refuses two arguments that exclude each other, and none of them.
func onlyOne(name, value, otherName, otherValue string) error {
	if (value == "") != (otherValue == "") {
		return nil
	}
	return fault.New("find the backup", fault.ErrInvalid, fmt.Sprintf("one of the arguments %s and %s must be given", name, otherName), "")
}

// inEach does something for each pod, a few at a time, and goes on with the others when one fails.
func inEach(ctx context.Context, pods []string, do func(ctx context.Context, pod string) error) error {
	failures := make([]error, len(pods))
	free := make(chan struct{}, mostPods)
	var working sync.WaitGroup
	for i, pod := range pods {
		working.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			failures[i] = fault.Wrap("pod "+pod, nil, do(ctx, pod), "")
		})
	}
	working.Wait()
	return errors.Join(failures...)
}

// oneAtATime is a log that several pods write to.
func oneAtATime(log func(line string)) func(line string) {
	var mu sync.Mutex
	return func(line string) {
		mu.Lock()
		defer mu.Unlock()
		log(line)
	}
}
