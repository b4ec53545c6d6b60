package offline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/neutral"
)

// Site is a directory of pages that need nothing but a browser: no server, no network.
type Site struct {
	dir          string
	title        string
	pages        *template.Template
	markdown     markdown
	index        *index
	repositories []siteRepository
	used         map[string]bool // places of repositories, in small letters
	counts       Counts
}

// siteRepository is a line of the list of repositories.
type siteRepository struct {
	Counts
	Name, Place, Description string
}

// NewSite begins a site in a directory that is not there yet. The title says what it is of.
func NewSite(dir, title string) (*Site, error) {
	pages, err := parsePages()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &Site{
		dir: dir, title: title, pages: pages, markdown: newMarkdown(), index: newIndex(dir), used: map[string]bool{"search": true},
	}, nil
}

// repositoryPages writes one repository.
type repositoryPages struct {
	*Site
	Repository
	place  string // below the site's directory
	up     string // from there to it
	places *places
	counts Counts
	labels map[string]*neutral.Label
	of     survey
	lost   []*neutral.File
}

// survey is what pages have to know of items before they are written.
type survey struct {
	all, open map[string]int // items by sort
}

// Add writes a repository.
func (s *Site) Add(ctx context.Context, r Repository) error {
	place := s.placeOf(r.Name)
	w := &repositoryPages{
		Site: s, Repository: r, place: place, up: strings.Repeat("../", strings.Count(place, "/")+1), places: newPlaces(r.Name),
		labels: map[string]*neutral.Label{}, of: survey{map[string]int{}, map[string]int{}},
	}
	o, err := r.Source.Overview(ctx)
	if err != nil {
		return err
	}
	for _, l := range o.Labels {
		w.labels[l.Name] = l
	}
	for _, step := range []func(context.Context) error{w.survey, w.files, w.items, w.discussions} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := w.releases(o); err != nil {
		return err
	}
	projects, err := w.projects(o)
	if err != nil {
		return err
	}
	w.counts.Repositories = 1
	s.repositories = append(s.repositories, siteRepository{w.counts, r.Name, place + "/index.html", o.Settings.Description})
	s.counts.add(w.counts)
	return w.overview(o, projects)
}

// placeOf is a path for a repository that no other has.
func (s *Site) placeOf(name string) string {
	words := strings.Split(name, "/")
	for i, word := range words {
		words[i] = cmp.Or(strings.TrimLeft(unusual.ReplaceAllString(word, "_"), "."), "_")
	}
	place := strings.Join(words, "/")
	for n := 2; s.used[strings.ToLower(place)]; n++ {
		place = fmt.Sprintf("%s-%d", strings.Join(words, "/"), n)
	}
	s.used[strings.ToLower(place)] = true
	return place
}

// Finish writes the list of repositories and the search.
func (s *Site) Finish(context.Context) (Counts, error) {
	chunks, err := s.index.finish()
	if err != nil {
		return s.counts, err
	}
	slices.SortFunc(s.repositories, func(a, b siteRepository) int { return cmp.Compare(a.Name, b.Name) })
	index := struct {
		page
		Subtitle     string
		Repositories []siteRepository
	}{page{Title: s.title}, "Issues, pull requests and releases, as they are in the restore point.", s.repositories}
	if err := s.write("index.html", "index", &index.page, &index); err != nil {
		return s.counts, err
	}
	sum := sha256.Sum256([]byte(script))
	search := struct {
		page
		Repositories  []siteRepository
		Chunks, Words int
		Script        template.JS
	}{
		page{Title: "Search", Rights: fmt.Sprintf(searchRights, base64.StdEncoding.EncodeToString(sum[:]))},
		s.repositories, chunks, maxWords, template.JS(script), //nolint:gosec // it is ours
	}
	return s.counts, s.write("search.html", "search", &search.page, &search)
}

// Close gives up nothing: every page is closed when it is written.
func (s *Site) Close() error { return nil }

// page is one of the repository's: in its own directory, or one below that.
func (w *repositoryPages) page(title string, deeper bool) page {
	p := page{Title: title + " · " + w.Name, Up: w.up, Repository: w.Name, links: w.places.from("")}
	if deeper {
		p.Up, p.Below, p.links = "../"+w.up, "../", w.places
	}
	return p
}

// survey goes through all items once, so that pages know which others there are.
func (w *repositoryPages) survey(ctx context.Context) error {
	note := func(sort string, number int64, open bool) {
		w.places.items[sort].add(number)
		w.of.all[sort]++
		if open {
			w.of.open[sort]++
		}
	}
	for item, err := range w.Source.Items(ctx) {
		if err != nil {
			return err
		}
		note(sortOf(item), item.Number, !item.Closed && stateOf(item) == "open")
	}
	for d, err := range w.Source.Discussions(ctx) {
		if err != nil {
			return err
		}
		note(sortDiscussion, d.Number, !d.Closed)
	}
	return nil
}

