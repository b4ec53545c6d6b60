package config

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/policy"
)

// Severity says how much a finding matters.
type Severity string

// Severities. A file with an error does not run; with warnings it runs, and something is probably not as it was meant.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// Finding is something to be said about a file of gickup's: a quirk of how gickup reads it, or a fault that does not happen here.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"` // from 1; 0 where unknown
	Column   int      `json:"column,omitempty"`
	Path     string   `json:"path,omitempty"`
	Severity Severity `json:"severity"`
	Rule     string   `json:"rule"` // never changes its meaning
	Message  string   `json:"message"`
	Gickup   string   `json:"gickup,omitempty"`   // what gickup does
	Backstay string   `json:"backstay,omitempty"` // what Backstay does
}

// problem is the finding as native files would tell it.
func (f Finding) problem() Problem {
	return Problem{File: f.File, Line: f.Line, Column: f.Column, Path: f.Path, Message: f.Message}
}

// String is one line: place, severity, rule and message.
func (f Finding) String() string {
	p := f.problem()
	p.Message = fmt.Sprintf("%s: %s [%s]", f.Severity, pathed(f.Path, f.Message), f.Rule)
	p.Path = ""
	return p.String()
}

// Environment is what gickup's files depend on besides themselves.
type Environment struct {
	Lookup func(name string) (string, bool) // of environment variables, as os.LookupEnv
	Home   string                           // in place of ~
}

// Gickup is gickup's configuration, as it was read.
type Gickup struct {
	Files    []string
	env      Environment
	confs    []gickupDocument // those that say something
	findings []Finding
}

// gickupDocument is one document that says something.
type gickupDocument struct {
	*decoder
	conf   gickupConf
	file   string
	number int // in its file, from 1
}

// ReadGickup reads files as gickup does, all their documents. What is wrong with them is in Lint, and stops Policies; the error is
// about files that cannot be read.
func ReadGickup(env Environment, files ...string) (*Gickup, error) {
	g := &Gickup{env: env, Files: files}
	for _, file := range files {
		data, err := readFile(file)
		if err != nil {
			return nil, fault.Wrap("read configuration", pathClass(err), err, "")
		}
		g.read(file, data)
	}
	if len(g.confs) == 0 && g.failed() == nil {
		g.add(Finding{File: strings.Join(files, ", "), Severity: Error, Rule: "nothing-said", Message: "nothing is configured"})
	}
	g.judge()
	return g, nil
}

// Lint returns the findings, by place.
func (g *Gickup) Lint() []Finding {
	findings := slices.Clone(g.findings)
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(g.Files, a.File), slices.Index(g.Files, b.File)), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(findings)
}

