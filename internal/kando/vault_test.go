package kando

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// newVault makes a vault on the disk and a profile that leads to it.
func newVault(t *testing.T) Document {
	t.Helper()
	dir := t.TempDir()
	location, err := vault.ParseLocation(dir)
	must(t, err)
	must(t, vault.Create(t.Context(), location, "correct horse", vault.Options{}))
	return Document{
		Location: Location{Type: TypeKopia, Bucket: "home"}, Credential: Credential{Type: CredentialVault},
		Vault: &Vault{URL: dir, Password: "correct horse", Subject: point.Subject{Kind: "artifact", Name: "shop/db"}, Policy: "nightly"},
	}
}

func inVault(t *testing.T, d Document, do func(v *vault.Vault)) {
	t.Helper()
	location, err := vault.ParseLocation(d.Vault.URL)
	must(t, err)
	v, err := vault.Open(t.Context(), location, fault.Secret(d.Vault.Password), vault.Options{})
	must(t, err)
	do(v)
	must(t, v.Close(t.Context()))
}

func pointsOf(t *testing.T, d Document) (points []point.Point) {
	t.Helper()
	inVault(t, d, func(v *vault.Vault) {
		var err error
		points, err = v.Points(t.Context(), point.Filter{})
		must(t, err)
	})
	return points
}

// printed reads the output that push printed.
func printed(t *testing.T, line, key string) (value string, made snapshot) {
	t.Helper()
	var output struct{ Key, Value string }
	document, found := strings.CutPrefix(line, "###Phase-output###: ")
	if !found || strings.Count(line, "\n") != 1 {
		t.Fatalf("printed %q", line)
	}
	must(t, json.Unmarshal([]byte(document), &output))
	must(t, json.Unmarshal([]byte(output.Value), &made))
	if output.Key != key {
		t.Errorf("the key is %q, want %q", output.Key, key)
	}
	return output.Value, made
}

func newTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"logs/gickup.log": "done\n", "github.com/acme/api.zip": "PK", "empty": ""} {
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o750))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640))
	}
	must(t, os.Symlink("logs", filepath.Join(dir, "link")))
	return dir
}

// tree is what lies below a directory, by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(dir, name)
		must(t, err)
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(name)
			must(t, err)
			all[rel] = string(b)
		case e.Type() == fs.ModeSymlink:
			all[rel], err = os.Readlink(name)
			must(t, err)
		default:
			all[rel] = "/"
		}
		return nil
	}))
	return all
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %q, want %q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d names %v, want %d", len(got), got, len(want))
	}
}

// TestPushesAreSignedWithTheKeyOfTheContainer, where it was given one; evidence says which were not.
func TestPushesAreSignedWithTheKeyOfTheContainer(t *testing.T) {
	t.Parallel()
	d := newVault(t)
	key := evidence.NewKey()
	push := func(env map[string]string) (stderr string) {
		t.Helper()
		s := &session{env: env, stdin: strings.NewReader("select 1;")}
		must(t, s.run(t.Context(), "location", "push", "-p", inline(t, d), "-s", "dump.sql", "-"))
		return s.stderr.String()
	}
	if said := push(nil); said != "" {
		t.Errorf("without a key it says %q", said)
	}
	push(map[string]string{envEvidenceKey: string(key.PEM())})
	if said := push(map[string]string{envEvidenceKey: "no key"}); !strings.Contains(said, "evidence is not signed: "+envEvidenceKey) {
		t.Errorf("with what is no key it says %q", said)
	}
	inVault(t, d, func(v *vault.Vault) {
		e, err := v.Evidence(t.Context())
		must(t, err)
		r := e.Report([]evidence.PublicKey{key.Public()})
		if len(r.Faults) > 0 || r.Statements != 3 || r.Signers[key.Public().ID()] != 1 || len(r.Unsigned) != 2 {
			t.Errorf("report %+v", r)
		}
		if len(r.Notes) == 0 || !strings.HasSuffix(r.Notes[0], "of shop/db/dump.sql committed by backstay kando test") {
			t.Errorf("notes %q", r.Notes)
		}
	})
}

// TestPushWhileThePasswordIsChanged: the profile has both passwords from before the change until after it.
func TestPushWhileThePasswordIsChanged(t *testing.T) {
	t.Parallel()
	d := newVault(t)
	changing := d
	changing.Vault = &Vault{}
	*changing.Vault = *d.Vault
	changing.Vault.OtherPassword = "battery staple"
	push := func() { kando(t, "select 1;", "location", "push", "-p", inline(t, changing), "-s", "dump.sql", "-") }
	push()
	inVault(t, d, func(v *vault.Vault) { must(t, v.ChangePassword(t.Context(), "battery staple")) })
	push()
	refused(t, fault.ErrDenied, "select 1;", "location", "push", "-p", inline(t, d), "-s", "dump.sql", "-")
}

