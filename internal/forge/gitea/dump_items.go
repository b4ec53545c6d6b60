package gitea

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// The items of the files, as restore-repo reads them: its YAML has names in lower case where it does not say otherwise.
type (
	dumpLabel struct {
		Name        string `json:"name"`
		Color       string `json:"color"`
		Description string `json:"description"`
		Exclusive   bool   `json:"exclusive,omitempty"` // its own validation does not know it
	}
	dumpMilestone struct {
		Title       string     `json:"title"`
		Description string     `json:"description"`
		Deadline    *time.Time `json:"deadline"`
		Created     time.Time  `json:"created"`
		Updated     *time.Time `json:"updated"`
		Closed      *time.Time `json:"closed"`
		State       string     `json:"state"`
	}
	dumpReaction struct {
		UserID  int64  `json:"user_id"`
		User    string `json:"user_name"`
		Content string `json:"content"`
	}
	dumpAsset struct {
		Name      string    `json:"name"`
		Size      int64     `json:"size"`
		Downloads int64     `json:"download_count"`
		Created   time.Time `json:"created"`
		Updated   time.Time `json:"updated"`
		URL       string    `json:"download_url"`
	}
	dumpRelease struct {
		Tag            string      `json:"tag_name"`
		Target         string      `json:"target_commitish"`
		Name           string      `json:"name"`
		Body           string      `json:"body"`
		Draft          bool        `json:"draft"`
		Prerelease     bool        `json:"prerelease"`
		PublisherID    int64       `json:"publisher_id"`
		PublisherName  string      `json:"publisher_name"`
		PublisherEmail string      `json:"publisher_email"`
		Assets         []dumpAsset `json:"assets"`
		Created        time.Time   `json:"created"`
		Published      time.Time   `json:"published"`
	}
	// dumpPoster is what issues, pull requests and comments have of their author.
	dumpPoster struct {
		ID    int64  `json:"poster_id"`
		Name  string `json:"poster_name"`
		Email string `json:"poster_email"`
	}
	dumpItem struct {
		dumpPoster
		Number    int64          `json:"number"`
		Title     string         `json:"title"`
		Content   string         `json:"content"`
		Milestone string         `json:"milestone"`
		State     string         `json:"state"`
		Locked    bool           `json:"is_locked"`
		Created   time.Time      `json:"created"`
		Updated   time.Time      `json:"updated"`
		Closed    *time.Time     `json:"closed"`
		Labels    []dumpLabel    `json:"labels"`
		Reactions []dumpReaction `json:"reactions"`
		Assignees []string       `json:"assignees"`
	}
	dumpBranch struct {
		Ref   string `json:"ref"`
		OID   string `json:"sha"`
		Name  string `json:"repo_name"`
		Owner string `json:"owner_name"`
	}
	dumpPull struct {
		dumpItem
		Foreign  int64      `json:"foreignindex"` // by which comments and reviews are found
		Patch    string     `json:"patch_url"`
		Merged   bool       `json:"merged"`
		MergedAt *time.Time `json:"merged_time"`
		MergeOID string     `json:"merge_commit_sha"`
		Head     dumpBranch `json:"head"`
		Base     dumpBranch `json:"base"`
		Draft    bool       `json:"is_draft"`
	}
	dumpComment struct {
		dumpPoster
		Item      int64          `json:"issue_index"`
		Index     int64          `json:"index"`
		Type      string         `json:"comment_type"`
		Created   time.Time      `json:"created"`
		Updated   time.Time      `json:"updated"`
		Content   string         `json:"content"`
		Reactions []dumpReaction `json:"reactions"`
	}
	dumpReview struct {
		ID           int64               `json:"id"`
		Item         int64               `json:"issue_index"`
		ReviewerID   int64               `json:"reviewer_id"`
		ReviewerName string              `json:"reviewer_name"`
		OID          string              `json:"commit_id"`
		Content      string              `json:"content"`
		Created      time.Time           `json:"created_at"`
		State        string              `json:"state"`
		Comments     []dumpReviewComment `json:"comments"`
	}
	dumpReviewComment struct {
		ID       int64     `json:"id"`
		Content  string    `json:"content"`
		Path     string    `json:"tree_path"`
		Hunk     string    `json:"diff_hunk"`
		Position int       `json:"position"`
		Line     int64     `json:"line"` // negative on the old side
		OID      string    `json:"commit_id"`
		PosterID int64     `json:"poster_id"`
		Created  time.Time `json:"created_at"`
		Updated  time.Time `json:"updated_at"`
	}
)

