package forge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/point"
)

// MetadataRestoreOptions says what is restored where.
type MetadataRestoreOptions struct {
	From       neutral.Source
	Host       string // of the source: "github.com"
	Repository string // of the source: "acme/api"
	Target     MetadataTarget
	To         Repository

	// KeepNumbers puts issues that only take a number where the source has a gap, for targets that give numbers in order. A repository
	// that has other issues already is refused.
	KeepNumbers bool

	Plan    *MetadataPlan // of PlanMetadata, with what Target keeps; nil to make it
	Part    string        // for Observe
	Observe point.Observer
}

// MetadataRestored is what a restore did.
type MetadataRestored struct {
	Written int64 // things that were made
	There   int64 // things that an earlier restore had made
	Notes   []string
}

// maxFailures is after how many things that a target does not take it is left alone.
const maxFailures = 100

// RestoreMetadata writes all of a source to the target. It can be killed anywhere and run again: what bears the mark of a thing that
// was written is not written again. What the target does not take for what it is does not keep the rest from being restored: it is
// named in an error of the class fault.ErrIncomplete.
func RestoreMetadata(ctx context.Context, o MetadataRestoreOptions) (*MetadataRestored, error) {
	op := "restore metadata of " + o.Host + "/" + o.Repository + " to " + o.To.FullName()
	r := &restoring{
		o: o, keeps: o.Target.Keeps(), addresses: map[string]string{}, unsupported: map[string]int{}, files: map[string]*neutral.File{},
		imported: map[string]bool{},
	}
	err := r.run(ctx)
	r.report.Notes = append(r.report.Notes, r.unsupportedNotes()...)
	return &r.report, fault.Wrap(op, nil, err, "")
}

// restoring is one run.
type restoring struct {
	o     MetadataRestoreOptions
	keeps neutral.Fidelity
	plan  *MetadataPlan
	there neutral.Restored
	refs  references
	files map[string]*neutral.File // of the source, with bytes, by address
	// addresses of files at the target, by those at the source.
	addresses map[string]string
	imported  map[string]bool // by their marks, comments that came with the item that is written now

	report      MetadataRestored
	unsupported map[string]int // things that the target has not, by sort
	failures    []error
	done, total int64
}

func (r *restoring) run(ctx context.Context) (err error) {
	if r.plan = r.o.Plan; r.plan == nil {
		if r.plan, err = PlanMetadata(ctx, r.o.From, r.keeps); err != nil {
			return err
		}
	}
	for _, n := range r.plan.Counts {
		r.total += n
	}
	if r.there, err = r.o.Target.Begin(ctx, r.o.To); err != nil {
		return err
	}
	r.keeps = r.o.Target.Keeps() // it knows more now
	if err := r.number(ctx); err != nil {
		return err
	}
	if err := r.listFiles(ctx); err != nil {
		return err
	}
	overview, err := r.o.From.Overview(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *neutral.Overview) error{r.frame, r.releases, r.closePlaceholders, r.items, r.seal} {
		if err := step(ctx, overview); err != nil {
			return err
		}
	}
	if err := r.o.Target.Finish(ctx, r.o.To); err != nil {
		return err
	}
	if len(r.failures) > 0 {
		return fault.Wrap("", fault.ErrIncomplete, errors.Join(r.failures...), "")
	}
	return nil
}