func TestPushMakesAPointOfItsOwn(t *testing.T) {
	t.Parallel()
	d := newVault(t)
	profile, dir := inline(t, d), newTree(t)
	value, made := printed(t, kando(t, "", "location", "push", "--profile", profile, "--path", "home/gickup-backups", "--output-name", "kopiaOutput", dir), "kopiaOutput")
	stream, _ := printed(t, kando(t, "select 1;", "location", "push", "-p", profile, "-s", "/../dump.sql", "-"), "kandoOutput")

	points := pointsOf(t, d)
	if len(points) != 2 || points[1].ID != made.ID || points[1].Subject.Name != "shop/db/home/gickup-backups" || points[0].Subject.Name != "shop/db/dump.sql" ||
		points[1].State != point.Complete || points[1].Policy != "nightly" || made.LogicalSize != 7 || made.PhysicalSize == 0 {
		t.Errorf("printed %+v; points %+v", made, points)
	}
	to := filepath.Join(t.TempDir(), "new")
	kando(t, "", "location", "pull", "-p", profile, "-s", "/backups", "--kopia-snapshot", value, to)
	same(t, tree(t, to), tree(t, dir))
	over := newTree(t) // as the article restores: over what is there
	must(t, os.WriteFile(filepath.Join(over, "empty"), []byte("written since"), 0o600))
	must(t, os.WriteFile(filepath.Join(over, "logs", "new"), []byte("since, too"), 0o600))
	must(t, os.Remove(filepath.Join(over, "link")))
	kando(t, "", "location", "pull", "-p", profile, "-k", value, over)
	want := tree(t, dir)
	want["logs/new"] = "since, too"
	same(t, tree(t, over), want)
	if got := kando(t, "", "location", "pull", "-p", profile, "-s", "gickup/empty", "-k", value, "-"); got != "" {
		t.Errorf("one file of the tree is %q", got)
	}
	if got := kando(t, "", "location", "pull", "-p", profile, "-s", "dump.sql", "-k", stream, "-"); got != "select 1;" {
		t.Errorf("the stream is %q", got)
	}
	file := filepath.Join(t.TempDir(), "dump.sql")
	kando(t, "", "location", "pull", "-p", profile, "-s", "dump.sql", "-k", stream, file)
	if got, err := os.ReadFile(file); err != nil || string(got) != "select 1;" {
		t.Errorf("the file is %q, %v", got, err)
	}
	for range 2 {
		kando(t, "", "location", "delete", "-p", profile, "-s", "x", "-k", value)
	}
	if points := pointsOf(t, d); len(points) != 1 || points[0].Subject.Name != "shop/db/dump.sql" {
		t.Errorf("points %+v", points)
	}
	refused(t, fault.ErrNotFound, "", "location", "pull", "-p", profile, "-k", value, to)
	refused(t, fault.ErrInvalid, "", "location", "pull", "-p", profile, to)
	refused(t, fault.ErrInvalid, "", "location", "pull", "-p", profile, "-k", "{}", to)
}

func TestPushOfABackupIsAPartOfItsPoint(t *testing.T) {
	t.Parallel()
	d := newVault(t)
	d.Vault.Subject = point.Subject{Kind: point.SubjectApplication, Name: "cluster/shop"}
	d.Vault.Part, d.Vault.Mark = "artifacts/db/backup", "uid 1"
	dir := newTree(t)
	kando(t, "", "location", "push", "-p", inline(t, d), "-s", "tree", dir)
	must(t, os.WriteFile(filepath.Join(dir, "empty"), []byte("no more"), 0o600)) // a phase that is run again pushes what is there then
	value, made := printed(t, kando(t, "", "location", "push", "-p", inline(t, d), "-s", "tree", dir), "kandoOutput")
	_, dump := printed(t, kando(t, "select 1;", "location", "push", "-p", inline(t, d), "-s", "dump", "-"), "kandoOutput")
	if made.ID != "artifacts/db/backup/tree" || dump.ID != "artifacts/db/backup/dump" || len(pointsOf(t, d)) != 0 {
		t.Fatalf("printed %+v and %+v; points %v", made, dump, pointsOf(t, d))
	}
	shards := []protect.Shard{
		{Name: made.ID, Kind: point.KindVolume, Mark: "uid 1 " + made.ID}, {Name: dump.ID, Kind: kindStream, Mark: "uid 1 " + dump.ID},
	}
	inVault(t, d, func(v *vault.Vault) {
		r, err := protect.Backup(t.Context(), v, protect.Composed(d.Vault.Subject, time.Now(), shards), d.Vault.Policy)
		must(t, err)
		d.Vault.Point = r.Point.ID
	})
	to := filepath.Join(t.TempDir(), "new")
	kando(t, "", "location", "pull", "-p", inline(t, d), "-k", value, to)
	same(t, tree(t, to), tree(t, dir))
	if got := kando(t, "", "location", "pull", "-p", inline(t, d), "-k", `{"id":"`+dump.ID+`"}`, "-"); got != "select 1;" {
		t.Errorf("the stream is %q", got)
	}
	kando(t, "", "location", "delete", "-p", inline(t, d), "-k", value)
	refused(t, fault.ErrRefused, "", "location", "delete", "-p", inline(t, d), "-k", `{"id":"`+d.Vault.Point+`"}`)
	if len(pointsOf(t, d)) != 1 {
		t.Error("the point is gone")
	}
	d.Vault.Point = ""
	refused(t, fault.ErrNotFound, "", "location", "pull", "-p", inline(t, d), "-k", value, to+"2")
}

func TestNothingIsListedOfAPushThatFailed(t *testing.T) {
	t.Parallel()
	d := newVault(t)
	s := &session{stdin: broken(10<<20, fault.ErrUnavailable)}
	if err := s.run(t.Context(), "location", "push", "-p", inline(t, d), "-s", "x", "-"); err == nil || s.stdout.Len() > 0 {
		t.Errorf("a stream that broke: %v, printed %q", err, s.stdout.String())
	}
	refused(t, fault.ErrNotFound, "", "location", "push", "-p", inline(t, d), "-s", "x", filepath.Join(t.TempDir(), "absent"))
	if points := pointsOf(t, d); len(points) > 0 {
		t.Errorf("points %+v", points)
	}
	d.Vault.Password = "battery staple"
	err := refused(t, fault.ErrDenied, "x", "location", "push", "-p", inline(t, d), "-s", "x", "-")
	if strings.Contains(err.Error(), "staple") {
		t.Errorf("the password shows: %v", err)
	}
}
