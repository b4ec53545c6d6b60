package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

// Conversion is what Convert wrote.
type Conversion struct {
	Files   []string // native files
	Secrets []string // files of secrets that stood in gickup's configuration in clear
	// Flags of backstay run that say what gickup's configuration says about the process.
	Flags []string
}

// Convert writes the policies as native files into dir, one each, and below it, in secrets, a file of mode 0600 for each secret that
// stands in gickup's configuration in clear. Both directories are made where they are missing. A file that is there already is
// fault.ErrExists, what native files may not say is fault.ErrInvalid, and nothing is written then.
func (g *Gickup) Convert(dir string) (*Conversion, error) {
	op := "convert into " + dir
	policies, err := g.Policies()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	for _, p := range policies {
		if len(p.Spec.Exports)+len(p.Spec.Mirrors) == 0 && p.Spec.Location == "" {
			return nil, fault.New(op, fault.ErrInvalid, p.Name+" has no destination", "write its policy by hand, with a location")
		}
	}
	w := conversion{dir: dir, contents: map[string][]byte{}}
	for i := range policies {
		w.hide(reflect.ValueOf(&policies[i]).Elem(), policies[i].Name)
		data, err := Encode(policies[i])
		if err == nil {
			err = Check(policies[i].Name+".yaml", data)
		}
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "native files are read more strictly: mend this in gickup's file first")
		}
		w.Files = append(w.Files, w.add(policies[i].Name+".yaml", data))
	}
	if err := w.write(); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	w.Flags = g.Process().flags()
	return &w.Conversion, nil
}

// Check says what Load would refuse in a native file of this name. Its error is fault.ErrInvalid.
func Check(name string, data []byte) error {
	l := loader{set: &Set{}, places: map[string]Problem{}}
	l.read(name, data)
	_, err := l.finish()
	return err
}

// flags are those of backstay run.
func (p Process) flags() []string {
	var all []string
	add := func(name, value string) {
		if value != "" {
			all = append(all, name, value)
		}
	}
	add("--metrics-listen", p.Listen)
	add("--metrics-path", p.MetricsPath)
	add("--log-file", p.LogFile)
	if p.LogMaxAge > 0 {
		add("--log-max-age", strconv.Itoa(p.LogMaxAge)+"d")
	}
	add("--log-time-format", p.TimeFormat)
	return all
}

// conversion collects files before the first one is written.
type conversion struct {
	Conversion
	dir      string
	order    []string
	contents map[string][]byte
}

func (w *conversion) add(name string, data []byte) string {
	path := filepath.Join(w.dir, name)
	w.order = append(w.order, path)
	w.contents[path] = data
	return path
}

// hide moves secrets that are in clear into files, named for the policy and the field.
func (w *conversion) hide(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			w.hide(v.Elem(), name)
		}
	case reflect.Slice:
		for i := range v.Len() {
			w.hide(v.Index(i), fmt.Sprintf("%s-%d", name, i+1))
		}
	case reflect.Struct:
		if s, ok := v.Addr().Interface().(*v1alpha1.Secret); ok {
			if s.Value != "" {
				path := w.add(filepath.Join("secrets", name), []byte(s.Value+"\n"))
				w.Secrets = append(w.Secrets, path)
				*s = v1alpha1.Secret{File: path}
			}
			return
		}
		for _, f := range fieldsOf(v.Type()) {
			part := name
			if f.name != "spec" {
				part += "-" + strings.ToLower(f.name)
			}
			w.hide(v.FieldByIndex(f.index), part)
		}
	}
}

// write makes every file anew, and none where one of them is there.
func (w *conversion) write() error {
	for _, path := range w.order {
		if _, err := os.Lstat(path); err == nil {
			return fault.New("", fault.ErrExists, path+" is there already", "name a directory that is new or empty")
		}
	}
	for _, path := range w.order {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fault.Wrap("", pathClass(err), err, "")
		}
		if err := writeNew(path, w.contents[path]); err != nil {
			return fault.Wrap("", pathClass(err), err, "")
		}
	}
	return nil
}

func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