// number says which numbers items will have, for texts refer to those that come later, too.
func (r *restoring) number(ctx context.Context) error {
	r.refs = references{
		pattern: referencePattern(r.o.Host, r.o.Repository), items: map[itemRef]neutral.Written{}, to: strings.TrimSuffix(r.o.To.WebURL, "/"),
		from: "https://" + strings.ReplaceAll(r.o.Host, "_", ":") + "/" + r.o.Repository, same: true,
	}
	ahead, err := r.foresee(ctx)
	if err != nil {
		return err
	}
	next := r.there.Next
	for _, n := range r.plan.numbers {
		w, written := r.there.Things[n.key]
		r.refs.last = max(r.refs.last, n.number)
		switch {
		case written:
		case r.exposes(n.item.Confidential, "item.confidential"):
			r.refs.same = false
			continue // it will be refused
		case len(ahead) > 0:
			w, ahead = ahead[0], ahead[1:]
		case r.there.Next == 0:
			w = neutral.Written{Number: n.number}
		case r.o.KeepNumbers && next > n.number:
			return fault.New("", fault.ErrRefused, fmt.Sprintf("the number %d is taken", n.number),
				"numbers can be kept in a repository that has no issues and pull requests yet")
		case r.o.KeepNumbers:
			w, next = neutral.Written{Number: n.number}, n.number+1
		default:
			w = neutral.Written{Number: next}
			next++
		}
		r.refs.items[itemRef{n.pull, n.number}] = w
		r.refs.same = r.refs.same && w.Number == n.number && (w.Ref == "" || w.Ref == fmt.Sprintf("#%d", n.number))
	}
	return nil
}

// foresee asks a target that knows it what the items that are not there will be called.
func (r *restoring) foresee(ctx context.Context) ([]neutral.Written, error) {
	target, ok := r.o.Target.(MetadataForeseer)
	if !ok {
		return nil, nil
	}
	var items []*neutral.Item
	for _, n := range r.plan.numbers {
		if _, there := r.there.Things[n.key]; !there && !r.exposes(n.item.Confidential, "item.confidential") {
			items = append(items, n.item)
		}
	}
	ahead, err := target.Foresee(ctx, r.o.To, items)
	if err == nil && len(ahead) != len(items) {
		err = fmt.Errorf("%d items were foreseen, and there are %d", len(ahead), len(items))
	}
	return ahead, err
}

func (r *restoring) listFiles(ctx context.Context) error {
	for file, err := range r.o.From.Files(ctx) {
		if err != nil {
			return err
		}
		if file.SHA256 != "" {
			r.files[file.URL] = file
		}
	}
	return nil
}

// frame writes what items and releases need to be there.
func (r *restoring) frame(ctx context.Context, o *neutral.Overview) error {
	open := o.Settings
	open.Archived = false // until all is there
	if err := r.plain(ctx, "settings", &open); err != nil {
		return err
	}
	for _, l := range o.Labels {
		if err := r.plain(ctx, "label "+l.Name, l); err != nil {
			return err
		}
	}
	for _, m := range o.Milestones {
		if err := r.plain(ctx, "milestone "+m.Title, m); err != nil {
			return err
		}
	}
	return nil
}

// seal writes what would be in the way before.
func (r *restoring) seal(ctx context.Context, o *neutral.Overview) error {
	for _, rule := range o.Rules {
		if err := r.plain(ctx, "rule "+cmp.Or(rule.Name, rule.Pattern), rule); err != nil {
			return err
		}
	}
	for _, key := range o.Keys {
		if err := r.plain(ctx, "key "+key.Title, key); err != nil {
			return err
		}
	}
	for _, hook := range o.Hooks {
		if err := r.plain(ctx, "hook", hook); err != nil {
			return err
		}
	}
	if o.Settings.Archived {
		return r.plain(ctx, "settings", &o.Settings)
	}
	return nil
}

// plain writes a thing without a mark, unless one of its name is there.
func (r *restoring) plain(ctx context.Context, what string, thing neutral.Thing) error {
	if key := neutral.KeyOf(thing); key != "" {
		if _, there := r.there.Things[key]; there {
			r.told(false)
			return nil
		}
	}
	_, err := r.write(ctx, what, thing)
	return r.survive(what, err)
}

// write writes one thing.
func (r *restoring) write(ctx context.Context, what string, thing neutral.Thing) (neutral.Written, error) {
	w, err := r.make(ctx, thing)
	if err != nil {
		return w, fault.Wrap(what, nil, err, "")
	}
	r.told(true)
	return w, nil
}