// files writes assets and attachments.
func (w *repositoryPages) files(ctx context.Context) error {
	return filesOf(ctx, w.Source, func(f *neutral.File, again bool) error {
		there, err := w.places.take(ctx, w.Source, f, path.Join(w.dir, w.place))
		switch {
		case err != nil || again:
		case there:
			w.counts.Files++
		default:
			w.counts.Missing++
			if len(w.lost) < maxLost {
				w.lost = append(w.lost, f)
			}
		}
		return err
	})
}

// maxLost is how many files that are missing are named.
const maxLost = 1000

func (w *repositoryPages) items(ctx context.Context) error {
	lists := map[string]*list{sortIssue: w.list(sortIssue, "Issues"), sortPull: w.list(sortPull, "Pull requests")}
	for item, err := range w.Source.Items(ctx) {
		if err == nil {
			err = w.item(item, sortOf(item), nil)
		}
		if err == nil {
			err = lists[sortOf(item)].add(item)
		}
		if err != nil {
			return err
		}
		w.counts.item(item)
	}
	for _, l := range lists {
		if err := l.finish(); err != nil {
			return err
		}
	}
	return nil
}

func (w *repositoryPages) discussions(ctx context.Context) error {
	l := w.list(sortDiscussion, "Discussions")
	for d, err := range w.Source.Discussions(ctx) {
		if err == nil {
			var more facts
			more.add("category", d.Category)
			more.when("answered", d.Answered)
			if d.Votes != 0 {
				more.add("votes", fmt.Sprint(d.Votes))
			}
			err = w.item(&d.Item, sortDiscussion, more)
		}
		if err == nil {
			err = l.add(&d.Item)
		}
		if err != nil {
			return err
		}
		w.counts.discussion(d)
	}
	return l.finish()
}

// entry is one thing of an item's history: an event, a review with its comments, or a comment.
type entry struct {
	time     time.Time
	Event    *neutral.Event
	Review   *neutral.Review
	Comments []commentView
}

// commentView is a comment on a page.
type commentView struct {
	*page
	C       *neutral.Comment
	Replies []commentView
}

func viewComments(p *page, all []*neutral.Comment) []commentView {
	var views []commentView
	for _, c := range all {
		views = append(views, commentView{p, c, viewComments(p, c.Replies)})
	}
	return views
}

// itemView is an item on its page.
type itemView struct {
	page
	I       *neutral.Item
	State   string
	Labels  template.HTML
	Facts   facts
	Entries []entry
}

// item writes the page of an item, and puts it into the search.
func (w *repositoryPages) item(item *neutral.Item, sort string, more facts) error {
	v := itemView{page: w.page(fmt.Sprintf("%s #%d", item.Title, item.Number), true), I: item, State: stateOf(item), Facts: append(factsOf(item), more...)}
	v.Entries = entriesOf(&v.page, item)
	var err error
	if v.Labels, err = w.labelsOf(item); err != nil {
		return err
	}
	if err := w.write(path.Join(w.place, itemPlace(sort, item.Number)), "item", &v.page, &v); err != nil {
		return err
	}
	return w.index.add(found{
		Place: path.Join(w.place, itemPlace(sort, item.Number)), Repository: w.Name, Sort: sort, Number: item.Number, Title: clean(item.Title), State: v.State,
		Labels: cleanAll(item.Labels), Milestone: clean(item.Milestone), Author: clean(nameOf(item.Author)), Day: day(item.Created),
		Words: wordsOf(func(take func(string) bool) { eachText(item, take) }),
	})
}

func (w *repositoryPages) showLabels(names []string) []shownLabel {
	var shown []shownLabel
	for _, name := range names {
		color := ""
		if l := w.labels[name]; l != nil {
			color = l.Color
		}
		shown = append(shown, showLabel(name, color))
	}
	return shown
}

func (w *repositoryPages) labelsOf(item *neutral.Item) (template.HTML, error) {
	var b strings.Builder
	err := w.pages.ExecuteTemplate(&b, "labels", w.showLabels(item.Labels))
	return template.HTML(b.String()), err //nolint:gosec // a template made it
}