// yamlOf writes JSON on one line. YAML readers refuse some characters that JSON takes as they are; those are escaped.
func yamlOf(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	var escaped []byte
	for _, r := range b.String() {
		if r >= 0x7f && r < 0xa0 || r >= 0xfdd0 && r < 0xfdf0 || r == 0xfeff || r&0xfffe == 0xfffe {
			escaped = fmt.Appendf(escaped, `\U%08x`, r)
			continue
		}
		escaped = append(escaped, string(r)...)
	}
	return escaped, nil
}

// emptyPatch stands for the patches of all pull requests: restore-repo fails without a file, and what it makes of one nobody reads.
const emptyPatch = "empty.patch"

// items writes issues, discussions as such, and pull requests, and what belongs to each.
func (d *dumper) items(ctx context.Context, labels map[string]dumpLabel) (err error) {
	var issues, pulls *dumpFile
	defer func() {
		for _, f := range []*dumpFile{issues, pulls} {
			if f != nil {
				err = errors.Join(err, f.close())
			}
		}
	}()
	if err := d.numberApart(ctx); err != nil {
		return err
	}
	for item, err := range d.Source.Items(ctx) {
		if err != nil {
			return err
		}
		if item.Pull == nil {
			err = d.into(&issues, "issue.yml", item, labels)
		} else {
			item.Number += d.shift
			err = d.into(&pulls, "pull_request.yml", item, labels)
		}
		if err != nil {
			return err
		}
	}
	for talk, err := range d.Source.Discussions(ctx) {
		if err != nil {
			return err
		}
		talk.Comments = flat(talk.Comments)
		if err := d.into(&issues, "issue.yml", &talk.Item, labels); err != nil {
			return err
		}
	}
	if pulls == nil {
		return nil
	}
	return d.touch(emptyPatch)
}

// numberApart finds by how much the numbers of merge requests grow, which GitLab has apart from those of issues.
func (d *dumper) numberApart(ctx context.Context) error {
	if d.Forge != "gitlab" {
		return nil
	}
	for item, err := range d.Source.Items(ctx) {
		if err != nil {
			return err
		}
		if item.Pull == nil {
			d.shift = max(d.shift, item.Number)
		}
	}
	return nil
}

// flat are comments with their replies behind them.
func flat(all []*neutral.Comment) (found []*neutral.Comment) {
	for _, c := range all {
		found = append(append(found, c), flat(c.Replies)...)
	}
	return found
}

// into adds an item to a file, which is made with the first of them.
func (d *dumper) into(file **dumpFile, name string, item *neutral.Item, labels map[string]dumpLabel) (err error) {
	if *file == nil {
		if *file, err = d.create(name); err != nil {
			return err
		}
	}
	return d.item(*file, item, labels)
}

func (d *dumper) touch(name string) error {
	f, err := d.create(name)
	if err != nil {
		return err
	}
	return f.close()
}

func (d *dumper) item(file *dumpFile, item *neutral.Item, labels map[string]dumpLabel) error {
	w := dumpItem{
		dumpPoster: d.poster(item.Origin, item.Author), Number: item.Number, Title: item.Title, Content: d.moveFiles(item.Body), Milestone: item.Milestone,
		State: stateWord(item.Closed), Locked: item.Locked, Created: item.Created, Updated: cmp.Or(item.Updated, item.Created),
		Closed: moment(item.ClosedAt), Labels: []dumpLabel{}, Reactions: d.reactions(item.Origin, item.Reactions), Assignees: []string{},
	}
	for _, name := range item.Labels {
		w.Labels = append(w.Labels, labels[name])
	}
	for _, u := range item.Assignees {
		w.Assignees = append(w.Assignees, userName(u))
	}
	if err := d.comments(item); err != nil {
		return err
	}
	if item.Pull == nil {
		d.report.Issues++
		return file.item(w)
	}
	d.report.Pulls++
	p, err := d.pull(w, item)
	if err != nil {
		return err
	}
	return errors.Join(d.reviews(item), file.item(p))
}

func (d *dumper) poster(o neutral.Origin, u neutral.User) dumpPoster {
	return dumpPoster{d.userID(o, u), userName(u), u.Email}
}

func (d *dumper) reactions(o neutral.Origin, all []neutral.Reaction) []dumpReaction {
	found := []dumpReaction{}
	for _, r := range all {
		found = append(found, dumpReaction{d.userID(o, r.User), userName(r.User), r.Content})
	}
	return found
}

// happened are Gitea's words for the events that restore-repo can make.
var happened = map[string]string{
	"closed": "close", "reopened": "reopen", "merged": "merge_pull", "locked": "lock", "unlocked": "unlock", "pinned": "pin", "unpinned": "unpin",
}

