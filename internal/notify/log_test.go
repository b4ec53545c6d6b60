package notify_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
)

// leaky is a value that shows a secret when it is printed.
type leaky struct {
	Name  string
	Inner *struct{ Token string }
}

// lazy is one that shows it when it is asked for its value.
type lazy struct{ secret string }

func (l lazy) LogValue() slog.Value {
	return slog.GroupValue(slog.String("token", l.secret), slog.Any("list", []string{l.secret}))
}

func TestNoSecretIsLogged(t *testing.T) {
	const key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAsecretsecretsecret\nq7Bsecretsecretsecretsecret==\n-----END RSA PRIVATE KEY-----\n"
	secrets := []fault.Secret{"hunter22", `pa"ss<wo\rd & more`, "https://hc-ping.com/5f3c-uuid", "hunter22-and-longer", key, "", "abc"}
	for _, json := range []bool{false, true} {
		var out bytes.Buffer
		var known notify.Secrets
		log := notify.NewLogger(&out, notify.LogOptions{JSON: json, Level: slog.LevelDebug, Secrets: &known})
		log.Info("abc is before hunter22 is known") // also the zero value works
		out.Reset()
		known.Add(secrets...)
		for _, secret := range secrets[:5] {
			s := secret.Reveal()
			value := leaky{"n", &struct{ Token string }{s}}
			log.Info("message "+s, "string", s, "error", fmt.Errorf("get %s: %w", s, errors.New(s)), "any", value, "pointer", &value) //nolint:sloglint // what a careless line does
			log.With("with", s).WithGroup(s).With("in group", []string{s}).Warn("x", s, "as a key", "lazy", lazy{s})
			log.Error("x", "group", slog.GroupValue(slog.String("a", s), slog.Group("b", "c", []byte(s), "d", map[string]string{s: s})))
			log.Debug("x", "secret", secret, "stringer", bytes.NewBufferString(s), "number", 12345, "time", began)
		}
		text := out.String()
		for _, secret := range secrets[:5] {
			for line := range strings.Lines(strings.TrimSpace(secret.Reveal())) {
				for _, way := range []string{strings.TrimSpace(line), strings.Trim(fmt.Sprintf("%q", line), `"`)} {
					if len(way) > 0 && !strings.Contains(way, "-----") && strings.Contains(text, way) {
						t.Errorf("json %v: %q is shown in\n%s", json, way, text)
					}
				}
			}
		}
		if strings.Contains(text, "longer") || !strings.Contains(text, "12345") || !strings.Contains(text, "[secret]") {
			t.Errorf("json %v: too much is masked, or too little:\n%s", json, text)
		}
	}
}

func TestMask(t *testing.T) {
	var s notify.Secrets
	s.Add("p@ss word", "p@ss word and more")
	s.Add("other")
	for text, want := range map[string]string{
		"p@ss word":                         "[secret]",
		"p@ss word and more":                "[secret]",
		"https://u:p%40ss%20word@host/":     "https://u:[secret]@host/",
		"?password=p%40ss+word":             "?password=[secret]",
		"nothing here, but abc and another": "nothing here, but abc and an[secret]",
	} {
		if got := s.Mask(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Whatever field a report has, secrets are masked in it, unless it is listed here as a name.
func TestMaskRun(t *testing.T) {
	names := []string{"Policy", "State", "Kind", "Name", "Type", "Point", "Host", "Owner", "Class"}
	var run point.Run
	fill(reflect.ValueOf(&run).Elem(), "see hunter22")
	before := fmt.Sprintf("%+v", run)
	var s notify.Secrets
	s.Add("hunter22")
	masked := s.MaskRun(run)
	walk(reflect.ValueOf(masked), "", func(field, text string) {
		if strings.Contains(text, "hunter22") != slices.Contains(names, field) {
			t.Errorf("%s is %q", field, text)
		}
	})
	if fmt.Sprintf("%+v", run) != before {
		t.Error("the report itself was changed")
	}
}

// fill sets every string below v, in one element of each list.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), text)
			}
		}
	default:
	}
}

// walk visits every string below v.
func walk(v reflect.Value, field string, visit func(field, text string)) {
	switch v.Kind() {
	case reflect.String:
		visit(field, v.String())
	case reflect.Pointer:
		walk(v.Elem(), field, visit)
	case reflect.Slice:
		walk(v.Index(0), field, visit)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				walk(v.Field(i), v.Type().Field(i).Name, visit)
			}
		}
	default:
	}
}

func TestSecretsAreSafeForConcurrentUse(t *testing.T) {
	var s notify.Secrets
	log := notify.NewLogger(&bytes.Buffer{}, notify.LogOptions{Secrets: &s})
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for j := range 50 {
				s.Add(fault.Secret(fmt.Sprintf("secret-%d-%d", i, j)))
				log.Info("x", "n", j)
			}
		})
	}
	wait.Wait()
	if got := s.Mask("secret-7-49"); got != "[secret]" {
		t.Errorf("got %q", got)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("hunter22", "before", "after")
	f.Add("a\nb\"c\\d", "\xff", "%")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		var s notify.Secrets
		s.Add(fault.Secret(secret))
		masked := s.Mask(before + secret + after)
		if len(secret) >= 4 && !strings.Contains(before+"[secret]"+after, secret) && strings.Contains(masked, secret) {
			t.Errorf("%q is shown in %q", secret, masked)
		}
	})
}

func TestTimeFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands still, so that no year or month ends between a line and what is wanted
		for _, test := range []struct{ layout, want string }{
			{"2006", "time=" + fmt.Sprint(time.Now().Year()) + " level=INFO msg=hello n=1\n"},
			{"at Jan", `time="at ` + time.Now().Format("Jan") + `" level=INFO msg=hello n=1` + "\n"},
		} {
			var out bytes.Buffer
			notify.NewLogger(&out, notify.LogOptions{TimeFormat: test.layout}).Info("hello", "n", 1)
			if out.String() != test.want {
				t.Errorf("got %q, want %q", out.String(), test.want)
			}
		}
	})
}

func TestLinesInJSONAreThoseOfScripting(t *testing.T) {
	var out bytes.Buffer
	log := notify.NewLogger(&out, notify.LogOptions{JSON: true, TimeFormat: "now"})
	log.Warn("a token expires", "policy", "nightly")
	log.Error("it expired")
	want := `{"time":"now","level":"warning","message":"a token expires","version":1,"policy":"nightly"}` + "\n" +
		`{"time":"now","level":"error","message":"it expired","version":1}` + "\n"
	if out.String() != want {
		t.Errorf("got %s, want %s", out.String(), want)
	}
}

// files lists a directory with the sizes of its files.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		all = append(all, fmt.Sprintf("%s %d", e.Name(), info.Size()))
	}
	return all
}

func write(t *testing.T, l *notify.LogFile, line string) {
	t.Helper()
	if n, err := l.Write([]byte(line)); err != nil || n != len(line) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestLogFileIsRotatedBySize(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "logs"), began
	l, err := notify.OpenLogFile(notify.LogFileOptions{
		Dir: dir, Name: "backstay.log", MaxSize: 10, Now: func() time.Time { now = now.Add(time.Hour); return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, line := range []string{"12345\n", "678\n", "9\n", "a line longer than the file may be\n", "x\n"} {
		write(t, l, line)
	}
	want := []string{
		"backstay-2026-01-31T15-00-00.000.log 10", "backstay-2026-01-31T16-00-00.000.log 2", "backstay-2026-01-31T17-00-00.000.log 35",
		"backstay.log 2",
	}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogFileIsRotatedByAge(t *testing.T) {
	dir, now := t.TempDir(), began
	for name, text := range map[string]string{
		"gickup.log": "left by gickup\n", "gickup-2026-01-01T10-00-00.000.log": "old", "gickup-2026-01-01T10-00-00.000.log.gz": "old",
		"gickup-2026-01-30T10-00-00.000.log": "young", "gickup-notes.log": "mine", "other-2026-01-01T10-00-00.000.log": "mine",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), began, began); err != nil {
			t.Fatal(err)
		}
	}
	l, err := notify.OpenLogFile(notify.LogFileOptions{Dir: dir, Name: "gickup.log", MaxAge: 3 * 24 * time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, "first day\n")
	for range 4 {
		now = now.Add(24 * time.Hour)
		write(t, l, "next day\n")
	}
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{
		"gickup-2026-02-01T12-00-00.000.log", "gickup-2026-02-02T12-00-00.000.log",
		"gickup-2026-02-03T12-00-00.000.log", "gickup-2026-02-04T12-00-00.000.log", "gickup-notes.log", "gickup.log",
		"other-2026-01-01T10-00-00.000.log",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	first, err := os.ReadFile(filepath.Join(dir, "gickup-2026-02-01T12-00-00.000.log"))
	if err != nil || string(first) != "left by gickup\nfirst day\n" {
		t.Errorf("%q, %v", first, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "gickup.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A log that cannot be set aside goes on, whatever stands in its way, and is mended when that is gone.
func TestLogFileGoesOn(t *testing.T) {
	dir := t.TempDir()
	now := began
	l, err := notify.OpenLogFile(notify.LogFileOptions{Dir: dir, Name: "a.log", MaxSize: 5, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, "12345")
	blocked := filepath.Join(dir, "a-2026-01-31T12-00-00.000.log")
	if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o700); err != nil { // no file can take the name of a directory
		t.Fatal(err)
	}
	write(t, l, "678")
	if text, err := os.ReadFile(filepath.Join(dir, "a.log")); err != nil || string(text) != "12345678" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	write(t, l, "9")
	if got, want := files(t, dir), []string{"a-2026-01-31T12-00-00.000.log 8", "a.log 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOpenLogFileSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", "../a.log", "b/a.log", "."} {
		_, err := notify.OpenLogFile(notify.LogFileOptions{Dir: dir, Name: name, Now: time.Now})
		if err == nil {
			t.Errorf("%q: no error", name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := notify.OpenLogFile(notify.LogFileOptions{Dir: filepath.Join(dir, "file"), Name: "a.log", Now: time.Now}); !errors.Is(err, fault.ErrRefused) {
		t.Errorf("got %v", err)
	}
}