// factsOf is what stands above the text of an item.
func factsOf(item *neutral.Item) facts {
	var f facts
	f.add("assigned to", people(item.Assignees)...)
	f.add("milestone", item.Milestone)
	if item.Closed {
		f.add("closed", cmp.Or(by(item.ClosedAt, item.ClosedBy), "yes"), item.Reason)
	}
	if item.Locked {
		f.add("locked", cmp.Or(item.LockReason, "yes"))
	}
	f.when("pinned", item.Pinned)
	f.when("confidential", item.Confidential)
	f.add("due", stamp(item.Due))
	for _, l := range item.Links {
		f.add(strings.ReplaceAll(l.Kind, "_", " "), l.To)
	}
	p := item.Pull
	if p == nil {
		return f
	}
	from := p.Head
	if p.HeadRepository != "" {
		from += " of " + p.HeadRepository
	}
	f.add("into", strings.TrimSpace(p.Base+" "+p.BaseOID))
	f.add("from", strings.TrimSpace(from+" "+p.HeadOID))
	if p.Merged {
		f.add("merged", cmp.Or(by(p.MergedAt, p.MergedBy), "yes"), p.MergeOID)
	}
	f.when("draft", p.Draft)
	f.add("review asked of", people(p.RequestedReviewers)...)
	return f
}

// entriesOf is an item's history, oldest first.
func entriesOf(p *page, item *neutral.Item) []entry {
	var all []entry
	for _, v := range viewComments(p, item.Comments) {
		all = append(all, entry{time: v.C.Created, Comments: []commentView{v}})
	}
	for _, e := range item.Events {
		shown := *e
		shown.Text = cmp.Or(e.Text, strings.ReplaceAll(e.Kind, "_", " "))
		all = append(all, entry{time: e.Created, Event: &shown})
	}
	if item.Pull != nil {
		for _, r := range item.Pull.Reviews {
			all = append(all, entry{time: r.Created, Review: r, Comments: viewComments(p, r.Comments)})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return a.time.Compare(b.time) })
	return all
}

// add adds another's counts.
func (c *Counts) add(o Counts) {
	for _, sum := range []struct {
		to *int64
		n  int64
	}{
		{&c.Repositories, o.Repositories},
		{&c.Issues, o.Issues},
		{&c.Pulls, o.Pulls},
		{&c.Discussions, o.Discussions},
		{&c.Comments, o.Comments},
		{&c.Reviews, o.Reviews},
		{&c.Releases, o.Releases},
		{&c.Projects, o.Projects},
		{&c.Files, o.Files},
		{&c.Missing, o.Missing},
	} {
		*sum.to += sum.n
	}
}

// releaseView is a release on its page.
type releaseView struct {
	R             *neutral.Release
	Anchor, Title string
	When          time.Time
	Assets        []assetView
}

// assetView is a file of a release.
type assetView struct{ Name, Place, Size, Note string }

