// Package config reads what users declare: native files, strictly, and gickup's conf.yml, with what has to be said about it. Both
// give the objects of api/v1alpha1.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Set is what a set of files declares.
type Set struct {
	Locations []v1alpha1.Location // by name
	Policies  []v1alpha1.Policy   // by name
	Files     []string            // that were read
	// Notes are no errors, but should be read: what was left out, and what is declared and probably not meant.
	Notes []Problem
}

// Location finds a location by its name.
func (s *Set) Location(name string) (v1alpha1.Location, bool) {
	i := slices.IndexFunc(s.Locations, func(l v1alpha1.Location) bool { return l.Name == name })
	if i < 0 {
		return v1alpha1.Location{}, false
	}
	return s.Locations[i], true
}

// Load reads files, and of directories every .yaml, .yml and .json file in them (not below), in order of their names. Whatever is
// wrong is found at once: the error is a fault.ErrInvalid that holds Problems. A path that cannot be read is fault.ErrNotFound or
// fault.ErrDenied.
func Load(paths ...string) (*Set, error) {
	const op = "read configuration"
	l := loader{set: &Set{}, places: map[string]Problem{}}
	for _, path := range paths {
		files, err := l.files(path)
		if err != nil {
			return nil, fault.Wrap(op, pathClass(err), err, "")
		}
		for _, file := range files {
			data, err := readFile(file)
			if err != nil {
				return nil, fault.Wrap(op, pathClass(err), err, "")
			}
			l.read(file, data)
		}
	}
	return l.finish()
}

// pathClass is the class of an error of the file system.
func pathClass(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return fault.ErrDenied
	default:
		return fault.ErrInvalid
	}
}

// readFile reads a file up to one byte more than is taken, so that parse sees that it is too large.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// loader collects objects over files, so that they can be checked against each other.
type loader struct {
	set      *Set
	problems Problems
	places   map[string]Problem // where an object was declared, by kind and name
	policies []declared
}

// declared is a policy with the decoder that knows its places.
type declared struct {
	policy *v1alpha1.Policy
	at     *decoder
}

// kinds are all that files may hold; run takes the first two, a cluster all of them.
func kinds() []string {
	return []string{
		v1alpha1.KindLocation, v1alpha1.KindPolicy, v1alpha1.KindBackup, v1alpha1.KindRestorePoint, v1alpha1.KindRestore, v1alpha1.KindGate,
		v1alpha1.KindDrill,
	}
}

// files lists the files that a path means. Entries that begin with a dot are left out: Kubernetes mounts a ConfigMap as symbolic
// links into such directories.
func (l *loader) files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(name) // follows links
		switch {
		case err != nil:
			return nil, err
		case info.IsDir() && holdsFiles(name):
			l.set.Notes = append(l.set.Notes, Problem{File: name, Message: "a directory in a directory: its files are not read"})
		case !info.IsDir() && isNative(name):
			files = append(files, name)
		}
	}
	return files, nil
}

// isNative goes by the ending of a file's name.
func isNative(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name)))
}

// holdsFiles reports whether a directory has files that would have been read. One that cannot be looked into may have some.
func holdsFiles(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return isNative(e.Name()) })
}

func (l *loader) read(file string, data []byte) {
	l.set.Files = append(l.set.Files, file)
	documents, broken := parse(file, data)
	if broken != nil {
		l.problems = append(l.problems, *broken)
	}
	for _, d := range documents {
		if d.root != nil {
			l.object(d)
		}
	}
}

