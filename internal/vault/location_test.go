package vault

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

func TestParseLocation(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ raw, want string }{
		{"/srv/vault", "file:///srv/vault"},
		{"/srv//vault/../v", "file:///srv/v"},
		{"vault", "file://" + here + "/vault"},
		{"./a:b", "file://" + here + "/a:b"},
		{"a b", "file://" + here + "/a%20b"},
		{"/what?#%41", "file:///what%3F%23%2541"},
		{"file:///srv/a%20b", "file:///srv/a%20b"},
		{"s3://bucket", "s3://bucket"},
		{"s3://bucket/", "s3://bucket"},
		{"s3://bucket/a/b/", "s3://bucket/a/b"},
		{"s3://bucket/a?region=eu-1&endpoint=s3.example.com:9000&tls=false", "s3://bucket/a?endpoint=s3.example.com%3A9000&region=eu-1&tls=false"},
		{"gs://bucket/x", "gs://bucket/x"},
		{"azblob://box/x?account=acme", "azblob://box/x?account=acme"},
		{"sftp://ann@nas:2222/srv/vault", "sftp://ann@nas:2222/srv/vault"},
		{"sftp://[fe80::1]:22/v", "sftp://[fe80::1]:22/v"},
		{"webdav://host/dav/", "webdav://host/dav"},
		{"webdavs://host", "webdavs://host/"},
	}
	for _, test := range tests {
		l, err := ParseLocation(test.raw)
		if err != nil {
			t.Errorf("%s: %v", test.raw, err)
			continue
		}
		if l.String() != test.want {
			t.Errorf("%s: got %s, want %s", test.raw, l, test.want)
		}
	}
}

func TestParseLocationRefuses(t *testing.T) {
	tests := []struct{ raw, cause, hint string }{
		{"", "empty", "directory"},
		{"/", "root directory", ""},
		{"/a\x00b", "NUL", ""},
		{"file:///a%00b", "NUL", ""},
		{strings.Repeat("a", 5000), "longer", ""},
		{"file://srv/vault", "three slashes", "file:///path"},
		{"file:/srv", "slashes are missing", "file:///path"},
		{"file:///", "no directory", ""},
		{"file:///a?x=1", "unknown option", "takes no options"},
		{"s3:bucket", "slashes are missing", "s3://bucket"},
		{"s3:///prefix", "no bucket", "s3://bucket"},
		{"s3://bucket:9000/x", "port", "endpoint="},
		{"s3://bucket?enpoint=x", `unknown option "enpoint"`, "endpoint, region, tls"},
		{"s3://bucket?tls=maybe", "tls", ""},
		{"s3://bucket?region=a&region=b", "exactly one", ""},
		{"s3://bucket?endpoint=", "exactly one", ""},
		{"s3://bucket?endpoint=http://x", "endpoint", "tls=false"},
		{"s3://bucket#x", "fragment", "%23"},
		{"sftp://nas", "no directory", "sftp://user@host"},
		{"sftp://:22/x", "no host", ""},
		{"sftp://nas:0/x", "port", ""},
		{"sftp://nas:/x", "port", ""},
		{"sftp://nas:99999/x", "port", ""},
		{"sftp://nas:http/x", "not a valid URL", ""},
		{"http://host/x", "unknown scheme", "did you mean webdav://"},
		{"S3://bucket", "unknown scheme", "did you mean s3?"},
		{"gcs://bucket", "unknown scheme", "did you mean gs://"},
		{"ipfs://x", "unknown scheme", "known are a path, file, s3, gs, azblob, sftp, webdav, webdavs"},
	}
	for _, test := range tests {
		_, err := ParseLocation(test.raw)
		if !errors.Is(err, fault.ErrInvalid) || !strings.Contains(err.Error(), test.cause) {
			t.Errorf("%.60q: got %v, want invalid: %s", test.raw, err, test.cause)
		}
		if got := strings.Join(fault.Hints(err), " "); !strings.Contains(got, test.hint) {
			t.Errorf("%.60q: hint %q, want %q", test.raw, got, test.hint)
		}
	}
}