// releases writes their page, and puts them into the search.
func (w *repositoryPages) releases(o *neutral.Overview) error {
	v := struct {
		page
		Releases []releaseView
	}{page: w.page("Releases", false)}
	for i, r := range o.Releases {
		w.counts.Releases++
		view := releaseView{R: r, Anchor: fmt.Sprintf("r%d", i+1), Title: cmp.Or(r.Name, r.Tag), When: cmp.Or(r.Published, r.Created)}
		for _, a := range r.Assets {
			view.Assets = append(view.Assets, w.asset(a))
		}
		v.Releases = append(v.Releases, view)
		err := w.index.add(found{
			Place: path.Join(w.place, "releases.html") + "#" + view.Anchor, Repository: w.Name, Sort: "release", Title: clean(view.Title), Labels: []string{},
			Author: clean(nameOf(r.Author)), Day: day(view.When), Words: wordsOf(func(take func(string) bool) { _ = take(r.Tag) && take(r.Body) }),
		})
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(v.Releases, func(a, b releaseView) int { return b.When.Compare(a.When) })
	return w.write(path.Join(w.place, "releases.html"), "releases", &v.page, &v)
}

func (w *repositoryPages) asset(a *neutral.Asset) assetView {
	view := assetView{Name: clean(cmp.Or(a.Name, a.Label)), Place: w.places.from("").file(a.URL), Size: count(a.Size, "byte")}
	if view.Place == "" {
		view.Note = "not in the point: " + clean(cmp.Or(a.Reason, "no reason is known"))
	}
	return view
}

// overview writes the first page of the repository.
func (w *repositoryPages) overview(o *neutral.Overview, projects []projectLink) error {
	v := overviewView{page: w.page("Overview", false), O: o, Counts: w.counts, Projects: projects, MissingFiles: w.lost}
	v.OpenIssues, v.OpenPulls = w.of.open[sortIssue], w.of.open[sortPull]
	v.Settings = settingsOf(o)
	return w.write(path.Join(w.place, "index.html"), "repository", &v.page, &v)
}

// overviewView is a repository's first page.
type overviewView struct {
	page
	O                     *neutral.Overview
	Counts                Counts
	OpenIssues, OpenPulls int
	Projects              []projectLink
	Settings              facts
	MissingFiles          []*neutral.File
}

// Label is one with its colour, for the template of several.
func (v *overviewView) Label(l *neutral.Label) []shownLabel {
	return []shownLabel{showLabel(l.Name, l.Color)}
}

func settingsOf(o *neutral.Overview) facts {
	var f facts
	s := o.Settings
	f.add("homepage", s.Homepage)
	f.add("topics", s.Topics...)
	f.add("default branch", s.DefaultBranch)
	f.when("private", s.Private)
	f.when("archived", s.Archived)
	f.add("merges", s.Merges...)
	var all []string
	for _, r := range o.Rules {
		all = append(all, ruleText(r))
	}
	f.add("protected", all...)
	all = nil
	for _, h := range o.Hooks {
		all = append(all, h.URL+": "+strings.Join(h.Events, ", "))
	}
	f.add("webhooks", all...)
	all = nil
	for _, k := range o.Keys {
		all = append(all, k.Title+": "+k.Key)
	}
	f.add("deploy keys", all...)
	all = nil
	for _, c := range o.Collaborators {
		all = append(all, person(c.User)+": "+c.Permission)
	}
	f.add("collaborators", all...)
	return f
}

func ruleText(r *neutral.Rule) string {
	text := r.Pattern
	if r.Tags {
		text = "tags " + text
	}
	if r.Approvals > 0 {
		text += ", " + count(int64(r.Approvals), "approval")
	}
	if len(r.Checks) > 0 {
		text += ", checks " + strings.Join(r.Checks, ", ")
	}
	if len(r.PushBy) > 0 {
		text += ", pushed to by " + strings.Join(r.PushBy, ", ")
	}
	return text
}

// Rows of a page of a list.
const listRows = 100

// list writes pages of items, the newest first. Items come oldest first, and it holds those of one page.
type list struct {
	w             *repositoryPages
	sort, heading string
	left          int // items to come
	rows          []row
}

// row is an item in a list.
type row struct {
	State, Place, Title, Author, Created, Milestone string
	Labels                                          []shownLabel
	Number, Comments                                int64
}

func (w *repositoryPages) list(sort, heading string) *list {
	return &list{w: w, sort: sort, heading: heading, left: w.of.all[sort]}
}

// add takes an item. What was noted of the survey decides which page it is on.
func (l *list) add(item *neutral.Item) error {
	l.rows = append(l.rows, row{
		State: stateOf(item), Place: itemPlace(l.sort, item.Number), Title: cmp.Or(clean(item.Title), "(no title)"), Author: person(item.Author), Created: stamp(item.Created),
		Milestone: clean(item.Milestone), Labels: l.w.showLabels(item.Labels), Number: item.Number, Comments: countComments(item.Comments),
	})
	l.left--
	if l.left > 0 && l.left%listRows == 0 {
		return l.flush(l.left/listRows + 1)
	}
	return nil
}

func (l *list) finish() error { return l.flush(1) }

// place is where a page of the list is.
func (l *list) place(number int) string {
	if number == 1 {
		return l.sort + "s.html"
	}
	return fmt.Sprintf("%ss-%d.html", l.sort, number)
}

// filter is a search that a list offers.
type filter struct{ Name, Place string }

func (l *list) flush(number int) error {
	slices.Reverse(l.rows)
	of := max(1, (l.w.of.all[l.sort]+listRows-1)/listRows)
	v := struct {
		page
		Heading, Newer, Older string
		Page, Of              int
		Filters               []filter
		Rows                  []row
	}{page: l.w.page(l.heading, false), Heading: l.heading, Page: number, Of: of, Rows: l.rows}
	if number > 1 {
		v.Newer = l.place(number - 1)
	}
	if number < of {
		v.Older = l.place(number + 1)
	}
	for _, state := range []string{"open", "closed", "merged"} {
		if state != "merged" || l.sort == sortPull {
			v.Filters = append(v.Filters, filter{state, v.Find("state", state) + "&sort=" + l.sort})
		}
	}
	err := l.w.write(path.Join(l.w.place, l.place(number)), "list", &v.page, &v)
	l.rows = l.rows[:0]
	return err
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

func cleanAll(all []string) []string {
	cleaned := []string{} // never null in JSON
	for _, s := range all {
		cleaned = append(cleaned, clean(s))
	}
	return cleaned
}