// object reads one document.
func (l *loader) object(doc document) {
	d := newDecoder(doc.file, strict{})
	version, kind := headOf(doc.root)
	group, _, _ := strings.Cut(version, "/")
	switch {
	case doc.root.Kind != yaml.MappingNode:
		d.problem(doc.root, "", "%s where an object is expected", kindWords(doc.root))
	case version == "" && looksLikeGickup(doc.root):
		d.problem(doc.root, "", "this is gickup's configuration: run it with backstay gickup, or rewrite it with backstay gickup --convert DIR")
	case version == "":
		d.problem(doc.root, "apiVersion", "missing: apiVersion: %s", v1alpha1.APIVersion)
	case group != v1alpha1.Group:
		note := d.at(doc.root, "", fmt.Sprintf("left out: an object of %s is not for Backstay", version))
		l.set.Notes = append(l.set.Notes, note)
	case version != v1alpha1.APIVersion:
		d.problem(doc.root, "apiVersion", "this program reads %s", v1alpha1.APIVersion)
	case kind == v1alpha1.KindLocation:
		var object v1alpha1.Location
		if fill(d, doc.root, &object) {
			l.declare(d, kind, object.ObjectMeta)
			l.set.Locations = append(l.set.Locations, object)
		}
	case kind == v1alpha1.KindPolicy:
		var object v1alpha1.Policy
		if fill(d, doc.root, &object) {
			l.declare(d, kind, object.ObjectMeta)
			l.policies = append(l.policies, declared{&object, d})
		}
	case kind == v1alpha1.KindBackup:
		var object v1alpha1.Backup
		if fill(d, doc.root, &object) {
			l.forCluster(d, doc, kind, object.ObjectMeta, func(c *checker) { c.backup(&object.Spec) })
		}
	case kind == v1alpha1.KindRestorePoint:
		var object v1alpha1.RestorePoint
		if fill(d, doc.root, &object) {
			l.forCluster(d, doc, kind, object.ObjectMeta, func(*checker) {})
		}
	case kind == v1alpha1.KindRestore:
		var object v1alpha1.Restore
		if fill(d, doc.root, &object) {
			l.forCluster(d, doc, kind, object.ObjectMeta, func(c *checker) { c.restore(&object.Spec) })
		}
	case kind == v1alpha1.KindGate:
		var object v1alpha1.Gate
		if fill(d, doc.root, &object) {
			l.forCluster(d, doc, kind, object.ObjectMeta, func(*checker) {})
		}
	case kind == v1alpha1.KindDrill:
		var object v1alpha1.Drill
		if fill(d, doc.root, &object) {
			l.forCluster(d, doc, kind, object.ObjectMeta, func(*checker) {})
		}
	default:
		d.problem(doc.root, "kind", "files declare %s%s", list(kinds()), didYouMean(kind, kinds()))
	}
	l.problems = append(l.problems, d.problems...)
}

// fill decodes an object and judges its fields.
func fill(d *decoder, root *yaml.Node, object any) bool {
	return d.decode(root, reflect.ValueOf(object).Elem(), "", 0)
}

// forCluster checks an object that only a cluster does something with.
func (l *loader) forCluster(d *decoder, doc document, kind string, meta metav1.ObjectMeta, check func(*checker)) {
	l.declare(d, kind, meta)
	check(&checker{decoder: d})
	l.set.Notes = append(l.set.Notes, d.at(doc.root, "", "left out: a "+kind+" is for a cluster: kubectl apply"))
}

// declare notes the place of an object. Two of one kind, namespace and name are an error.
func (l *loader) declare(d *decoder, kind string, meta metav1.ObjectMeta) {
	if meta.Name == "" {
		return
	}
	here := d.at(d.node("metadata.name"), "metadata.name", "")
	id := strings.Join([]string{kind, meta.Namespace, meta.Name}, "/")
	if first, found := l.places[id]; found {
		d.problem(d.node("metadata.name"), "metadata.name", "%s %s is declared at %s:%d, too", kind, meta.Name, first.File, first.Line)
		return
	}
	l.places[id] = here
}

// finish checks the objects against each other and puts them in order.
func (l *loader) finish() (*Set, error) {
	byName := func(a, b metav1.ObjectMeta) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
	}
	slices.SortStableFunc(l.set.Locations, func(a, b v1alpha1.Location) int { return byName(a.ObjectMeta, b.ObjectMeta) })
	slices.SortStableFunc(l.policies, func(a, b declared) int { return byName(a.policy.ObjectMeta, b.policy.ObjectMeta) })
	for i, p := range l.policies {
		c := checker{decoder: p.at}
		known := len(p.at.problems)
		c.policy(p.policy, l.set)
		if i > 0 && runsHere(p.policy) && l.policies[i-1].policy.Name == p.policy.Name {
			c.wrong("metadata.name", "another namespace has a Policy of this name, and a run knows no namespaces")
		}
		l.problems = append(l.problems, p.at.problems[known:]...)
		l.set.Notes = append(l.set.Notes, c.notes...)
		l.set.Policies = append(l.set.Policies, *p.policy)
	}
	if len(l.problems) > 0 {
		return nil, fault.Wrap("", fault.ErrInvalid, l.problems.sort(), "")
	}
	l.set.Notes = Problems(l.set.Notes).sort()
	return l.set, nil
}

// headOf reads what an object says it is.
func headOf(n *yaml.Node) (version, kind string) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "apiVersion":
			version = n.Content[i+1].Value
		case "kind":
			kind = n.Content[i+1].Value
		}
	}
	return version, kind
}

// looksLikeGickup recognises a file that was meant for another command.
func looksLikeGickup(n *yaml.Node) bool {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; key == "source" || key == "destination" {
			return true
		}
	}
	return false
}
