package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// checkers look at what a drill restored into a directory of this machine, and ask restored databases.
func checkers(asked *questions) map[string]protect.Checker {
	return map[string]protect.Checker{
		point.KindGit: func(ctx context.Context, from point.Reader, part point.Part, dir string) ([]point.Check, error) {
			return git.Drill(ctx, from, part, dir, git.Limits{})
		},
		point.KindLFS: git.DrillLFS,
		point.KindDir: drillTree, point.KindVolume: drillTree,
		point.KindBlock:   drillBlock,
		point.KindListing: drillJSON, point.KindIssues: drillJSON,
		point.KindMetadata: drillMetadata,
		point.KindObjects:  drillObjects,
		point.KindDatabase: asked.drill,
	}
}

// drillTree counts what was restored of a directory or a volume, and its bytes.
func drillTree(ctx context.Context, from point.Reader, part point.Part, dir string) ([]point.Check, error) {
	attributes, err := sizeOf(ctx, from, vault.AttributesFile) // which are on the files, once they are restored
	if err != nil {
		return nil, err
	}
	found := map[string]int64{}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		switch {
		case err != nil:
			return err
		case e.IsDir():
			found["directories"]++
		case e.Type()&fs.ModeSymlink != 0:
			found["symbolic links"]++
		case e.Type().IsRegular():
			found["files"]++
			found["bytes"] += info.Size()
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	checks := []point.Check{counted("bytes", part.Bytes-attributes, found["bytes"])}
	for _, c := range part.Counts {
		if slices.Contains([]string{"files", "directories", "symbolic links"}, c.Of) {
			checks = append(checks, counted(c.Of, c.Stored, found[c.Of]))
		}
	}
	return checks, nil
}

// sizeOf is the size of a file in a point, 0 where it is not there.
func sizeOf(ctx context.Context, from point.Reader, name string) (int64, error) {
	entries, err := from.List(ctx, path.Dir(name))
	if errors.Is(err, fault.ErrNotFound) {
		return 0, nil
	}
	for _, e := range entries {
		if e.Name == path.Base(name) {
			return e.Size, err
		}
	}
	return 0, err
}

// counted compares a number that the point has with what was found.
func counted(of string, want, got int64) point.Check {
	if want == got {
		return point.Check{What: of, OK: true, Detail: fmt.Sprint(got)}
	}
	return point.Check{What: of, Detail: fmt.Sprintf("wants %d, has %d", want, got)}
}

// drillBlock compares the size of an image.
func drillBlock(_ context.Context, _ point.Reader, part point.Part, dir string) ([]point.Check, error) {
	var size int64
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		info, infoErr := e.Info()
		if infoErr != nil {
			return nil, infoErr
		}
		size += info.Size()
	}
	return []point.Check{counted("bytes", part.Bytes, size)}, err
}

// maxDrilledFile bounds the bytes of a file that a drill reads at once.
const maxDrilledFile = 64 << 20

// eachFile hands the content of every regular file below dir that has one of the extensions to look, with its path below dir. look says
// what is wrong with it, "" for nothing; the first such ends it.
func eachFile(ctx context.Context, dir string, extensions []string, look func(name string, content []byte) string) (count int64, wrong string, _ error) {
	err := filepath.WalkDir(dir, func(full string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || !slices.Contains(extensions, path.Ext(e.Name())) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := os.Open(full)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read from
		content, err := io.ReadAll(io.LimitReader(f, maxDrilledFile))
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, full)
		if err != nil {
			return err
		}
		count++
		if what := look(filepath.ToSlash(name), content); what != "" {
			wrong = name + ": " + what
			return fs.SkipAll
		}
		return nil
	})
	return count, printable(wrong), err
}

// drillJSON reads what a forge answered.
func drillJSON(ctx context.Context, _ point.Reader, part point.Part, dir string) ([]point.Check, error) {
	count, wrong, err := eachFile(ctx, dir, []string{".json", ".ndjson"}, func(_ string, content []byte) string {
		lines := json.NewDecoder(strings.NewReader(string(content)))
		for {
			var one json.RawMessage
			switch err := lines.Decode(&one); {
			case errors.Is(err, io.EOF):
				return ""
			case err != nil:
				return "not JSON: " + err.Error()
			}
		}
	})
	return []point.Check{readCheck("JSON", count, wrong)}, err
}

func readCheck(what string, count int64, wrong string) point.Check {
	if wrong != "" {
		return point.Check{What: what, Detail: wrong}
	}
	return point.Check{What: what, OK: true, Detail: plural(count, "file", "files") + " read"}
}