// make has the target make a thing: an item with what was said on it, where the target takes it so.
func (r *restoring) make(ctx context.Context, thing neutral.Thing) (neutral.Written, error) {
	item, isItem := thing.(*neutral.Item)
	target, imports := r.o.Target.(MetadataImporter)
	if !isItem || !imports {
		return r.o.Target.Write(ctx, r.o.To, thing)
	}
	w, n, err := target.Import(ctx, r.o.To, item)
	if err != nil {
		return w, err
	}
	for _, c := range item.Comments[:n] {
		if _, m, ok := neutral.Unmark(c.Body); ok {
			r.imported[m.Key()] = true
		}
	}
	return w, nil
}

func (r *restoring) told(written bool) {
	if r.done++; written {
		r.report.Written++
	} else {
		r.report.There++
	}
	if r.o.Observe != nil {
		r.o.Observe(point.Event{Part: r.o.Part, What: "restoring", Done: r.done, Total: max(r.total, r.done), Unit: "things"})
	}
}

// survive decides whether the run goes on after an error: it does where the target has no such thing, or does not take this one.
func (r *restoring) survive(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fault.ErrUnsupported):
		sort, _, _ := strings.Cut(what, " ")
		r.unsupported[sort]++
		return nil
	case errors.Is(err, fault.ErrInvalid), errors.Is(err, fault.ErrExists), errors.Is(err, fault.ErrRefused), errors.Is(err, fault.ErrCorrupt):
		r.failures = append(r.failures, err)
		if len(r.failures) >= maxFailures {
			return errors.Join(r.failures...)
		}
		return nil
	}
	return err
}

// unsupportedNotes counts what the target has not, with the reason that the plan gives.
func (r *restoring) unsupportedNotes() []string {
	var notes []string
	for sort, n := range r.unsupported {
		fate := r.keeps.Of(sort)
		if fate.State != neutral.Lost {
			fate = neutral.Fidelity{}.Of(sort)
		}
		if n > 1 {
			sort += "s"
		}
		notes = append(notes, fmt.Sprintf("%d %s not restored: %s", n, sort, fate.How))
	}
	slices.Sort(notes)
	return notes
}

// text writes a thing that bears a mark, unless it is there, and sees that the files it refers to are.
func (r *restoring) text(ctx context.Context, what string, m neutral.Mark, text string, of func(text string) neutral.Thing) (neutral.Written, error) {
	w, there := r.there.Things[m.Key()]
	if there && !w.Pending || r.imported[m.Key()] {
		r.told(!there)
		return w, nil
	}
	text = r.refs.rewrite(text)
	links := Links(text)
	files := r.filesAmong(links)
	attach := there
	if !there {
		var err error
		if m.Pending, err = r.upload(ctx, files); err != nil {
			return w, fault.Wrap(what, nil, err, "")
		}
		if w, err = r.write(ctx, what, of(m.Write(replaceAddresses(text, links, r.addresses)))); err != nil {
			return w, err
		}
		attach, m.Pending = m.Pending, false
	}
	if !attach {
		return w, nil
	}
	err := r.attach(ctx, m, text, links, files, w)
	w.Pending = false
	return w, fault.Wrap(what, nil, err, "")
}

// filesAmong are those that the source has of what a text links to.
func (r *restoring) filesAmong(links []string) map[string]*neutral.File {
	files := map[string]*neutral.File{}
	for _, link := range links {
		f := r.files[link]
		if f == nil && strings.HasPrefix(link, "/") {
			f = cmp.Or(r.files[r.refs.from+link], r.files[strings.TrimSuffix(r.refs.from, "/"+r.o.Repository)+link])
		}
		if f != nil {
			files[link] = f
		}
	}
	return files
}

