package offline

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	"modernc.org/sqlite" // and its driver

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

var (
	//go:embed schema.sql
	schema string
	//go:embed indexes.sql
	indexes string
)

// Database is one file that the command sqlite3 opens. It is written in one go: until Finish it is none.
type Database struct {
	at       string
	db       *sql.DB
	tx       *sql.Tx
	prepared map[string]*sql.Stmt
	id       int64 // of the last thing: all that have a text count in one row
	counts   Counts
	err      error // the first; nothing is written after it
}

// NewDatabase begins a database in a file that is not there yet. Close it, whatever happens.
func NewDatabase(ctx context.Context, at string) (_ *Database, err error) {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: at}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // what is set by PRAGMA is of one connection
	d := &Database{at: at, db: db, prepared: map[string]*sql.Stmt{}}
	if _, err = db.ExecContext(ctx, schema); err == nil {
		// The transaction goes on over several calls, each of which has ctx.
		d.tx, err = db.BeginTx(context.WithoutCancel(ctx), nil)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// Close gives up what is not finished.
func (d *Database) Close() error {
	if d.tx != nil {
		_ = d.tx.Rollback() // the file goes
	}
	return d.db.Close()
}

// Finish makes it a database.
func (d *Database) Finish(ctx context.Context) (Counts, error) {
	d.put(ctx, "INSERT INTO search (search) VALUES ('optimize')")
	if d.err == nil {
		_, err := d.tx.ExecContext(ctx, indexes)
		d.fail(ctx, err)
	}
	if d.err == nil {
		d.fail(ctx, d.tx.Commit())
		d.tx = nil
	}
	return d.counts, d.err
}

// fail notes the first error.
func (d *Database) fail(ctx context.Context, err error) {
	var of *sqlite.Error
	switch {
	case err == nil || d.err != nil:
	case ctx.Err() != nil:
		d.err = ctx.Err()
	case errors.As(err, &of) && of.Code()&0xff == full:
		d.err = fault.Wrap("write database", fault.ErrUnavailable, err, "free space there")
	default:
		d.err = fault.Wrap("write database", nil, err, "")
	}
}

// full is SQLite's SQLITE_FULL: there is no space left.
const full = 13

// put runs a statement. Times become text, or NULL for none; so do texts that are empty.
func (d *Database) put(ctx context.Context, statement string, values ...any) {
	if d.err != nil {
		return
	}
	if d.prepared[statement] == nil {
		s, err := d.tx.PrepareContext(ctx, statement)
		if err != nil {
			d.fail(ctx, err)
			return
		}
		d.prepared[statement] = s
	}
	for i, v := range values {
		switch v := v.(type) {
		case string:
			values[i] = sql.NullString{String: strings.ToValidUTF8(v, "\ufffd"), Valid: v != ""}
		case time.Time:
			values[i] = sql.NullString{String: v.UTC().Format(time.RFC3339), Valid: !v.IsZero()}
		}
	}
	_, err := d.prepared[statement].ExecContext(ctx, values...)
	d.fail(ctx, err)
}

// insert puts a row with as many columns as there are values into a table.
func (d *Database) insert(ctx context.Context, table string, values ...any) {
	d.put(ctx, "INSERT INTO "+table+" VALUES (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
}

// next is an id, for a thing whose text is searched.
func (d *Database) next(ctx context.Context, title, body string) int64 {
	d.id++
	d.insert(ctx, "search (rowid, title, body)", d.id, title, body)
	return d.id
}

// author notes somebody, and returns the name that other tables have.
func (d *Database) author(ctx context.Context, o neutral.Origin) string {
	name := nameOf(o.Author)
	if name != "" {
		u := o.Author
		d.put(ctx, "INSERT OR IGNORE INTO users VALUES (coalesce(?, ''), coalesce(?, ''), coalesce(?, ''), ?, ?)", o.Forge, u.Login, u.Name, u.Email, u.URL)
	}
	return name
}

// Add writes a repository.
func (d *Database) Add(ctx context.Context, r Repository) error {
	o, err := r.Source.Overview(ctx)
	if err != nil {
		return err
	}
	d.counts.Repositories++
	w := databaseRepository{d, d.counts.Repositories}
	w.overview(ctx, r.Name, o)
	for item, err := range r.Source.Items(ctx) {
		if err == nil {
			w.item(ctx, item)
		}
		if err = cmp.Or(err, d.err); err != nil {
			return err
		}
		d.counts.item(item)
	}
	for discussion, err := range r.Source.Discussions(ctx) {
		if err == nil {
			w.discussion(ctx, discussion)
		}
		if err = cmp.Or(err, d.err); err != nil {
			return err
		}
		d.counts.discussion(discussion)
	}
	return filesOf(ctx, r.Source, func(f *neutral.File, again bool) error {
		if !again {
			d.counts.file(f)
			w.insert(ctx, "files", w.id, f.URL, f.Name, f.Type, f.Size, f.SHA256, f.Reason)
		}
		return d.err
	})
}

// databaseRepository writes one repository. What fails is in the Database.
type databaseRepository struct {
	*Database
	id int64
}

func (w databaseRepository) overview(ctx context.Context, name string, o *neutral.Overview) {
	s := o.Settings
	w.insert(ctx, "repositories", w.id, name, s.Description, s.Homepage, w.list(ctx, s.Topics), s.DefaultBranch, s.Private, s.Archived)
	for _, l := range o.Labels {
		w.insert(ctx, "labels", w.id, l.Name, l.Color, l.Description)
	}
	for _, m := range o.Milestones {
		state := stateOf(&neutral.Item{Closed: m.Closed})
		w.insert(ctx, "milestones", w.id, m.Number, m.Title, m.Description, state, m.Due, m.Created, m.ClosedAt)
	}
	for _, r := range o.Releases {
		w.release(ctx, r)
	}
	for _, p := range o.Projects {
		w.project(ctx, p)
	}
}

// list is a list as JSON.
func (w databaseRepository) list(ctx context.Context, all []string) string {
	text, err := json.Marshal(cleanAll(all))
	w.fail(ctx, err)
	return string(text)
}

func (w databaseRepository) project(ctx context.Context, p *neutral.Project) {
	w.counts.Projects++
	project := w.next(ctx, p.Title, p.Readme)
	w.insert(ctx, "projects", project, w.id, p.Title, p.Description, p.Readme, nameOf(p.Owner), p.Public, p.Closed, p.Created, p.Updated,
		w.list(ctx, p.Views), p.URL)
	for _, f := range p.Fields {
		w.insert(ctx, "project_fields", project, f.Name, f.Type, w.list(ctx, f.Options))
	}
	for _, i := range p.Items {
		item := w.projectItem(ctx, i)
		w.insert(ctx, "project_items", item, project, i.To, i.Title, i.Body, i.Draft, i.Archived, i.Created)
		for _, v := range i.Values {
			w.insert(ctx, "project_values", item, v.Field, v.Value)
		}
	}
}

// projectItem is an id for an item of a project. What is not a draft has its text elsewhere.
func (w databaseRepository) projectItem(ctx context.Context, i *neutral.ProjectItem) int64 {
	if i.Draft {
		return w.next(ctx, i.Title, i.Body)
	}
	w.Database.id++
	return w.Database.id
}

func (w databaseRepository) release(ctx context.Context, r *neutral.Release) {
	w.counts.Releases++
	author, id := w.author(ctx, r.Origin), w.next(ctx, cmp.Or(r.Name, r.Tag), r.Body)
	w.insert(ctx, "releases", id, w.id, r.Tag, r.Target, r.Name, r.Body, author, r.Created, r.Published, r.Draft, r.Prerelease, r.URL)
	for _, a := range r.Assets {
		w.insert(ctx, "assets", id, a.Name, a.Label, a.Type, a.Size, a.Downloads, a.Created, a.URL, a.SHA256, a.Reason)
	}
}

func (w databaseRepository) item(ctx context.Context, item *neutral.Item) {
	author, id := w.author(ctx, item.Origin), w.next(ctx, item.Title, item.Body)
	values := []any{
		id, w.id, sortOf(item), item.Number, item.Title, item.Body, stateOf(item), item.Reason, author, item.Created, item.Updated, item.ClosedAt,
		nameOf(item.ClosedBy), item.Milestone, item.Due, item.Locked, item.Pinned, item.Confidential, item.URL,
	}
	if p := item.Pull; p != nil {
		values = append(values, p.Base, p.Head, p.HeadRepository, p.BaseOID, p.HeadOID, p.MergedAt, nameOf(p.MergedBy), p.MergeOID, p.Draft)
	} else {
		values = append(values, make([]any, 9)...)
	}
	w.insert(ctx, "items", values...)
	for _, u := range item.Assignees {
		w.insert(ctx, "assignees", id, nameOf(u))
	}
	for _, l := range item.Links {
		w.insert(ctx, "links", id, l.Kind, l.To)
	}
	w.belongings(ctx, id, item)
	w.comments(ctx, parents{item: id}, item.Title, item.Comments)
	if item.Pull == nil {
		return
	}
	for _, r := range item.Pull.Reviews {
		author, review := w.author(ctx, r.Origin), w.next(ctx, item.Title, r.Body)
		w.insert(ctx, "reviews", review, id, r.State, r.Body, author, r.Created, r.OID, r.URL)
		w.comments(ctx, parents{item: id, review: review}, item.Title, r.Comments)
	}
}

// belongings are what issues, pull requests and discussions have.
func (w databaseRepository) belongings(ctx context.Context, id int64, item *neutral.Item) {
	for _, l := range item.Labels {
		w.insert(ctx, "item_labels", id, l)
	}
	for _, e := range item.Events {
		w.insert(ctx, "events", id, e.Kind, nameOf(e.Actor), e.Created, e.Text)
	}
	w.reactions(ctx, id, item.Reactions)
}

func (w databaseRepository) reactions(ctx context.Context, id int64, all []neutral.Reaction) {
	for _, r := range all {
		w.insert(ctx, "reactions", id, r.Content, nameOf(r.User), r.Created)
	}
}

// parents are what a comment belongs to; 0 for none.
type parents struct{ item, discussion, review, comment int64 }

// orNull is NULL for 0.
func orNull(n int64) any { return sql.NullInt64{Int64: n, Valid: n != 0} }

func (w databaseRepository) comments(ctx context.Context, of parents, title string, all []*neutral.Comment) {
	for _, c := range all {
		author, id := w.author(ctx, c.Origin), w.next(ctx, title, c.Body)
		values := []any{
			id, orNull(of.item), orNull(of.discussion), orNull(of.review), orNull(of.comment), c.Body, author, c.Created, c.Updated, c.Internal, c.Answer, c.URL,
		}
		if p := c.Code; p != nil {
			line := orNull(cmp.Or(p.Line, p.OriginalLine))
			values = append(values, p.Path, line, orNull(p.StartLine), p.Side, cmp.Or(p.OID, p.OriginalOID), p.Hunk, p.Resolved, nameOf(p.ResolvedBy))
		} else {
			values = append(values, make([]any, 8)...)
		}
		w.insert(ctx, "comments", values...)
		w.reactions(ctx, id, c.Reactions)
		below := of
		below.comment = id
		w.comments(ctx, below, title, c.Replies)
	}
}

func (w databaseRepository) discussion(ctx context.Context, d *neutral.Discussion) {
	author, id := w.author(ctx, d.Origin), w.next(ctx, d.Title, d.Body)
	w.insert(ctx, "discussions", id, w.id, d.Number, d.Title, d.Body, stateOf(&d.Item), d.Category, d.Answered, d.Votes, author, d.Created, d.Updated,
		d.ClosedAt, d.Locked, d.URL)
	w.belongings(ctx, id, &d.Item)
	w.comments(ctx, parents{discussion: id}, d.Title, d.Comments)
}