func TestSecretsInLocationsAreRefusedAndNotRepeated(t *testing.T) {
	tests := []struct{ raw, env string }{
		{"s3://AKIAXYZ:hunter22@bucket", "AWS_ACCESS_KEY_ID"},
		{"s3://hunter22@bucket", "AWS_ACCESS_KEY_ID"},
		{"s3://bucket?secret_key=hunter22", "AWS_SECRET_ACCESS_KEY"},
		{"s3://bucket?accessKeyID=hunter22", "AWS_ACCESS_KEY_ID"},
		{"s3://bucket?X-Amz-Signature=hunter22", "AWS_ACCESS_KEY_ID"},
		{"s3://AKIA:hun/ter22@bucket", ""},
		{"s3://bucket?endpoint=u:hunter22@host", ""},
		{"azblob://box?sig=hunter22", "AZURE_STORAGE_KEY"},
		{"azblob://box?sas_token=hunter22", "AZURE_STORAGE_KEY"},
		{"gs://bucket?credentials=hunter22", "GOOGLE_APPLICATION_CREDENTIALS"},
		{"sftp://ann:hunter22@host/x", "BACKSTAY_SFTP_PASSWORD"},
		{"sftp://ann:@host/x", "BACKSTAY_SFTP_PASSWORD"},
		{"webdavs://ann:hunter22@host/x", "BACKSTAY_WEBDAV_PASSWORD"},
	}
	for _, test := range tests {
		_, err := ParseLocation(test.raw)
		if !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: got %v, want invalid", test.raw, err)
			continue
		}
		said := err.Error() + strings.Join(fault.Hints(err), " ")
		if strings.Contains(said, "hunter") || strings.Contains(said, "hun/") || strings.Contains(said, "AKIA") {
			t.Errorf("%s: the error repeats the secret: %s", test.raw, said)
		}
		if !strings.Contains(said, test.env) {
			t.Errorf("%s: got %q, want a hint to %s", test.raw, said, test.env)
		}
	}
}

func FuzzParseLocation(f *testing.F) {
	for _, seed := range []string{
		"/", "/srv/vault", "vault", "file:///srv/a%20b", "s3://bucket/prefix?endpoint=host:9000&region=r&tls=false", "gs://b/p",
		"azblob://box/p?account=a", "sftp://ann@[::1]:22/v", "webdavs://host/dav", "s3://a:b@c", "s3:///", "file://%00", "://", "a:b",
		"s3://b//../..", "sftp://a%2Fb@h/x", "s3://b?endpoint=[::1]:9", "webdav://h/%2e%2e/%2F", "file:////a//b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		l, err := ParseLocation(raw)
		if err != nil {
			if !errors.Is(err, fault.ErrInvalid) {
				t.Fatalf("an error of another class: %v", err)
			}
			return
		}
		again, err := ParseLocation(l.String())
		if err != nil {
			t.Fatalf("%q gives %q, which is refused: %v", raw, l.String(), err)
		}
		if again != l {
			t.Fatalf("%q gives %q, which gives %q", raw, l.String(), again.String())
		}
		if l.Path() != "" && !filepath.IsAbs(l.Path()) {
			t.Fatalf("%q gives the relative path %q", raw, l.Path())
		}
	})
}

