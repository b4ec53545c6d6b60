package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/convert"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

const convertHelp = `
Convert reads the documents by which another tool is told what to back up, and writes what Backstay is told instead: YAML on standard
output, and on standard error what changes by it, what is missed, and what is left to do by hand. Nothing is applied, and no backups are
read: the other tool's data stays with it. docs/convert.md says what becomes of what.

It reads files, the .yaml, .yml and .json files in and below directories, and standard input for -.`

const convertExample = `  backstay convert k10 policies/ > backstay.yaml
  backstay convert velero --cluster > backstay.yaml
  kubectl get policies.config.kio.kasten.io,profiles.config.kio.kasten.io -n kasten-io -o yaml | backstay convert k10 -`

type convertOptions struct {
	clusterOptions

	fromCluster bool
}

func newConvertCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "convert",
		GroupID: groupPolicies,
		Short:   "Write what K10 or Velero is told as what Backstay is told",
		Long:    strings.TrimSpace(convertHelp),
		Example: convertExample,
		Args:    subcommandOnly,
		RunE:    showHelp,
	}
	cmd.AddCommand(
		newConvertToolCommand(a, convert.K10, "Kasten K10: policies, location profiles, Blueprint bindings, and the Job that runs it before a sync"),
		newConvertToolCommand(a, convert.Velero, "Velero: Schedules, storage locations, and Backups and Restores that have not run"),
	)
	return cmd
}

func newConvertToolCommand(a *app, tool, what string) *cobra.Command {
	var o convertOptions
	cmd := &cobra.Command{
		Use:     tool + " FILE|DIR|-...",
		Short:   "Convert documents of " + what,
		Long:    exits(convertHelp, "3   something is missed: it has no counterpart here"),
		Example: convertExample,
		Args:    takes(0, -1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			return a.convert(ctx, tool, args, o)
		}),
	}
	cmd.Flags().BoolVar(&o.fromCluster, "cluster", false, "read the documents that are on the cluster")
	o.bind(cmd.Flags())
	return cmd
}

func (a *app) convert(ctx context.Context, tool string, files []string, o convertOptions) error {
	op := "convert from " + tool
	var objects []convert.Object
	var err error
	switch {
	case o.fromCluster && len(files) > 0:
		return fault.New(op, fault.ErrInvalid, "either files or --cluster", "")
	case o.fromCluster:
		objects, err = clusterObjects(ctx, tool, o.clusterOptions)
	case len(files) == 0:
		return fault.New(op, fault.ErrInvalid, "no files", "name files, directories, - for standard input, or say --cluster")
	default:
		objects, err = a.fileObjects(files)
	}
	if err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	r := convert.Convert(tool, objects, convert.Options{Namespace: o.namespace, Location: a.global.location})
	if len(r.Documents)+len(r.Entries) == 0 {
		return fault.New(op, fault.ErrNotFound, "no documents of "+tool, fmt.Sprintf("%d objects of other kinds were passed over", len(r.Passed)))
	}
	if err := a.tellConverted(r); err != nil {
		return err
	}
	if n := r.Dropped(); n > 0 {
		return fault.New(op, fault.ErrIncomplete, plural(int64(n), "thing has", "things have")+" no counterpart", "docs/convert.md says what there is instead")
	}
	return nil
}

// convertedDocument is what `convert --json` prints.
type convertedDocument struct {
	Version int `json:"version"`
	*convert.Result
}

// tellConverted writes the documents, and tells what changed. What is as it was is in the JSON document only.
func (a *app) tellConverted(r *convert.Result) error {
	if a.global.json {
		return a.document(convertedDocument{documentVersion, r})
	}
	if _, err := io.WriteString(a.Stdout, r.YAML()); err != nil {
		return unwritten(err)
	}
	if a.global.quiet {
		return nil
	}
	tell := func(format string, args ...any) { a.told.progress(message{Message: fmt.Sprintf(format, args...)}) }
	count := map[convert.Fate]int{}
	for _, e := range r.Entries {
		switch count[e.Fate]++; e.Fate {
		case convert.Changed:
			tell("%s", e.String())
		case convert.Dropped:
			a.told.notice("%s", e.String())
		}
	}
	for i, step := range r.Steps {
		tell("to do, %d: %s", i+1, step)
	}
	tell("%s; of what was read %d kept, %d changed, %d needless, %d dropped; %s passed over",
		plural(int64(len(r.Documents)), "document", "documents"), count[convert.Kept], count[convert.Changed], count[convert.Needless],
		count[convert.Dropped], plural(int64(len(r.Passed)), "object", "objects"))
	return nil
}

