package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// shell runs a script by sh, which reads it from its standard input: nothing of it stands in a command line. The status is that of the
// script; an error means that its end was not seen.
type shell func(ctx context.Context, script string, stdout, stderr io.Writer) (status int, err error)

// restic is one repository, and the shell in whose container the program runs.
type restic struct {
	repository repository
	run        shell
	log        func(line string)
}

// snapshot is one that restic lists.
type snapshot struct {
	ID string `json:"id"`
}

// kept is what a backup came to.
type kept struct {
	ID     string `json:"snapshot_id"`
	Files  int64  `json:"total_files_processed"`
	Size   int64  `json:"total_bytes_processed"`
	Added  int64  `json:"data_added"`        // before it was compressed
	Packed *int64 `json:"data_added_packed"` // what it takes in the repository; restic 0.17 and later say so
}

// What is read of restic's answers, in bytes. Answers are lists of snapshots at most; complaints are shown to people.
const (
	mostAnswer    = 1 << 20
	mostComplaint = 2 << 10
)

// Statuses that restic, or the shell, ends with. Those from 10 on are of restic 0.17 and later.
const (
	statusIncomplete    = 3
	statusNoRepository  = 10
	statusLocked        = 11
	statusWrongPassword = 12
	statusNoProgram     = 127
)

const hintImage = "name an image that has restic and sh, or a container that has them"

// ready makes the repository where there is none. It returns the snapshots that have the tag.
func (r restic) ready(ctx context.Context, tag string) ([]snapshot, error) {
	found, err := r.snapshots(ctx, tag)
	if !errors.Is(err, fault.ErrNotFound) {
		return found, err
	}
	if _, failed := r.answer(ctx, "init"); failed != nil {
		if found, err = r.snapshots(ctx, tag); err != nil { // else another phase was first
			return nil, fault.Wrap("make the repository", nil, failed, "")
		}
		return found, nil
	}
	return nil, nil
}

// backUp takes one snapshot with the tag. Earlier ones of the tag are of runs that were interrupted, and go once this one stands. A
// snapshot that lacks files does not stay either. The host, where given, stands in for the pod's name, so that restic finds what it read
// the last time.
func (r restic) backUp(ctx context.Context, tag, path, host string) (kept, error) {
	earlier, err := r.ready(ctx, tag)
	if err != nil {
		return kept{}, err
	}
	args := []string{"backup", "--json", "--quiet", "--tag=" + tag}
	if host != "" {
		args = append(args, "--host="+host)
	}
	said, err := r.answer(ctx, append(args, "--", path)...)
	if err != nil {
		if errors.Is(err, fault.ErrIncomplete) {
			err = errors.Join(err, r.forgetTag(ctx, tag))
		}
		return kept{}, fault.Wrap("back up "+path, nil, err, "")
	}
	k, err := lastSummary(said)
	if err != nil {
		return kept{}, fault.Wrap("back up "+path, nil, err, "")
	}
	for _, s := range earlier {
		err = errors.Join(err, r.forget(ctx, s.ID))
	}
	return k, fault.Wrap("drop the snapshot of an interrupted run", nil, err, "")
}

// restore brings a snapshot, or a path in it, back below target. With an empty id it is the newest that has the tag.
func (r restic) restore(ctx context.Context, id, tag, path, target string) error {
	args := []string{"restore", "--target=" + target}
	if id == "" {
		id, args = "latest", append(args, "--tag="+tag)
	}
	if path != "" {
		id += ":" + path
	}
	_, err := r.answer(ctx, append(args, "--", id)...)
	return fault.Wrap("restore", nil, err, "")
}

// snapshots lists those that have the tag.
func (r restic) snapshots(ctx context.Context, tag string) ([]snapshot, error) {
	said, err := r.answer(ctx, "snapshots", "--json", "--no-lock", "--tag="+tag)
	if err != nil {
		return nil, fault.Wrap("list snapshots", nil, err, "")
	}
	var found []snapshot
	if err := json.Unmarshal(said, &found); err != nil {
		return nil, fault.Wrap("list snapshots", fault.ErrCorrupt, err, "")
	}
	for _, s := range found {
		if !snapshotID.MatchString(s.ID) {
			return nil, fault.New("list snapshots", fault.ErrCorrupt, fmt.Sprintf("snapshot %.70q has no id", s.ID), "")
		}
	}
	return found, nil
}

// forget drops a snapshot. One that is not there is dropped.
func (r restic) forget(ctx context.Context, id string) error {
	_, err := r.answer(ctx, "forget", "--", id)
	return fault.Wrap("forget snapshot "+id, nil, err, "")
}

// forgetTag drops the snapshots that have the tag.
func (r restic) forgetTag(ctx context.Context, tag string) error {
	found, err := r.snapshots(ctx, tag)
	for _, s := range found {
		err = errors.Join(err, r.forget(ctx, s.ID))
	}
	return err
}

// unlock removes the locks that killed runs left, and no others: those would keep a prune waiting for ever.
func (r restic) unlock(ctx context.Context) error {
	_, err := r.answer(ctx, "unlock")
	return fault.Wrap("remove stale locks", nil, err, "")
}

