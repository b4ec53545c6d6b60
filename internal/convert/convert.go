// Package convert writes what other tools' documents say as documents of Backstay: Policies, Profiles and BlueprintBindings of Kasten K10
// and the Job that runs it before a sync, and Schedules, storage locations, Backups and Restores of Velero. It reads documents only; where
// they come from is the caller's. Of every field it tells what became of it: what nothing has read is told as dropped.
package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
)

// Tools whose documents are read.
const (
	K10    = "k10"
	Velero = "velero"
)

// Options say where what is written goes.
type Options struct {
	Namespace string // Backstay's own, for all objects; default backstay-system
	Location  string // name of the Location of policies that name none; default main
}

// Fate is what became of a field.
type Fate string

// Fates. Only what is dropped is missed.
const (
	Kept     Fate = "kept"     // it is there under another name, and means the same
	Changed  Fate = "changed"  // it is there, and means something else, which is said
	Needless Fate = "needless" // it is not there, and is not missed
	Dropped  Fate = "dropped"  // there is nothing like it, or it could not be read
)

// Entry tells what became of one field of one object.
type Entry struct {
	Object  string `json:"object"`          // Schedule velero/nightly
	Field   string `json:"field,omitempty"` // spec.template.ttl; empty for the object as a whole
	Fate    Fate   `json:"fate"`
	Becomes string `json:"becomes,omitempty"` // spec.retention.within
	Why     string `json:"why,omitempty"`
}

// String is a line of a report.
func (e Entry) String() string {
	text := e.Object
	if e.Field != "" {
		text += ": " + e.Field
	}
	text += ": " + string(e.Fate)
	if e.Becomes != "" {
		text += ", becomes " + e.Becomes
	}
	if e.Why != "" {
		text += ": " + e.Why
	}
	return text
}

// Document is an object that was written.
type Document struct {
	From string `json:"from"` // the object that it was made of, as in Entry
	Kind string `json:"kind"`
	Name string `json:"name"`
	Text string `json:"text"` // YAML
}

// Result is what was written, and what there is to know of it.
type Result struct {
	Documents []Document `json:"documents"` // in the order in which they are applied
	Entries   []Entry    `json:"entries"`
	Steps     []string   `json:"steps"`  // what is left to do by hand, in order
	Passed    []string   `json:"passed"` // objects of kinds that are not read
}

// Dropped counts what is missed.
func (r *Result) Dropped() int {
	n := 0
	for _, e := range r.Entries {
		if e.Fate == Dropped {
			n++
		}
	}
	return n
}

// Convert writes what objects say, which may come in any order. What it cannot write is an entry of the result, never an error.
func Convert(tool string, objects []Object, o Options) *Result {
	c := &conversion{
		namespace: cmp.Or(o.Namespace, "backstay-system"), location: cmp.Or(o.Location, "main"),
		result: &Result{Documents: []Document{}, Entries: []Entry{}, Steps: []string{}, Passed: []string{}},
		names:  map[string]string{}, takenBy: map[string]string{}, ran: map[string]bool{},
		modifiers: map[string]*modifier{},
	}
	readers := c.k10Readers()
	if tool == Velero {
		readers = c.veleroReaders()
	}
	left := objects
	for _, r := range readers { // in this order: policies name locations, restores name policies
		var rest []Object
		for _, object := range left {
			if !r.reads(object) {
				rest = append(rest, object)
				continue
			}
			s := c.source(object)
			r.read(s)
			s.tellRest()
		}
		left = rest
	}
	for _, object := range left {
		c.result.Passed = append(c.result.Passed, object.String())
	}
	c.unusedModifiers()
	c.write()
	return c.result
}

// reader reads one kind.
type reader struct {
	reads func(Object) bool
	read  func(*source)
}

// kind recognises objects by group and kind, whatever their version.
func kind(group, kind string) func(Object) bool {
	return func(o Object) bool { return o.group() == group && o.text("kind") == kind }
}