// fileObjects reads files, and the files in and below directories.
func (a *app) fileObjects(names []string) ([]convert.Object, error) {
	var all []convert.Object
	for _, name := range names {
		if name == "-" {
			found, err := convert.Read(a.Stdin)
			if err != nil {
				return nil, fault.Wrap("standard input", nil, err, "")
			}
			all = append(all, found...)
			continue
		}
		err := filepath.WalkDir(name, func(path string, e os.DirEntry, err error) error {
			switch {
			case err != nil:
				return fault.Wrap("", fault.ErrNotFound, err, "")
			case e.IsDir() && path != name && strings.HasPrefix(e.Name(), "."):
				return filepath.SkipDir
			case e.IsDir(), path != name && !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
				return nil
			}
			found, err := readObjects(path)
			all = append(all, found...)
			return fault.Wrap(path, nil, err, "")
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readObjects(path string) ([]convert.Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap("", fault.ErrNotFound, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return convert.Read(f)
}

// kindsOf are what a tool's documents are on a cluster. Jobs that run K10 before a sync are not read there: they are in git.
func kindsOf(tool string) []schema.GroupVersionKind {
	group, version, names := "config.kio.kasten.io", "v1alpha1", []string{"Profile", "Policy", "BlueprintBinding"}
	if tool == convert.Velero {
		group, version = "velero.io", "v1"
		names = []string{"BackupStorageLocation", "VolumeSnapshotLocation", "Schedule", "Backup", "Restore"}
	}
	var kinds []schema.GroupVersionKind
	for _, name := range names {
		kinds = append(kinds, schema.GroupVersionKind{Group: group, Version: version, Kind: name})
	}
	return kinds
}

// clusterObjects reads a tool's documents on a cluster.
func clusterObjects(ctx context.Context, tool string, o clusterOptions) ([]convert.Object, error) {
	cluster, err := kube.Connect(o.kubeconfig, o.context)
	if err != nil {
		return nil, err
	}
	var all []convert.Object
	for _, kind := range kindsOf(tool) {
		found, err := listObjects(ctx, cluster.Client, kind)
		if meta.IsNoMatchError(err) {
			continue // an older version, or not installed: that nothing was found is told
		}
		if err != nil {
			return nil, answer("list "+kind.Kind, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// listObjects lists a kind, a page at a time, and the ConfigMaps that its objects name.
func listObjects(ctx context.Context, from client.Client, kind schema.GroupVersionKind) ([]convert.Object, error) {
	const page, most = 500, 20_000
	var all []convert.Object
	list := &unstructured.UnstructuredList{}
	for {
		next := list.GetContinue()
		list = &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err := from.List(ctx, list, client.Limit(page), client.Continue(next)); err != nil {
			return nil, err
		}
		for i := range list.Items {
			all = append(all, list.Items[i].Object)
			modifier, err := namedModifier(ctx, from, &list.Items[i])
			if err != nil {
				return nil, err
			}
			all = append(all, modifier...)
		}
		if list.GetContinue() == "" {
			return all, nil
		}
		if len(all) > most {
			return nil, fault.New("", fault.ErrUnsupported, fmt.Sprintf("more than %d objects", most), "")
		}
	}
}

// namedModifier reads the ConfigMap of changes that a Restore names; none where it is not there.
func namedModifier(ctx context.Context, from client.Client, u *unstructured.Unstructured) ([]convert.Object, error) {
	name, _, _ := unstructured.NestedString(u.Object, "spec", "resourceModifier", "name")
	if name == "" {
		return nil, nil
	}
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
	if err := from.Get(ctx, client.ObjectKey{Namespace: u.GetNamespace(), Name: name}, found); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return []convert.Object{found.Object}, nil
}