// drillObjects reads the manifests of Kubernetes objects: each is YAML, and says what it is.
func drillObjects(ctx context.Context, _ point.Reader, part point.Part, dir string) ([]point.Check, error) {
	count, wrong, err := eachFile(ctx, dir, []string{".yaml"}, func(_ string, content []byte) string {
		var o struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		switch err := yaml.Unmarshal(content, &o); {
		case err != nil:
			return "not YAML: " + err.Error()
		case o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "":
			return "no object: it lacks apiVersion, kind or a name"
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	checks := []point.Check{readCheck("YAML", count, wrong)}
	for _, c := range part.Counts {
		if c.Of == "objects" && wrong == "" {
			checks = append(checks, counted(c.Of, c.Stored, count))
		}
	}
	return checks, nil
}

// drillMetadata reads an archive whole: every record of it, as many as its head says, and every file by the hash that it is named for.
func drillMetadata(ctx context.Context, _ point.Reader, _ point.Part, dir string) ([]point.Check, error) {
	restored := directoryReader{dir}
	a, err := archive.Open(ctx, restored)
	if err != nil {
		return nil, err
	}
	records := point.Check{What: "records", OK: true}
	var total int64
	collections := a.Header().Collections
	for _, name := range slices.Sorted(maps.Keys(collections)) {
		var read int64
		for _, err := range a.All(ctx, name) {
			if err != nil {
				return nil, err
			}
			read++
		}
		if want := collections[name].Living; read != want && records.OK {
			records = point.Check{What: "records", Detail: fmt.Sprintf("%s: wants %d, has %d", name, want, read)}
		}
		total += read
	}
	if records.OK {
		records.Detail = fmt.Sprint(total)
	}
	files, err := drillFiles(ctx, restored)
	return []point.Check{records, files}, err
}

// drillFiles reads the release assets and attachments of an archive.
func drillFiles(ctx context.Context, restored directoryReader) (point.Check, error) {
	check := point.Check{What: "files"}
	all, err := archive.Files(ctx, restored)
	if err != nil {
		return check, err
	}
	seen := map[string]bool{}
	for _, f := range all {
		sum := f.File.SHA256
		if sum == "" || seen[sum] {
			continue
		}
		seen[sum] = true
		if len(sum) != 2*sha256.Size {
			check.Detail = "a file is named for what is no SHA-256"
			return check, nil
		}
		got, err := hashOf(ctx, restored, archive.FilePath(sum))
		switch {
		case errors.Is(err, fault.ErrNotFound):
			check.Detail = printable(f.File.URL) + ": its content is not there"
			return check, nil
		case err != nil:
			return check, err
		case got != sum:
			check.Detail = printable(f.File.URL) + ": the content is another"
			return check, nil
		}
	}
	check.OK, check.Detail = true, fmt.Sprintf("%d read, each with the SHA-256 that it is named for", len(seen))
	return check, nil
}

func hashOf(ctx context.Context, from point.Reader, name string) (string, error) {
	f, err := from.Open(ctx, name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// directoryReader reads a restored part as if it were in a point.
type directoryReader struct{ root string }

func (d directoryReader) path(name string) (string, error) {
	if !fs.ValidPath(path.Clean(name)) {
		return "", fault.New("read "+name, fault.ErrNotFound, "", "")
	}
	return filepath.Join(d.root, filepath.FromSlash(name)), nil
}

// List lists a directory.
func (d directoryReader) List(_ context.Context, name string) ([]point.Entry, error) {
	full, err := d.path(name)
	if err != nil {
		return nil, err
	}
	found, err := os.ReadDir(full)
	if err != nil {
		return nil, notThere(name, err)
	}
	entries := make([]point.Entry, len(found))
	for i, e := range found {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		entries[i] = point.Entry{Name: e.Name(), Mode: info.Mode(), Size: info.Size(), Time: info.ModTime()}
	}
	return entries, nil
}

// Open opens a file.
func (d directoryReader) Open(_ context.Context, name string) (io.ReadSeekCloser, error) {
	full, err := d.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(full)
	if err != nil {
		return nil, notThere(name, err)
	}
	return f, nil
}

// Extract is for points.
func (d directoryReader) Extract(context.Context, string, string) error {
	return fault.New("extract", fault.ErrUnsupported, "", "")
}

func notThere(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap("read "+name, fault.ErrNotFound, err, "")
	}
	return err
}
