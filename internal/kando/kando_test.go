package kando

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// session runs kando as a container would.
type session struct {
	env            map[string]string
	stdin          io.Reader
	stdout, stderr bytes.Buffer
}

func (s *session) run(ctx context.Context, args ...string) error {
	s.stdout.Reset()
	s.stderr.Reset()
	if s.stdin == nil {
		s.stdin = strings.NewReader("")
	}
	cmd := NewCommand(Options{
		Stdin: s.stdin, Stdout: &s.stdout, Stderr: &s.stderr, Clock: time.Now, Version: "test",
		Getenv: func(name string) string { return s.env[name] },
	})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&s.stdout)
	cmd.SetErr(&s.stderr)
	return cmd.ExecuteContext(ctx)
}

// kando runs one command that has to succeed, and returns what it printed.
func kando(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	s := &session{stdin: strings.NewReader(stdin)}
	if err := s.run(t.Context(), args...); err != nil {
		t.Fatalf("kando %s: %v", strings.Join(args, " "), err)
	}
	return s.stdout.String()
}

// refused runs one command that has to fail in a way.
func refused(t *testing.T, want error, stdin string, args ...string) error {
	t.Helper()
	s := &session{stdin: strings.NewReader(stdin)}
	err := s.run(t.Context(), args...)
	if !errors.Is(err, want) {
		t.Fatalf("kando %s: %v, want %v", strings.Join(args, " "), err, want)
	}
	return err
}

// inline is a profile as Blueprints render it.
func inline(t *testing.T, d Document) string {
	t.Helper()
	b, err := json.Marshal(d)
	must(t, err)
	return string(b)
}

func TestOutput(t *testing.T) {
	t.Parallel()
	if got, want := kando(t, "", "output", "path", `a "b" <c>`), `###Phase-output###: {"key":"path","value":"a \"b\" \u003cc\u003e"}`+"\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	for _, args := range [][]string{{"output", "a-b", "x"}, {"output", "", "x"}, {"output", "a"}, {"output", "a", "b", "c"}, {"speak"}, {"location", "x"}} {
		refused(t, fault.ErrInvalid, "", args...)
	}
}

func TestProfileComesInManyWays(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "profile.json")
	document := `{"location":{"type":"s3Compliant","bucket":"b"},"credential":{"type":"keyPair","keyPair":{"id":"i","secret":"s"}}}`
	must(t, os.WriteFile(file, []byte(document), 0o600))
	published := `{"Location":{"type":"s3Compliant","bucket":"b","endpoint":"","prefix":"","region":""},"Credential":{"Type":"keyPair",` +
		`"KeyPair":{"ID":"i","Secret":"s"},"Secret":null,"KopiaServerSecret":null},"SkipSSLVerify":false}`
	tests := []struct {
		name, flag string
		env        map[string]string
	}{
		{"inline", document, nil},
		{"as published", published, nil},
		{"at a file", "@" + file, nil},
		{"a file", file, nil},
		{"named inside", fmt.Sprintf(`{"Location":{},"Credential":{"Type":"file","Path":%q}}`, file), nil},
		{"environment", "", map[string]string{"KANDO_PROFILE": document}},
		{"environment names a file", "", map[string]string{"KANDO_PROFILE": "@" + file}},
		{"file of the environment", "", map[string]string{"KANDO_PROFILE_FILE": file}},
		{"the flag goes first", document, map[string]string{"KANDO_PROFILE": "{}"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, err := readProfile(test.flag, func(name string) string { return test.env[name] })
			must(t, err)
			if d.Location.Bucket != "b" || d.Credential.Type != CredentialKeyPair || d.Credential.KeyPair.ID != "i" || d.Credential.KeyPair.Secret != "s" {
				t.Errorf("read %+v", d)
			}
		})
	}
}