// prune removes what no snapshot needs, and returns the bytes that it freed.
func (r restic) prune(ctx context.Context) (int64, error) {
	said, err := r.answer(ctx, "prune")
	if err != nil {
		return 0, fault.Wrap("prune", nil, err, "")
	}
	return pruned(said), nil
}

// stats counts the files, or the blobs, of a snapshot, and their bytes.
func (r restic) stats(ctx context.Context, id, mode string) (count, size int64, err error) {
	said, err := r.answer(ctx, "stats", "--json", "--no-lock", "--mode="+mode, "--", id)
	if err != nil {
		return 0, 0, fault.Wrap("count snapshot "+id, nil, err, "")
	}
	var s struct {
		Size  int64 `json:"total_size"`
		Files int64 `json:"total_file_count"`
		Blobs int64 `json:"total_blob_count"`
	}
	if err := json.Unmarshal(said, &s); err != nil {
		return 0, 0, fault.Wrap("count snapshot "+id, fault.ErrCorrupt, err, "")
	}
	if mode == "raw-data" {
		return s.Blobs, s.Size, nil
	}
	return s.Files, s.Size, nil
}

// check asks for the repository: fault.ErrNotFound where there is none, fault.ErrDenied where the password is not its own.
func (r restic) check(ctx context.Context) error {
	_, err := r.answer(ctx, "cat", "--no-lock", "config")
	return err
}

// answer runs restic and returns what it printed.
func (r restic) answer(ctx context.Context, args ...string) ([]byte, error) {
	script, err := r.repository.script(args)
	if err != nil {
		return nil, err
	}
	out, complaint := &end{most: mostAnswer}, &end{most: mostComplaint}
	status, err := r.run(ctx, script, out, complaint)
	if err != nil {
		return nil, err
	}
	said := r.repository.redact(strings.TrimSpace(complaint.String()))
	if status != 0 {
		return nil, failed(status, said)
	}
	if said != "" {
		r.log(said)
	}
	if out.cut {
		return nil, fault.New("", fault.ErrCorrupt, fmt.Sprintf("restic's answer is longer than %d bytes", mostAnswer), "")
	}
	return out.kept, nil
}

// failed is the error that a status and a complaint stand for. Before 0.17 most of them stood in words alone.
func failed(status int, said string) error {
	is := func(of int, words ...string) bool {
		found := status == of
		for _, w := range words {
			found = found || strings.Contains(said, w)
		}
		return found
	}
	text := fmt.Sprintf("restic ended with status %d: %s", status, said)
	switch {
	case is(statusNoProgram):
		return fault.New("", fault.ErrInvalid, "there is no restic: "+said, hintImage)
	case is(statusWrongPassword, "wrong password or no key found"):
		return fault.New("", fault.ErrDenied, "the repository has another password", "the argument encryptionKey must be that of the backup")
	case is(statusNoRepository, "Is there a repository at the following location?"):
		return fault.New("", fault.ErrNotFound, text, "")
	case is(statusLocked, "repository is already locked"):
		return fault.New("", fault.ErrLocked, text, "")
	case is(statusIncomplete):
		return fault.New("", fault.ErrIncomplete, text, "")
	}
	return fault.New("", fault.ErrRefused, text, "")
}

// lastSummary is the summary that ends what a backup prints.
func lastSummary(said []byte) (kept, error) {
	lines := bytes.Split(bytes.TrimSpace(said), []byte("\n"))
	var k kept
	if err := json.Unmarshal(lines[len(lines)-1], &k); err != nil {
		return kept{}, fault.Wrap("read restic's summary", fault.ErrCorrupt, err, "")
	}
	if !snapshotID.MatchString(k.ID) {
		return kept{}, fault.New("read restic's summary", fault.ErrCorrupt, "it names no snapshot", "")
	}
	if k.Packed != nil {
		k.Added = *k.Packed
	}
	return k, nil
}

var (
	snapshotID  = regexp.MustCompile(`^[0-9a-f]{8,64}$`)
	prunedBytes = regexp.MustCompile(`(?m)^(?:total prune:.*/|will delete .* this frees) +([0-9.]+) ([KMGT]i)?B`)
)

// pruned reads how many bytes a prune freed; 0 where it does not say.
func pruned(said []byte) int64 {
	found := prunedBytes.FindSubmatch(said)
	if found == nil {
		return 0
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return 0
	}
	if unit := string(found[2]); unit != "" {
		n *= float64(int64(1) << (10 * (strings.Index("KMGT", unit[:1]) + 1)))
	}
	return int64(n)
}

// inUnits writes a number of bytes as restic does, and as outputs are published: "1.500 KiB".
func inUnits(n int64) string {
	units := "KMGT"
	size, unit := float64(n), ""
	for size >= 1<<10 && units != "" {
		size, unit, units = size/(1<<10), units[:1]+"i", units[1:]
	}
	if unit == "" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3f %sB", size, unit)
}

// end keeps the end of what is written to it.
type end struct {
	most int
	kept []byte
	cut  bool
}

func (e *end) Write(p []byte) (int, error) {
	e.kept = append(e.kept, p[max(0, len(p)-e.most):]...)
	e.cut = e.cut || len(p) > e.most || len(e.kept) > e.most
	e.kept = e.kept[max(0, len(e.kept)-e.most):]
	return len(p), nil
}

func (e *end) String() string { return strings.ToValidUTF8(string(e.kept), "?") }