// upload stores files where that can be done before a text is written. It reports whether some have to be attached afterwards.
func (r *restoring) upload(ctx context.Context, files map[string]*neutral.File) (pending bool, _ error) {
	for link, f := range files {
		if r.addresses[link] != "" {
			continue
		}
		address, err := r.send(ctx, f, func(a archive.File, content io.Reader) (string, error) {
			return r.o.Target.Upload(ctx, r.o.To, a, content)
		})
		if errors.Is(err, fault.ErrUnsupported) {
			if _, pending = r.o.Target.(MetadataAttacher); !pending {
				r.leave(files)
			}
			return pending, nil
		}
		if err := r.survive("file "+f.URL, err); err != nil {
			return false, err
		}
		r.addresses[link] = address
	}
	return false, nil
}

// leave notes that files have no place at the target, each once: they keep their addresses.
func (r *restoring) leave(files map[string]*neutral.File) {
	for link := range files {
		if r.addresses[link] == "" {
			r.addresses[link] = link
			r.unsupported["file"]++
		}
	}
}

// attach stores files at what was written, and writes its text again with their addresses.
func (r *restoring) attach(ctx context.Context, m neutral.Mark, text string, links []string, files map[string]*neutral.File, w neutral.Written) error {
	target, ok := r.o.Target.(MetadataAttacher)
	if !ok {
		return nil
	}
	addresses := map[string]string{}
	for _, link := range links {
		addresses[link] = r.addresses[link]
	}
	for link, f := range files {
		address, err := r.send(ctx, f, func(a archive.File, content io.Reader) (string, error) {
			return target.Attach(ctx, r.o.To, w, a, content)
		})
		if err := r.survive("file "+f.URL, err); err != nil {
			return err
		}
		addresses[link] = address
	}
	return target.Rewrite(ctx, r.o.To, w, m.Write(replaceAddresses(text, links, addresses)))
}

// send opens a file for what stores it.
func (r *restoring) send(ctx context.Context, f *neutral.File, store func(archive.File, io.Reader) (string, error)) (string, error) {
	content, err := r.o.From.Open(ctx, f)
	if err != nil {
		return "", fault.Wrap("file "+f.URL, nil, err, "")
	}
	defer content.Close()
	address, err := store(archive.File{URL: f.URL, Name: f.Name, Type: f.Type, Size: f.Size, SHA256: f.SHA256}, content)
	return address, fault.Wrap("file "+f.URL, nil, err, "")
}

// releases writes releases as drafts, then what is in them, and publishes them.
func (r *restoring) releases(ctx context.Context, o *neutral.Overview) error {
	for _, release := range o.Releases {
		if err := r.survive("release "+release.Tag, r.release(ctx, release)); err != nil {
			return err
		}
	}
	return nil
}

func (r *restoring) release(ctx context.Context, release *neutral.Release) error {
	what := "release " + release.Tag
	m := neutral.Mark{Sort: neutral.SortRelease, Origin: release.Origin, More: neutral.More("release", release, r.keeps)}
	if !release.Published.IsZero() && r.keeps.Of("release.published").State != neutral.Kept {
		m.Notes = append(m.Notes, "published"+on(release.Published))
	}
	for _, a := range release.Assets {
		if a.SHA256 == "" {
			m.Notes = append(m.Notes, "file "+neutral.Plain(a.Name)+" is not in the point: "+neutral.Plain(a.Reason))
		}
	}
	w, err := r.text(ctx, what, m, release.Body, func(text string) neutral.Thing {
		draft := *release
		draft.Body, draft.Draft = text, true
		return &draft
	})
	if err != nil {
		return err
	}
	for _, a := range release.Assets {
		if err := r.survive("asset "+a.Name, r.asset(ctx, release.Tag, a, w)); err != nil {
			return err
		}
	}
	if release.Draft || w.State == "published" {
		return nil
	}
	_, err = r.o.Target.Write(ctx, r.o.To, &neutral.State{Written: w, Release: release})
	return unlessUnsupported(fault.Wrap("publish "+what, nil, err, ""))
}