func TestDefaultPlaces(t *testing.T) {
	env := func(pairs map[string]string) func(string) string { return func(k string) string { return pairs[k] } }
	tests := []struct {
		env                map[string]string
		location, password string
	}{
		{map[string]string{"HOME": "/home/ann"}, "file:///home/ann/.local/share/backstay/vault", "/home/ann/.config/backstay/password"},
		{map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c"}, "file:///d/backstay/vault", "/c/backstay/password"},
		{map[string]string{"HOME": "/h", "XDG_DATA_HOME": "rel"}, "file:///h/.local/share/backstay/vault", "/h/.config/backstay/password"},
	}
	for _, test := range tests {
		l, err := DefaultLocation(env(test.env))
		if err != nil || l.String() != test.location {
			t.Errorf("%v: got %s, %v, want %s", test.env, l, err, test.location)
		}
		p, err := DefaultPasswordFile(env(test.env))
		if err != nil || p != test.password {
			t.Errorf("%v: got %s, %v, want %s", test.env, p, err, test.password)
		}
	}
	if _, err := DefaultLocation(env(nil)); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("without HOME: got %v, want invalid", err)
	}
}

func TestCredentialsComeFromTheEnvironment(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, "credentials")
	text := "[default]\naws_access_key_id = d1\naws_secret_access_key = d2\n[work]\naws_access_key_id = w1\naws_secret_access_key = w2\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		env  map[string]string
		want []string
		err  error
	}{
		{"none", nil, []string{"", "", ""}, nil},
		{"keys", map[string]string{"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}, []string{"k", "s", "t"}, nil},
		{"half", map[string]string{"AWS_ACCESS_KEY_ID": "k"}, nil, fault.ErrInvalid},
		{"file", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}, []string{"d1", "d2", ""}, nil},
		{"profile", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": "work"}, []string{"w1", "w2", ""}, nil},
		{"no such profile", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": "play"}, nil, fault.ErrInvalid},
		{"no such file", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file + "x"}, nil, fault.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := func(k string) string {
				if k == "HOME" {
					return home
				}
				return test.env[k]
			}
			o, err := s3Options(mustParse(t, "s3://b/p?endpoint=h:1&tls=false&region=r"), env)
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			if got := []string{o.AccessKeyID, o.SecretAccessKey, o.SessionToken}; !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if o.BucketName != "b" || o.Prefix != "p/" || o.Endpoint != "h:1" || o.Region != "r" || !o.DoNotUseTLS {
				t.Errorf("got %+v", o)
			}
		})
	}
}

func TestOpenDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		create     bool
		want       error
	}{
		{"missing", filepath.Join(dir, "missing"), false, fault.ErrNotFound},
		{"a file", file, false, fault.ErrInvalid},
		{"below a file", filepath.Join(file, "x"), true, fault.ErrInvalid},
		{"new", filepath.Join(dir, "a", "b"), true, nil},
		{"there", dir, false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			st, err := mustParse(t, test.path).storage(t.Context(), os.Getenv, test.create)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			if err := st.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(test.path); err != nil || test.create && info.Mode().Perm() != 0o700 {
				t.Errorf("got mode %v, %v, want 0700", info.Mode(), err)
			}
		})
	}
}

// Nothing listens on the port, so each provider finds out at once.
func TestUnreachableLocations(t *testing.T) {
	home := t.TempDir()
	for k, v := range map[string]string{
		"HOME": home, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_PROFILE": "", "BACKSTAY_SFTP_PASSWORD": "hunter22",
	} {
		t.Setenv(k, v)
	}
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{
		"s3://bucket/p?endpoint=127.0.0.1:1&tls=false&region=r", "sftp://ann@127.0.0.1:1/srv", "webdav://127.0.0.1:1/dav",
	} {
		t.Run(strings.SplitN(raw, ":", 2)[0], func(t *testing.T) {
			t.Parallel()
			_, err := mustParse(t, raw).storage(t.Context(), os.Getenv, false)
			if !errors.Is(err, fault.ErrUnavailable) {
				t.Errorf("got %v, want unavailable", err)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter22") || strings.Contains(err.Error(), "ClientConfig")) {
				t.Errorf("the error tells too much: %v", err)
			}
		})
	}
}

func mustParse(t *testing.T, raw string) Location {
	t.Helper()
	l, err := ParseLocation(raw)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