// comments writes comments and events, by their dates.
func (d *dumper) comments(item *neutral.Item) error {
	var all []dumpComment
	for _, c := range item.Comments {
		d.report.Comments++
		all = append(all, dumpComment{
			dumpPoster: d.poster(c.Origin, c.Author), Item: item.Number, Type: "comment", Content: d.moveFiles(c.Body), Created: c.Created,
			Updated: cmp.Or(c.Updated, c.Created), Reactions: d.reactions(c.Origin, c.Reactions),
		})
	}
	for _, e := range item.Events {
		if word, ok := happened[e.Kind]; ok {
			all = append(all, dumpComment{
				dumpPoster: d.poster(item.Origin, e.Actor), Item: item.Number, Type: word, Created: e.Created, Updated: e.Created, Reactions: []dumpReaction{},
			})
		}
	}
	slices.SortStableFunc(all, func(a, b dumpComment) int { return a.Created.Compare(b.Created) })
	items := make([]any, len(all))
	for i := range all {
		all[i].Index = int64(i + 1)
		items[i] = all[i]
	}
	return d.list(fmt.Sprintf("comments/%d.yml", item.Number), items)
}

// pull writes both branches as the repository's own, for forks are not in the dump. The head of an open one from a fork becomes a
// branch of its own.
func (d *dumper) pull(w dumpItem, item *neutral.Item) (dumpPull, error) {
	owner, name, _ := strings.Cut(d.Repository, "/")
	p := item.Pull
	head := p.Head
	if p.HeadRepository != d.Repository && !item.Closed && !p.Merged {
		var err error
		if head, err = d.branchOf(item); err != nil {
			return dumpPull{}, err
		}
	}
	w.Updated = cmp.Or(item.Updated, item.Created)
	return dumpPull{
		dumpItem: w, Foreign: item.Number, Patch: emptyPatch, Merged: p.Merged, MergedAt: moment(p.MergedAt), MergeOID: p.MergeOID, Draft: p.Draft,
		Head: dumpBranch{head, p.HeadOID, name, owner}, Base: dumpBranch{p.Base, p.BaseOID, name, owner},
	}, nil
}

// reviewStates are restore-repo's words. A dismissed one must not count, so it comments. Pending ones are nobody's but their authors'.
var reviewStates = map[string]string{
	"approved": "APPROVED", "changes_requested": "CHANGES_REQUESTED", "commented": "COMMENTED", "dismissed": "COMMENTED",
}

// reviews writes those of a pull request. Gitea takes a review's author for that of all in it, so what others answered in it becomes
// reviews of theirs.
func (d *dumper) reviews(item *neutral.Item) error {
	var all []any
	for _, r := range item.Pull.Reviews {
		state, ok := reviewStates[r.State]
		if !ok {
			continue
		}
		d.report.Reviews++
		own := d.review(item.Number, r.Origin, state, r.OID, d.moveFiles(r.Body))
		others := map[string]*dumpReview{}
		order := []*dumpReview{own}
		for _, thread := range r.Comments {
			for _, c := range append([]*neutral.Comment{thread}, thread.Replies...) {
				of := own
				if c.Author.Login != r.Author.Login {
					if others[c.Author.Login] == nil {
						others[c.Author.Login] = d.review(item.Number, c.Origin, "COMMENTED", r.OID, "")
						order = append(order, others[c.Author.Login])
					}
					of = others[c.Author.Login]
				}
				of.Comments = append(of.Comments, d.reviewComment(c, thread.Code))
			}
		}
		for _, w := range order {
			w.ID = int64(len(all) + 1)
			all = append(all, *w)
		}
	}
	return d.list(fmt.Sprintf("reviews/%d.yml", item.Number), all)
}

func (d *dumper) review(number int64, o neutral.Origin, state, oid, body string) *dumpReview {
	return &dumpReview{
		Item: number, ReviewerID: d.userID(o, o.Author), ReviewerName: userName(o.Author), OID: oid, Content: body, Created: o.Created,
		State: state, Comments: []dumpReviewComment{},
	}
}

func (d *dumper) reviewComment(c *neutral.Comment, code *neutral.Code) dumpReviewComment {
	w := dumpReviewComment{Content: d.moveFiles(c.Body), Position: 1, Created: c.Created, Updated: cmp.Or(c.Updated, c.Created), PosterID: d.userID(c.Origin, c.Author)}
	if code != nil {
		w.Path, w.Hunk, w.OID = code.Path, code.Hunk, code.OID
		if w.Line = cmp.Or(code.Line, code.OriginalLine); code.Side == "left" {
			w.Line = -w.Line
		}
	}
	return w
}
