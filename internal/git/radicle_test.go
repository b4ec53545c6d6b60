package git

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
)

// fakeRad does as little of rad's work as a copy needs: an identity, repositories with a payload, and who vouches for them. It keeps
// its passphrase to itself, and wants it.
const fakeRad = `#!/bin/sh
set -e
[ "$RAD_PASSPHRASE" = "open sesame" ] || { echo "wrong passphrase $RAD_PASSPHRASE" >&2; exit 1; }
echo "$*" >> "$RAD_HOME/log"
case "$1 $2" in
"self --nid") echo z6MkNode ;;
"self --home") echo "$RAD_HOME" ;;
"init "*)
	for arg; do case "$arg" in
		--description=*) description=${arg#--description=} ;;
		--default-branch=*) branch=${arg#--default-branch=} ;;
	esac; done
	git --git-dir=. rev-parse --quiet --verify "refs/heads/$branch" > /dev/null || { echo "no branch $branch" >&2; exit 1; }
	id=zCopy$(ls "$RAD_HOME/storage" | wc -l | tr -d ' ' | tr 0 9)
	git init --quiet --bare "$RAD_HOME/storage/$id"
	printf '{"xyz.radicle.project":{"description":"%s"}}' "$description" > "$RAD_HOME/storage/$id/payload"
	echo "did:key:z6MkNode (me)" > "$RAD_HOME/storage/$id/delegates"
	echo "rad:$id" > rid ;;
". "*) cat rid ;;
"inspect rad:"*) cat "$RAD_HOME/storage/${2#rad:}/${3#--}" ;;
*) echo "what is $*" >&2; exit 1 ;;
esac
`

// fakeHelper hands git's own protocol on to the repository that rad made.
const fakeHelper = `#!/bin/sh
address=${2#rad://}
unset GIT_DIR
while read -r line; do case "$line" in
capabilities) echo connect; echo ;;
"connect git-"*) echo; exec git "${line#connect git-}" "$RAD_HOME/storage/${address%%/*}" ;;
"") exit 0 ;;
esac; done
`

// radicle is a node without repositories.
type radicle struct {
	t    *testing.T
	home string
	env  []string
}