// conversion is one call of Convert.
type conversion struct {
	namespace, location string
	result              *Result
	names               map[string]string // of what is written, by what it is made of
	takenBy             map[string]string // the inverse
	ran                 map[string]bool   // steps that are in the result
	locations           []made[*v1alpha1.Location]
	policies            []made[*v1alpha1.Policy]
	backups             []made[*v1alpha1.Backup]
	restores            []made[*v1alpha1.Restore]
	gates               []Document
	hookNamespaces      []string             // of those who were let run K10 before a sync
	modifiers           map[string]*modifier // by NAMESPACE/NAME of their ConfigMap
}

// made is an object with what it is made of.
type made[T any] struct {
	from   string
	object T
}

// step adds what is left to do, once.
func (c *conversion) step(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !c.ran[text] {
		c.ran[text] = true
		c.result.Steps = append(c.result.Steps, text)
	}
}

// write encodes everything. What our own reader refuses is not written: that it was is told.
func (c *conversion) write() {
	for _, m := range c.locations {
		c.encode(m.from, v1alpha1.KindLocation, m.object.Name, *m.object)
	}
	for _, m := range c.policies {
		c.encode(m.from, v1alpha1.KindPolicy, m.object.Name, *m.object)
	}
	for _, m := range c.backups {
		c.encode(m.from, v1alpha1.KindBackup, m.object.Name, *m.object)
	}
	for _, m := range c.restores {
		c.encode(m.from, v1alpha1.KindRestore, m.object.Name, *m.object)
	}
	c.result.Documents = append(c.result.Documents, c.gates...)
}

func (c *conversion) encode(from, kind, name string, object any) {
	data, err := config.Encode(object)
	if err == nil {
		err = config.Check(name+".yaml", data)
	}
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		c.result.Entries = append(c.result.Entries, Entry{Object: from, Fate: Dropped, Why: "what it becomes is not valid: " + first})
		return
	}
	c.result.Documents = append(c.result.Documents, Document{From: from, Kind: kind, Name: name, Text: string(data)})
}

// YAML is all documents, each below comments that say what it was made of, and what of that is not as it was.
func (r *Result) YAML() string {
	var b strings.Builder
	told := map[string]bool{}
	for _, d := range r.Documents {
		fmt.Fprintf(&b, "---\n# From %s.\n", printable(d.From))
		for _, e := range r.Entries {
			if e.Object == d.From && !told[d.From] && (e.Fate == Changed || e.Fate == Dropped) {
				e.Object = ""
				fmt.Fprintf(&b, "#   %s\n", printable(strings.TrimPrefix(e.String(), ": ")))
			}
		}
		told[d.From] = true
		b.WriteString(d.Text)
	}
	return b.String()
}

// printable is text of one line, of which no terminal and no reader of YAML makes anything else.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// name is what the object of a kind that is made of namespace/name is called: the same, if that is a name and no other has it.
func (c *conversion) name(kind, namespace, name string) string {
	key := strings.Join([]string{kind, namespace, name}, "/")
	if known, found := c.names[key]; found {
		return known
	}
	chosen := fit(name)
	for n := 2; c.takenBy[kind+"/"+chosen] != ""; n++ {
		chosen = fit(fmt.Sprintf("%s-%s", namespace, name))
		if n > 2 {
			chosen = fit(fmt.Sprintf("%d-%s", n, name))
		}
	}
	c.names[key], c.takenBy[kind+"/"+chosen] = chosen, key
	return chosen
}

// fit makes a name of text.
func fit(text string) string {
	const longest = 63
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, text)
	name = strings.Trim(name[:min(len(name), longest)], "-")
	return cmp.Or(name, "unnamed")
}

// meta fills what every object begins with, and tells of a name that had to change.
func (c *conversion) meta(s *source, kind string) (version, name string) {
	name = c.name(kind, s.namespace(), s.name())
	if name != s.name() {
		s.tell("metadata.name", Changed, "metadata.name: "+name, "names have lowercase letters, digits and dashes, and are there once in a namespace")
	}
	return v1alpha1.APIVersion, name
}

// plenty is a number with its noun.
func plenty(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// sorted is a sorted copy without repeats.
func sorted(words []string) []string { return slices.Compact(slices.Sorted(slices.Values(words))) }
