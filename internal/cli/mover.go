package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube/volume"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

const (
	maxTask   = 1 << 20 // bytes; Kubernetes keeps no larger Secret
	maxResult = 4096    // bytes of a termination message

	// moverMemory is what the garbage collector tries to stay below, in bytes; packs that are under way come on top of it. A mover is meant
	// to be fast, and may use more than other commands.
	moverMemory = 256 << 20
	// vaultMemory is what reading from the vault may take.
	vaultMemory = 384 << 20
	// connections to a store that stay open.
	connections = 32
	// cgroupMemory says how much the pod may take.
	cgroupMemory = "/sys/fs/cgroup/memory.max"
)

const moverHelp = `
Mover reads the volumes that are mounted in its pod into a vault, or fills them from one. Jobs of Backstay run it: a file holds all
it is to do, and its result is one JSON document in the pod's termination message.`

type moverOptions struct{ task, result string }

func newMoverCommand(a *app) *cobra.Command {
	var o moverOptions
	cmd := &cobra.Command{
		Use:    "mover",
		Short:  "Read or fill volumes in a pod",
		Long:   exits(moverHelp, "3   a volume was not captured or not restored", "6   a volume is not empty", "7   the stored data is damaged"),
		Hidden: true,
		Args:   takes(0, 0),
		RunE: a.runs(func(ctx context.Context, _ []string) error {
			return a.runMover(ctx, o)
		}),
	}
	cmd.Flags().StringVar(&o.task, "task", volume.TaskFile, "read what to do from `FILE`")
	cmd.Flags().StringVar(&o.result, "result", volume.ResultFile, "write the result to `FILE`")
	return cmd
}

// runMover carries a task out and leaves its result, whatever comes of it.
func (a *app) runMover(ctx context.Context, o moverOptions) error {
	limitMemory(a.Getenv, cgroupMemory, moverMemory)
	keepConnections()
	task, err := readTask(o.task)
	var parts []volume.PartResult
	if err == nil {
		parts, err = a.move(ctx, task)
		err = withoutSecrets(err, task.Location)
	}
	result := volume.Result{Parts: parts}
	if err != nil {
		result.Error, result.Class = err.Error(), fault.Of(err).Reason
	}
	return errors.Join(err, fault.Wrap("write the result", fault.ErrRefused, writeResult(o.result, result), ""))
}

// limitMemory has the garbage collector keep the process below most bytes, and within what its pod may take. What the user has set stays.
func limitMemory(getenv func(string) string, cgroup string, most int64) {
	if getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := most
	if b, err := os.ReadFile(cgroup); err == nil {
		if pod, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			limit = min(limit, pod*6/10)
		}
	}
	debug.SetMemoryLimit(limit)
}

// keepConnections lets as many connections to one server stay open as a mover uses at once. Clients of stores are made of the default
// transport, which closes all but two of them after each request: the next would pay for another handshake.
func keepConnections() {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = connections
	}
}

