package cli

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// A point of GitHub's comes back on another GitHub: the plan sends nothing, and then it is done.
func TestRestoreOfMetadataToGitHub(t *testing.T) {
	h := newHub(t)
	id := h.capture()
	to := &githubtest.API{World: forgetest.NewWorld(h.clock.Now), Metadata: map[int64]*githubtest.Metadata{}}
	server := httptest.NewServer(to)
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(forgetest.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := []string{"restore", id, "--part", "tester/api/metadata", "--forge", "github", "--to", server.URL, "--git-token-file", token, "--metadata"}
	if exit := h.run(t.Context(), append(arguments, "--plan", "--json")...); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &h.stderr)
	}
	var plan planDocument
	if err := json.Unmarshal(h.stdout.Bytes(), &plan); err != nil || len(plan.Parts) != 1 || len(plan.Parts[0].Plan.Lines) == 0 {
		t.Fatalf("%v: %s", err, &h.stdout)
	}
	for _, line := range plan.Parts[0].Plan.Lines {
		if line.Field == "item.created" && (line.State != neutral.Kept || line.Count != 3) {
			t.Errorf("the plan says %+v", line)
		}
	}
	if all := to.World.All(); len(all) != 0 {
		t.Fatalf("the plan made %+v", all)
	}
	if exit := h.run(t.Context(), arguments...); exit != 0 {
		t.Fatalf("exit %d: %s", exit, &h.stderr)
	}
	made, _, found := to.World.ByName("tester/api")
	if !found {
		t.Fatal("there is no repository")
	}
	is := to.Metadata[made.ID]
	if len(is.Items) != 3 || is.Items[0].Title != "It breaks" || len(is.Comments) != 1 || len(is.Releases) != 1 {
		t.Fatalf("there are %+v", is)
	}
	if text, mark, _ := neutral.Unmark(is.Comments[0].Body); text != "as it was said" || mark.Author.Login != "ada" || mark.Forge != "github.com" {
		t.Errorf("the comment is %q of %+v", text, mark)
	}
	if string(is.Releases[0].Assets[0].Content) != "the first bytes" || is.Releases[0].Draft {
		t.Errorf("the release is %+v", is.Releases[0])
	}
	if !strings.Contains(h.stderr.String()+h.stdout.String(), "written") {
		t.Errorf("it tells %s%s", &h.stdout, &h.stderr)
	}
}