func (r *restoring) asset(ctx context.Context, tag string, a *neutral.Asset, on neutral.Written) error {
	of := *a
	of.Release, of.On = tag, on
	if w, there := r.there.Things[neutral.KeyOf(&of)]; there || a.SHA256 == "" {
		if r.told(false); w.URL != "" {
			r.addresses[a.URL] = w.URL
		}
		return nil
	}
	what := "asset " + a.Name + " of release " + tag
	content, err := r.o.From.Open(ctx, &a.File)
	if err != nil {
		return fault.Wrap(what, nil, err, "")
	}
	defer content.Close()
	of.Content = content
	w, err := r.write(ctx, what, &of)
	if w.URL != "" {
		r.addresses[a.URL] = w.URL
	}
	return err
}

func unlessUnsupported(err error) error {
	if errors.Is(err, fault.ErrUnsupported) {
		return nil
	}
	return err
}

// numberedItem is an item, or a discussion, which is restored as one.
type numberedItem struct {
	*neutral.Item
	discussion *neutral.Discussion
}

func (n *numberedItem) mark() neutral.Mark {
	m := neutral.Mark{Sort: neutral.SortIssue, Origin: n.Origin}
	if m.Was = cmp.Or(m.Was, n.Number); n.Pull != nil {
		m.Sort = neutral.SortPull
	}
	if n.discussion != nil {
		m.Sort = neutral.SortDiscussion
	}
	return m
}

// numbered yields items and discussions by their numbers, which some forges give them out of one row.
func numbered(ctx context.Context, from neutral.Source) iter.Seq2[*numberedItem, error] {
	return func(yield func(*numberedItem, error) bool) {
		next, stop := iter.Pull2(from.Discussions(ctx))
		defer stop()
		d, err, more := next()
		for item, itemErr := range from.Items(ctx) {
			for more && err == nil && itemErr == nil && d.Number < item.Number {
				if !yield(&numberedItem{&d.Item, d}, nil) {
					return
				}
				d, err, more = next()
			}
			if itemErr != nil || err != nil {
				yield(nil, cmp.Or(itemErr, err))
				return
			}
			if !yield(&numberedItem{Item: item}, nil) {
				return
			}
		}
		for ; more; d, err, more = next() {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&numberedItem{&d.Item, d}, nil) {
				return
			}
		}
	}
}

// items writes issues, pull requests and discussions in the order of their numbers, each with all that belongs to it.
func (r *restoring) items(ctx context.Context, _ *neutral.Overview) error {
	next := r.there.Next
	for n, err := range numbered(ctx, r.o.From) {
		if err != nil {
			return err
		}
		_, there := r.there.Things[n.mark().Key()]
		for ; r.o.KeepNumbers && !there && next > 0 && next < n.Number; next++ {
			if err := r.placeholder(ctx, next); err != nil {
				return err
			}
		}
		if !there && !r.exposes(n.Confidential, "item.confidential") {
			next++
		}
		if err := r.survive(n.what(), r.item(ctx, n)); err != nil {
			return err
		}
	}
	return nil
}

// placeholder takes a number that the source has no item of.
func (r *restoring) placeholder(ctx context.Context, number int64) error {
	m := neutral.Mark{Sort: neutral.SortPlaceholder, Origin: neutral.Origin{Forge: r.o.Host, ID: fmt.Sprint(number), Was: number}}
	item := &neutral.Item{Number: number, Title: "(no issue)", Closed: true, Body: m.Write("This number was not in use, or its issue was deleted.")}
	w, err := r.write(ctx, fmt.Sprintf("number %d", number), item)
	if err != nil {
		return err
	}
	return r.closePlaceholder(ctx, w)
}