// failed returns the findings that stop a run as an error, or nil.
func (g *Gickup) failed() error {
	var problems Problems
	for _, f := range g.Lint() {
		if f.Severity == Error {
			problems = append(problems, f.problem())
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fault.Wrap("", fault.ErrInvalid, problems, "backstay gickup --lint says more")
}

func (g *Gickup) add(f Finding) { g.findings = append(g.findings, f) }

func (g *Gickup) read(file string, data []byte) {
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		g.add(Finding{
			File: file, Line: 1, Column: 1, Severity: Warning, Rule: "byte-order-mark", Message: "the file begins with a byte order mark",
			Gickup: "ignores the first key", Backstay: "reads it",
		})
	}
	documents, broken := parse(file, data)
	if broken != nil {
		g.add(Finding{
			File: file, Line: broken.Line, Column: broken.Column, Severity: Error, Rule: "syntax", Message: broken.Message,
			Gickup: "ends, also when it runs on a schedule and the file was changed meanwhile", Backstay: "refuses the file; while it runs it goes on with what it has read before",
		})
	}
	g.emptyDocuments(documents)
	for _, doc := range documents {
		if doc.root == nil {
			continue
		}
		style := &lenient{}
		d := gickupDocument{decoder: newDecoder(file, style), file: file, number: doc.index + 1}
		if doc.root.Tag == "!!null" {
			g.add(d.finding(doc.root, Warning, "null-document", "a document that is null", "ends", "leaves it out"))
			continue
		}
		d.decode(doc.root, reflect.ValueOf(&d.conf).Elem(), "", 0)
		for _, p := range d.problems {
			g.add(Finding{
				File: p.File, Line: p.Line, Column: p.Column, Path: p.Path, Severity: Error, Rule: "type", Message: p.Message,
				Gickup: "ends", Backstay: "refuses the file",
			})
		}
		g.findings = append(g.findings, style.findings...)
		if !reflect.ValueOf(d.conf).IsZero() {
			g.confs = append(g.confs, d)
		}
	}
}

func pathed(path, message string) string {
	if path == "" {
		return message
	}
	return path + ": " + message
}

// emptyDocuments warns of the documents that gickup does not see, for an empty one ends its reading.
func (g *Gickup) emptyDocuments(documents []document) {
	for i, doc := range documents {
		rest := len(documents) - 1 - i
		if doc.root != nil || rest == 0 {
			continue
		}
		g.add(Finding{
			File: doc.file, Line: doc.line, Severity: Warning, Rule: "empty-document",
			Message: fmt.Sprintf("document %d is empty, and %d come after it", i+1, rest),
			Gickup:  "reads it as the end of the file: all documents after it are ignored", Backstay: "runs them",
		})
		return
	}
}

// finding makes a finding at a node.
func (d *decoder) finding(n *yaml.Node, s Severity, rule, message, gickup, backstay string) Finding {
	p := d.at(n, "", message)
	return Finding{File: p.File, Line: p.Line, Column: p.Column, Severity: s, Rule: rule, Message: message, Gickup: gickup, Backstay: backstay}
}

// lenient is the style of gickup's files: it reads what gickup reads, and notes where the two part.
type lenient struct{ findings []Finding }

func (l *lenient) unknown(d *decoder, key *yaml.Node, path string, known []string) {
	if strings.HasPrefix(key.Value, "x-") && !strings.Contains(path, ".") {
		return // by custom a place for anchors
	}
	message := "no such key" + didYouMean(key.Value, known)
	if strings.HasPrefix(path, "metrics.heartbeat.") {
		message += " (failure heartbeats of later versions of gickup are not read: a native file has start, success and failure)"
	}
	f := d.finding(key, Warning, "unknown-key", message, "ignores it without a word", "ignores it, too, and says so")
	if len(key.Value) <= maxKey {
		f.Path = path
	}
	l.findings = append(l.findings, f)
}

func (*lenient) null(*decoder, *yaml.Node, string) {}

func (*lenient) structure(*decoder, *yaml.Node, reflect.Value, map[string]bool, string) {}

// plainNumber is a number that every reader of YAML writes back as it stands.
var plainNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$|^[0-9.]+[eE][+-]?[0-9]+$`)

// numberLike is what gickup takes for a number, and writes back in another way when it is not plain.
var numberLike = regexp.MustCompile(`^[-+]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9]+|\.(inf|Inf|INF|nan|NaN|NAN))$`)

func (l *lenient) scalar(d *decoder, n *yaml.Node, into reflect.Value, path string) {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch into.Kind() {
	case reflect.String:
		if plain && numberLike.MatchString(n.Value) && !plainNumber.MatchString(n.Value) {
			f := d.finding(n, Warning, "number-as-text", "text that looks like a number: quotes make it plain",
				"writes the number in another way: 0123 becomes 83, 1.10 becomes 1.1", "takes it as it stands")
			f.Path = path
			l.findings = append(l.findings, f)
		}
		into.SetString(n.Value)
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.problem(n, path, "true or false is expected")
			return
		}
		into.SetBool(strings.EqualFold(n.Value, "true"))
	default:
		number, err := strconv.ParseInt(n.Value, 0, into.Type().Bits())
		if whole, fraction, found := strings.Cut(n.Value, "."); err != nil && found && strings.Trim(fraction, "0") == "" {
			number, err = strconv.ParseInt(whole, 10, into.Type().Bits())
		}
		if err != nil {
			d.problem(n, path, "a whole number is expected")
			return
		}
		into.SetInt(number)
	}
}

// lastActivity rewrites gickup's span, such as 1y2M3d4h30m, as a policy's: years, months, days, hours. What is less than an hour
// becomes one, so that no repository is left out that gickup takes. The empty span is "".
func lastActivity(text string) (string, error) {
	rest := strings.TrimSpace(text)
	var d policy.Duration
	for _, unit := range []struct {
		letter string
		into   *int
	}{{"y", &d.Years}, {"M", &d.Months}, {"d", &d.Days}} {
		before, after, found := strings.Cut(rest, unit.letter)
		if !found {
			continue
		}
		n, err := strconv.Atoi(before)
		if err != nil || n < 0 {
			return "", fmt.Errorf("a number is expected before %s", unit.letter)
		}
		*unit.into, rest = n, after
	}
	if rest != "" {
		hours, err := hoursOf(rest)
		if err != nil {
			return "", err
		}
		d.Hours = hours
	}
	if d.IsZero() {
		return "", nil
	}
	written := d.String()
	if _, err := policy.ParseDuration(written); err != nil {
		return "", fmt.Errorf("too long")
	}
	return written, nil
}