func newRadicle(t *testing.T) *radicle {
	t.Helper()
	bin, home := t.TempDir(), t.TempDir()
	for name, script := range map[string]string{"rad": fakeRad, "git-remote-rad": fakeHelper} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(home, "storage"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &radicle{t, home, []string{
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + home, "RAD_HOME=" + home, "RAD_PASSPHRASE=open sesame",
	}}
}

// push pushes a new point of a repository, as a run of its own does.
func (r *radicle) push(b *bench, o RadicleOptions, what RadicleRepository) (*RadicleReport, error) {
	r.t.Helper()
	o.Scratch = b.o.Scratch
	if o.Env == nil {
		o.Env = r.env
	}
	return NewRadicle(o).Push(r.t.Context(), b.part(b.backup().Point.ID), what)
}

// refs are those of the copy with an ID.
func (r *radicle) refs(id string) string {
	r.t.Helper()
	said, err := runGit(r.t.Context(), filepath.Join(r.home, "storage", strings.TrimPrefix(id, "rad:")), "", "for-each-ref", "--format=%(objectname) %(refname)")
	if err != nil {
		r.t.Fatal(err)
	}
	return said
}

func (r *radicle) log() string {
	b, err := os.ReadFile(filepath.Join(r.home, "log"))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func TestRadicleKeepsOneCopyOfASource(t *testing.T) {
	r := newRadicle(t)
	s := newRepo(t)
	s.commit("refs/heads/trunk", "a", "1")
	s.git("symbolic-ref", "HEAD", "refs/heads/trunk")
	s.git("tag", "v1", "refs/heads/trunk")
	s.git("update-ref", "refs/pull/7/head", "refs/heads/trunk")
	b := newBench(t, s.dir)
	what := RadicleRepository{Source: "https://github.com/acme/api", Name: "api", Description: "an\nAPI", Private: true}

	first, err := r.push(b, RadicleOptions{}, what)
	if err != nil || !first.New {
		t.Fatalf("new: %+v, %v", first, err)
	}
	heads := func() string {
		return s.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
	}
	if got := r.refs(first.ID); got != heads() {
		t.Errorf("the copy has\n%s\nwant\n%s", got, heads())
	}
	wanted := "init --name=api --description=an; API (mirror of https://github.com/acme/api) --default-branch=trunk --private --no-confirm\n"
	if log := r.log(); !strings.Contains(log, wanted) {
		t.Errorf("rad was asked\n%s\nwant %s", log, wanted)
	}

	if again, err := r.push(b, RadicleOptions{}, what); err != nil || again.ID != first.ID || again.New || !again.Unchanged {
		t.Errorf("nothing new: %+v, %v", again, err)
	}
	s.commit("refs/heads/trunk", "b", "2")
	s.git("update-ref", "refs/heads/more", "refs/heads/trunk")
	if again, err := r.push(b, RadicleOptions{}, what); err != nil || again.ID != first.ID || again.Unchanged {
		t.Errorf("something new: %+v, %v", again, err)
	}
	if got := r.refs(first.ID); got != heads() {
		t.Errorf("the copy has\n%s\nwant\n%s", got, heads())
	}

	what.Source = "https://github.com/umbrella/api"
	if other, err := r.push(b, RadicleOptions{}, what); err != nil || !other.New || other.ID == first.ID {
		t.Errorf("the same name of another owner: %+v, %v", other, err)
	}
}

func TestRadicleOverwritesAndDeletesOnlyWhenAsked(t *testing.T) {
	r := newRadicle(t)
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	s.git("branch", "gone", "main")
	b := newBench(t, s.dir)
	what := RadicleRepository{Source: "https://github.com/acme/api", Name: "api"}
	first, err := r.push(b, RadicleOptions{}, what)
	if err != nil {
		t.Fatal(err)
	}
	before := s.git("rev-parse", "main")
	s.git("update-ref", "refs/heads/main", s.commitOn("", "c", "another history"))
	s.git("update-ref", "-d", "refs/heads/gone")

	_, err = r.push(b, RadicleOptions{}, what)
	if !errors.Is(err, fault.ErrIncomplete) || !strings.Contains(err.Error(), "refs/heads/main") {
		t.Errorf("rewritten: %v", err)
	}
	if got := r.refs(first.ID); !strings.Contains(got, before+" refs/heads/main") {
		t.Errorf("overwritten without force: %s", got)
	}
	if _, err := r.push(b, RadicleOptions{Force: true}, what); err != nil {
		t.Error(err)
	}
	if got := r.refs(first.ID); strings.Contains(got, before+" refs/heads/main") || !strings.Contains(got, "refs/heads/gone") {
		t.Errorf("forced: %s", got)
	}
	if _, err := r.push(b, RadicleOptions{Prune: true}, what); err != nil {
		t.Error(err)
	}
	if got := r.refs(first.ID); strings.Contains(got, "refs/heads/gone") {
		t.Errorf("pruned: %s", got)
	}
}

func TestRadicleTakesNoEmptyRepository(t *testing.T) {
	r := newRadicle(t)
	report, err := r.push(newBench(t, newRepo(t).dir), RadicleOptions{}, RadicleRepository{Source: "https://x/y", Name: "y"})
	if err != nil || report.ID != "" || len(report.Notes) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestRadicleFindsCopiesThatItMadeItself(t *testing.T) {
	r := newRadicle(t)
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	what := RadicleRepository{Source: "https://github.com/acme/api", Name: "api"}
	stranger := filepath.Join(r.home, "storage", "zStranger")
	for name, content := range map[string]string{
		"payload":   `{"xyz.radicle.project":{"description":"(mirror of https://github.com/acme/api)"}}`,
		"delegates": "did:key:z6MkSomebodyElse\n",
	} {
		if err := os.MkdirAll(stranger, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(stranger, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if report, err := r.push(b, RadicleOptions{}, what); err != nil || !report.New {
		t.Errorf("somebody else's copy was taken for ours: %+v, %v", report, err)
	}
}

func TestRadicleSaysWhatIsMissing(t *testing.T) {
	r := newRadicle(t)
	s := newRepo(t)
	s.commit("refs/heads/main", "a", "1")
	b := newBench(t, s.dir)
	what := RadicleRepository{Source: "https://github.com/acme/api", Name: "api"}
	_, err := r.push(b, RadicleOptions{Env: []string{"PATH=" + t.TempDir()}}, what)
	if !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(err.Error(), "rad is not installed") || len(fault.Hints(err)) == 0 {
		t.Errorf("without rad: %v", err)
	}
	env := append(r.env, "RAD_PASSPHRASE=hunter22")
	if _, err := r.push(b, RadicleOptions{Env: env}, what); err == nil || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("with a wrong passphrase: %v", err)
	}
}

func FuzzSourceIn(f *testing.F) {
	f.Add(`{"xyz.radicle.project":{"description":"x (mirror of https://a/b)"}}`)
	f.Add(`{"xyz.radicle.project":{"description":"(mirror of "},"dev.gickup":{"source":"https://a/b"}}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, payload string) {
		if source := sourceIn(payload); len(source) > 3*len(payload) {
			t.Errorf("%q from %q", source, payload)
		}
	})
}