func (r *restoring) closePlaceholder(ctx context.Context, w neutral.Written) error {
	_, err := r.o.Target.Write(ctx, r.o.To, &neutral.State{Written: w, Item: &neutral.Item{Number: w.Number, Closed: true}})
	return unlessUnsupported(fault.Wrap(fmt.Sprintf("close number %d", w.Number), nil, err, ""))
}

// closePlaceholders closes those that a run that was cut short left open.
func (r *restoring) closePlaceholders(ctx context.Context, _ *neutral.Overview) error {
	for key, w := range r.there.Things {
		if strings.HasPrefix(key, neutral.SortPlaceholder+" ") && w.State == "" {
			if err := r.closePlaceholder(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *numberedItem) what() string {
	switch {
	case n.discussion != nil:
		return fmt.Sprintf("discussion #%d", n.Number)
	case n.Pull != nil:
		return fmt.Sprintf("pull request #%d", n.Number)
	}
	return fmt.Sprintf("issue #%d", n.Number)
}

func (r *restoring) item(ctx context.Context, n *numberedItem) error {
	if err := r.guard(n.Confidential, "item.confidential"); err != nil {
		return fault.Wrap(n.what(), nil, err, "")
	}
	m := n.mark()
	m.Notes, m.More = itemNotes(n, r.keeps), neutral.More("item", n.Item, r.keeps)
	w, err := r.numbered(ctx, n, m)
	if err != nil {
		return err
	}
	ref := itemRef{n.Pull != nil, n.Number}
	if foreseen := r.refs.items[ref]; foreseen.Number != w.Number && foreseen.Number != 0 {
		r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s became #%d, not #%d as texts before it say: somebody else made issues meanwhile",
			n.what(), w.Number, foreseen.Number))
	}
	r.refs.items[ref] = w
	for _, said := range n.said() {
		if err := r.survive("comment", r.say(ctx, n, said, w)); err != nil {
			return err
		}
	}
	return r.finishItem(ctx, n, w)
}

// numbered writes an item, without what was said on it unless the target takes that with it: a discussion as one, or else as an issue.
func (r *restoring) numbered(ctx context.Context, n *numberedItem, m neutral.Mark) (neutral.Written, error) {
	if n.discussion != nil {
		w, err := r.text(ctx, n.what(), m, n.Body, func(text string) neutral.Thing {
			d := *n.discussion
			d.Body, d.Comments, d.Closed = text, nil, false
			return &d
		})
		if !errors.Is(err, fault.ErrUnsupported) {
			return w, err
		}
	}
	clear(r.imported)
	item := *n.Item
	item.Comments, item.Closed = nil, false
	if n.Pull != nil {
		pull := *n.Pull
		pull.Reviews, item.Pull = nil, &pull
	}
	_, there := r.there.Things[m.Key()]
	if _, imports := r.o.Target.(MetadataImporter); imports && !there {
		var err error
		if item.Comments, err = r.together(ctx, n); err != nil {
			return neutral.Written{}, err
		}
		item.Closed = n.Closed
	}
	return r.text(ctx, n.what(), m, n.Body, func(text string) neutral.Thing {
		item.Body = text
		return &item
	})
}

// together are the texts of all that was said on an item, as comments.
func (r *restoring) together(ctx context.Context, n *numberedItem) (all []*neutral.Comment, _ error) {
	for _, s := range n.said() {
		for _, c := range r.remarks(s) {
			if r.exposes(c.as.Internal, c.mark.Sort+".internal") {
				continue // it will be refused
			}
			text := r.refs.rewrite(c.as.Body)
			links := Links(text)
			var err error
			if c.mark.Pending, err = r.upload(ctx, r.filesAmong(links)); err != nil {
				return nil, err
			}
			all = append(all, c.of(neutral.Written{}, c.mark.Write(replaceAddresses(text, links, r.addresses))))
		}
	}
	return all, nil
}

// guard keeps what is for members only from being shown to everybody, where the target has no place for it but among the rest.
func (r *restoring) guard(confidential bool, field string) error {
	if !r.exposes(confidential, field) {
		return nil
	}
	return fault.New("", fault.ErrRefused, "it is for members only, and everybody would see it in "+r.o.To.FullName(),
		"make that repository private, and run it again")
}

// exposes reports whether what is for members only would be seen by everybody.
func (r *restoring) exposes(confidential bool, field string) bool {
	return confidential && !r.o.To.Private && r.keeps[field].State != neutral.Kept // kept by name, not with all the rest
}

// finishItem closes and locks.
func (r *restoring) finishItem(ctx context.Context, n *numberedItem, w neutral.Written) error {
	want := ""
	switch {
	case n.Locked:
		want = "locked"
	case n.Closed:
		want = "closed"
	}
	if want == w.State && !n.Pinned {
		return nil
	}
	_, err := r.o.Target.Write(ctx, r.o.To, &neutral.State{Written: w, Item: n.Item})
	return unlessUnsupported(fault.Wrap("close "+n.what(), nil, err, ""))
}

// said is a comment or a review.
type said struct {
	comment *neutral.Comment
	review  *neutral.Review
	sort    string
	in      string // ID of what it is part of
}

func (s said) origin() neutral.Origin {
	if s.review != nil {
		return s.review.Origin
	}
	return s.comment.Origin
}

// said lists comments and reviews in the order in which they were made.
func (n *numberedItem) said() []said {
	var all []said
	var answers func(of *neutral.Comment, sort string)
	answers = func(of *neutral.Comment, sort string) {
		for _, c := range of.Replies {
			all = append(all, said{comment: c, sort: sort, in: of.ID})
			answers(c, sort)
		}
	}
	for _, c := range n.Comments {
		all = append(all, said{comment: c, sort: neutral.SortComment})
		answers(c, neutral.SortComment)
	}
	if n.Pull != nil {
		for _, review := range n.Pull.Reviews {
			all = append(all, said{review: review, sort: neutral.SortReview})
		}
	}
	slices.SortStableFunc(all, func(a, b said) int { return a.origin().Created.Compare(b.origin().Created) })
	return all
}

// say writes a comment or a review. A review that the target does not take becomes comments.
func (r *restoring) say(ctx context.Context, n *numberedItem, s said, on neutral.Written) error {
	if s.review != nil && !r.asComments(s.review) {
		if err := r.review(ctx, n, s.review, on); !errors.Is(err, fault.ErrUnsupported) {
			return err
		}
	}
	for _, c := range r.remarks(s) {
		if err := r.remark(ctx, n, c, on); err != nil {
			return err
		}
	}
	return nil
}

// asComments reports whether an earlier run began to make comments of a review.
func (r *restoring) asComments(review *neutral.Review) bool {
	key := neutral.Mark{Sort: neutral.SortReviewText, Origin: review.Origin}.Key()
	_, there := r.there.Things[key]
	return there || r.imported[key]
}

// remark is what becomes a comment on an item.
type remark struct {
	mark neutral.Mark
	as   neutral.Comment // by whom it is, and its text
}

// of is the comment that is written.
func (c remark) of(on neutral.Written, text string) *neutral.Comment {
	return &neutral.Comment{Origin: c.as.Origin, Internal: c.as.Internal, Answer: c.as.Answer, Item: on.Number, On: on, Body: text}
}

// remarks are a comment, or what a review becomes that the target does not take: its text, its comments on code, and the answers to them.
func (r *restoring) remarks(s said) []remark {
	if s.review == nil {
		return []remark{r.comment(s.comment, s.sort, s.in)}
	}
	all := []remark{{r.reviewMark(s.review, neutral.SortReviewText), neutral.Comment{Origin: s.review.Origin, Body: s.review.Body}}}
	var thread func(c *neutral.Comment, in string)
	thread = func(c *neutral.Comment, in string) {
		all = append(all, r.comment(c, neutral.SortReviewComment, in))
		for _, reply := range c.Replies {
			thread(reply, c.ID)
		}
	}
	for _, c := range s.review.Comments {
		thread(c, s.review.ID)
	}
	return all
}

func (r *restoring) reviewMark(review *neutral.Review, sort string) neutral.Mark {
	m := neutral.Mark{Sort: sort, Origin: review.Origin, More: neutral.More("review", review, nil)}
	note := "review: " + strings.ReplaceAll(cmp.Or(review.State, "commented"), "_", " ")
	if review.OID != "" {
		note += " at " + review.OID
	}
	m.Notes = []string{neutral.Plain(note)}
	return m
}

// review writes a review as one, with the comments on code that are its own. Files have no place in one where they hang on something.
func (r *restoring) review(ctx context.Context, n *numberedItem, review *neutral.Review, on neutral.Written) error {
	what := "review by " + review.Author.Login + " of " + n.what()
	for _, text := range append(bodiesOf(review.Comments), review.Body) {
		pending, err := r.upload(ctx, r.filesAmong(Links(text)))
		if err != nil {
			return fault.Wrap(what, nil, err, "")
		}
		if pending {
			return fault.New(what, fault.ErrUnsupported, "it refers to files", "")
		}
	}
	_, err := r.text(ctx, what, r.reviewMark(review, neutral.SortReview), review.Body, func(text string) neutral.Thing {
		of := *review
		of.Body, of.Item, of.On, of.Comments = text, on.Number, on, nil
		for _, c := range review.Comments {
			of.Comments = append(of.Comments, r.marked(c, nil, review.ID, on)...)
		}
		return &of
	})
	return err
}

func bodiesOf(comments []*neutral.Comment) []string {
	var all []string
	for _, c := range comments {
		all = append(append(all, c.Body), bodiesOf(c.Replies)...)
	}
	return all
}

// marked gives a comment on code, and the answers to it, which are at the same place, their marks.
func (r *restoring) marked(c *neutral.Comment, at *neutral.Code, in string, on neutral.Written) []*neutral.Comment {
	m := neutral.Mark{
		Sort: neutral.SortReviewComment, Origin: c.Origin, In: in, More: neutral.More(neutral.SortReviewComment, c, r.keeps),
		Notes: append(codeNotes(c.Code), reactionNotes(c.Reactions, true)...),
	}
	of := *c
	of.Code = cmp.Or(c.Code, at)
	text := r.refs.rewrite(c.Body)
	of.Body, of.Item, of.On, of.Replies = m.Write(replaceAddresses(text, Links(text), r.addresses)), on.Number, on, nil
	all := []*neutral.Comment{&of}
	for _, reply := range c.Replies {
		all = append(all, r.marked(reply, of.Code, c.ID, on)...)
	}
	return all
}

// comment is a comment with its mark. in is the ID of what it is part of.
func (r *restoring) comment(c *neutral.Comment, sort, in string) remark {
	m := neutral.Mark{Sort: sort, Origin: c.Origin, In: in, More: neutral.More(sort, c, r.keeps)}
	m.Notes = append(codeNotes(c.Code), reactionNotes(c.Reactions, r.keeps.Of(sort+".reactions").State != neutral.Kept)...)
	if c.Answer {
		m.Notes = append(m.Notes, "the answer")
	}
	if c.Code != nil {
		m.Quote = c.Code.Hunk
	}
	return remark{m, *c}
}

// remark writes a comment on an item.
func (r *restoring) remark(ctx context.Context, n *numberedItem, c remark, on neutral.Written) error {
	what := "comment by " + cmp.Or(c.as.Author.Login, "somebody") + " on " + n.what()
	if err := r.guard(c.as.Internal, c.mark.Sort+".internal"); err != nil {
		return fault.Wrap(what, nil, err, "")
	}
	_, err := r.text(ctx, what, c.mark, c.as.Body, func(text string) neutral.Thing { return c.of(on, text) })
	return err
}