func TestWrongProfilesAreRefusedInSilence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop.json")
	must(t, os.WriteFile(loop, fmt.Appendf(nil, `{"credential":{"type":"file","path":%q}}`, loop), 0o600))
	key := `"keyPair":{"id":"i","secret":"hunter22"}`
	tests := []struct {
		name, profile string
		want          error
	}{
		{"none", "", fault.ErrInvalid},
		{"no JSON", `{"credential":{` + key, fault.ErrInvalid},
		{"of another type", `{"credential":["hunter22"]}`, fault.ErrInvalid},
		{"a file that is not there", "@" + filepath.Join(dir, "absent"), fault.ErrNotFound},
		{"a file that names itself", "@" + loop, fault.ErrInvalid},
		{"no type", `{"credential":{"type":"keyPair",` + key + `}}`, fault.ErrInvalid},
		{"unknown type", `{"location":{"type":"tape","bucket":"b"},"credential":{"type":"keyPair",` + key + `}}`, fault.ErrUnsupported},
		{"no bucket", `{"location":{"type":"s3Compliant"},"credential":{"type":"keyPair",` + key + `}}`, fault.ErrInvalid},
		{"no credential", `{"location":{"type":"s3Compliant","bucket":"b"},"credential":{"type":"keyPair"}}`, fault.ErrInvalid},
		{"secret of another cloud", `{"location":{"type":"s3Compliant","bucket":"b"},"credential":{"type":"secret","secret":{"type":"secrets.kanister.io/gcp"}}}`, fault.ErrInvalid},
		{"endpoint of a file", `{"location":{"type":"s3Compliant","bucket":"b","endpoint":"file:///x"},"credential":{"type":"keyPair",` + key + `}}`, fault.ErrInvalid},
		{"vault without one", `{"location":{"type":"kopia"},"credential":{"type":"vault"}}`, fault.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, command := range []string{"push", "pull", "delete"} {
				args := []string{"location", command, "--profile", test.profile, "--path", "x"}
				if command != "delete" {
					args = append(args, "-")
				}
				if err := refused(t, test.want, "data", args...); strings.Contains(err.Error(), "hunter22") {
					t.Errorf("the secret shows: %v", err)
				}
			}
		})
	}
}

func FuzzProfile(f *testing.F) {
	f.Add([]byte(`{"location":{"type":"gcs"},"credential":{"type":"secret","secret":{"type":"secrets.kanister.io/gcp","data":{"a":"YQ=="}}}}`))
	f.Add([]byte(`{"credential":{"type":"vault"},"vault":{"url":"s3://b/p","credentials":{"A":"b"},"subject":{"kind":"k","name":"n"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeProfile(b)
		if err != nil {
			return
		}
		_ = d.redact(errors.New("x"))
		env := func(string) string { return "" }
		if s, err := Open(*d, env); err == nil {
			_ = s.Write(canceled(), "x", strings.NewReader(""))
		}
		_, _ = newVaultPlace(&tool{}, d)
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestProfileFileIsOnlyOurs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	name := filepath.Join(root, "backstay-1", "profile.json")
	for range 2 {
		kando(t, `{"location":{"type":"gcs"}}`, "profile", "put", name)
		info, err := os.Stat(name)
		must(t, err)
		dir, err := os.Stat(filepath.Dir(name))
		must(t, err)
		if info.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
			t.Errorf("modes %v %v", info.Mode(), dir.Mode())
		}
	}
	for range 2 {
		kando(t, "", "profile", "drop", name)
		if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
	must(t, os.Mkdir(filepath.Join(root, "open"), 0o777))
	must(t, os.Chmod(filepath.Join(root, "open"), 0o777))
	must(t, os.Symlink(t.TempDir(), filepath.Join(root, "link")))
	for _, dir := range []string{"open", "link"} {
		refused(t, fault.ErrDenied, "{}", "profile", "put", filepath.Join(root, dir, "profile.json"))
	}
	refused(t, fault.ErrInvalid, "secret", "profile", "put", name)
	refused(t, fault.ErrInvalid, strings.Repeat(" ", maxProfile+1), "profile", "put", name)
}