func readTask(name string) (task volume.Task, err error) {
	op := "read task " + name
	f, err := os.Open(name)
	if err != nil {
		return task, fault.Wrap(op, fault.ErrNotFound, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	b, err := io.ReadAll(io.LimitReader(f, maxTask+1))
	switch {
	case err != nil:
		return task, fault.Wrap(op, fault.ErrUnavailable, err, "")
	case len(b) > maxTask:
		return task, fault.New(op, fault.ErrInvalid, "it is too long", "")
	case json.Unmarshal(b, &task) != nil: // whose error may quote a secret
		return task, fault.New(op, fault.ErrInvalid, "it is not the JSON document of a task", "")
	case task.Operation != volume.Backup && task.Operation != volume.Restore:
		return task, fault.New(op, fault.ErrInvalid, fmt.Sprintf("unknown operation %q", task.Operation), "")
	case len(task.Volumes) == 0:
		return task, fault.New(op, fault.ErrInvalid, "it names no volume", "")
	}
	for _, m := range task.Volumes {
		if m.Kind != point.KindVolume && m.Kind != point.KindBlock || m.Part == "" || m.Path == "" {
			return task, fault.New(op, fault.ErrInvalid, fmt.Sprintf("volume %q of kind %q at %q", m.Part, m.Kind, m.Path), "")
		}
	}
	return task, nil
}

// masked is an error whose text names no secret, should a library have brought one along.
type masked struct {
	error
	text string
}

func (m masked) Error() string { return m.text }
func (m masked) Unwrap() error { return m.error }

func withoutSecrets(err error, l volume.Location) error {
	if err == nil {
		return nil
	}
	return masked{err, redacted(err.Error(), l)}
}

func redacted(text string, l volume.Location) string {
	secrets := []fault.Secret{fault.Secret(l.Password)}
	if l.OtherPassword != "" {
		secrets = append(secrets, fault.Secret(l.OtherPassword))
	}
	for _, value := range l.Credentials {
		secrets = append(secrets, fault.Secret(value))
	}
	return fault.Redact(text, secrets...)
}

// move carries a task out. Volumes that fared badly are in the results; the error names the first of them, too.
func (a *app) move(ctx context.Context, task volume.Task) (parts []volume.PartResult, err error) {
	location, err := vault.ParseLocation(task.Location.URL)
	if err != nil {
		return nil, err
	}
	o := a.vaultOptions()
	o.ReadOnly = task.Operation == volume.Restore
	o.Memory = vaultMemory
	o.Evidence = nil // it writes parts, of which the worker makes points
	o.Env = func(name string) string {
		if value, ok := task.Location.Credentials[name]; ok {
			return value
		}
		return a.Getenv(name)
	}
	v, err := vault.OpenEither(ctx, location, []fault.Secret{fault.Secret(task.Location.Password), fault.Secret(task.Location.OtherPassword)}, o)
	if err != nil {
		return nil, err
	}
	work := a.moveIn
	if task.Operation == volume.Restore {
		work = a.moveOut
	}
	parts, err = work(ctx, v, task)
	for i := range parts {
		parts[i].Reason = redacted(parts[i].Reason, task.Location)
	}
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return parts, errors.Join(err, v.Close(tidy))
}

// moveIn captures volumes into the vault.
func (a *app) moveIn(ctx context.Context, v *vault.Vault, task volume.Task) ([]volume.PartResult, error) {
	var volumes []vault.Volume
	for _, m := range task.Volumes {
		volumes = append(volumes, vault.Volume{Part: m.Part, Kind: m.Kind, Path: m.Path, Mark: m.Mark, Notes: m.Notes})
	}
	parts, err := protect.WriteShard(ctx, v, vault.NewVolumes(task.Subject, volumes), task.Policy)
	if err != nil {
		return nil, err
	}
	var (
		results []volume.PartResult
		failed  error
	)
	for _, p := range parts {
		results = append(results, volume.PartResult{Part: p.Name, State: p.State, Reason: p.Reason, Bytes: p.Bytes})
		if p.State != point.Stored && failed == nil {
			failed = fault.New("capture "+p.Name, fault.ErrIncomplete, p.Reason, "")
		}
	}
	return results, failed
}

// moveOut fills volumes from a point.
func (a *app) moveOut(ctx context.Context, v *vault.Vault, task volume.Task) ([]volume.PartResult, error) {
	record, from, err := v.Open(ctx, task.Point)
	if err != nil {
		return nil, err
	}
	var (
		results []volume.PartResult
		first   error
	)
	for _, m := range task.Volumes {
		p, err := fill(ctx, record, from, m)
		if ctx.Err() != nil {
			return results, context.Cause(ctx)
		}
		result := volume.PartResult{Part: m.Part, State: point.Stored, Bytes: p.Bytes}
		if err != nil {
			result.State, result.Reason = point.Failed, err.Error()
			if first == nil {
				first = fault.Wrap("restore "+m.Part, nil, err, "")
			}
		}
		results = append(results, result)
	}
	return results, first
}

// fill restores one part into its volume.
func fill(ctx context.Context, record *point.Record, from point.Reader, m volume.Mount) (point.Part, error) {
	for _, p := range record.Point.Parts {
		switch {
		case p.Name != m.Part:
			continue
		case p.State != point.Stored && p.State != point.Carried:
			return p, fault.New("", fault.ErrIncomplete, "it is not in the point: "+p.Reason, "")
		case p.Kind != m.Kind && (p.Kind != point.KindDir || m.Kind != point.KindVolume):
			return p, fault.New("", fault.ErrInvalid, fmt.Sprintf("the part is of the kind %s, the volume of %s", p.Kind, m.Kind), "")
		case p.Kind == point.KindBlock:
			return p, vault.RestoreBlock(ctx, protect.Within(from, p.Name), m.Path)
		}
		return p, vault.RestoreTreeInto(ctx, protect.Within(from, p.Name), m.Path)
	}
	return point.Part{}, fault.New("", fault.ErrNotFound, "the point has no such part", "")
}

// writeResult writes a result into a file of few bytes, with its reasons cut as far as that needs.
func writeResult(name string, r volume.Result) error {
	b, err := encodeResult(r, maxResult)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// encodeResult cuts reasons, and at last leaves parts out that went well: whoever reads it finds those in the vault.
func encodeResult(r volume.Result, limit int) ([]byte, error) {
	for longest := 1024; ; longest /= 2 {
		b, err := json.Marshal(shortened(r, longest))
		switch {
		case err != nil || len(b) <= limit:
			return b, err
		case longest > 0:
			continue
		case len(r.Parts) == 0:
			return nil, fmt.Errorf("the result does not fit in %d bytes", limit)
		}
		r.Parts = r.Parts[:len(r.Parts)-1]
	}
}

func shortened(r volume.Result, longest int) volume.Result {
	short := volume.Result{Error: cut(r.Error, longest), Class: r.Class}
	for _, p := range r.Parts {
		p.Reason = cut(p.Reason, longest)
		short.Parts = append(short.Parts, p)
	}
	return short
}

// cut shortens a text to a number of bytes, at the boundary of a letter.
func cut(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	const mark = "…"
	if longest <= len(mark) {
		return ""
	}
	return strings.ToValidUTF8(text[:longest-len(mark)], "") + mark
}
