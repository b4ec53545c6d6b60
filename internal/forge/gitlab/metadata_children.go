package gitlab

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// belonging are the collections that issues and merge requests alike have.
func (p *Provider) belonging(of, path string) []forge.Collection {
	notes, timeline, reactions := "comments", "timeline", "reactions"
	if of == pullsName {
		notes, timeline, reactions = "review-comments", "pull-timeline", "pull-reactions"
	}
	return []forge.Collection{p.notes(notes, of, path), p.timeline(timeline, of, path), p.each(reactions, of, path, "/award_emoji", byID)}
}

// perParent is a collection that is read for each parent. read yields one parent's.
func perParent(
	name, of string, read func(ctx context.Context, q forge.Query, parent archive.Key, yield func(archive.Record) bool) error,
) forge.Collection {
	return forge.Collection{Name: name, Of: of, Read: func(ctx context.Context, q forge.Query) iter.Seq2[archive.Record, error] {
		return func(yield func(archive.Record, error) bool) {
			stopped := false
			for _, parent := range q.Parents {
				err := read(ctx, q, parent.Key, func(r archive.Record) bool {
					stopped = !yield(r, nil)
					return !stopped
				})
				if stopped {
					return
				}
				if err != nil {
					yield(archive.Record{}, fault.Wrap(name+" of "+q.Repository.FullName()+" "+parent.Key.String(), nil, err, ""))
					return
				}
			}
		}
	}}
}

// each is a collection that has a listing for each parent: path, its number, below.
func (p *Provider) each(name, of, path, below string, id func(thing) string) forge.Collection {
	return perParent(name, of, func(ctx context.Context, q forge.Query, parent archive.Key, yield func(archive.Record) bool) error {
		at := projectPath(q.Repository) + path + parent.ID
		l := listing{name: name, path: at + below, query: hundred(), id: id, parent: parent}
		return p.unlessGone(ctx, at, p.read(ctx, l, yield))
	})
}

// unlessGone forgives that what belongs to something is not found where that was removed meanwhile.
func (p *Provider) unlessGone(ctx context.Context, parent string, err error) error {
	if notFound(err) && notFound(p.get(ctx, parent, nil, nil)) {
		return nil
	}
	return err
}

// timeline reads the events of issues or merge requests that GitLab keeps beside their notes, a listing for each kind.
func (p *Provider) timeline(name, of, path string) forge.Collection {
	kinds := []string{"label", "state", "milestone"}
	c := perParent(name, of, func(ctx context.Context, q forge.Query, parent archive.Key, yield func(archive.Record) bool) error {
		at := projectPath(q.Repository) + path + parent.ID
		for _, kind := range kinds {
			stopped := false
			l := listing{name: name, path: at + "/resource_" + kind + "_events", query: hundred(), parent: parent, id: func(t thing) string {
				return kind + ":" + number(t.ID) // each kind is counted apart
			}}
			err := p.read(ctx, l, func(r archive.Record) bool {
				stopped = !yield(r)
				return !stopped
			})
			if err = p.unlessGone(ctx, at, err); err != nil || stopped {
				return err
			}
		}
		return nil
	})
	c.Requests = func(n int64) int64 { return n * int64(len(kinds)) }
	return c
}

// approvals are one record for each merge request: who approved it.
func (p *Provider) approvals() forge.Collection {
	const name = "reviews"
	return perParent(name, pullsName, func(ctx context.Context, q forge.Query, parent archive.Key, yield func(archive.Record) bool) error {
		at := projectPath(q.Repository) + "/merge_requests/" + parent.ID
		var raw json.RawMessage
		if err := p.get(ctx, at+"/approvals", nil, &raw); err != nil {
			return p.unlessGone(ctx, at, err)
		}
		l := listing{name: name, id: func(thing) string { return parent.ID }, parent: parent}
		record, err := l.record(raw)
		if err == nil {
			yield(record)
		}
		return err
	})
}

// notes reads comments, and what GitLab itself notes, through the threads they are in. A record is a note as answered, and one field
// more: the thread's ID. So one that was edited is one record.
func (p *Provider) notes(name, of, path string) forge.Collection {
	return perParent(name, of, func(ctx context.Context, q forge.Query, parent archive.Key, yield func(archive.Record) bool) error {
		at := projectPath(q.Repository) + path + parent.ID
		l := listing{name: name, id: byID, parent: parent}
		err := p.items(ctx, at+"/discussions", hundred(), func(thread json.RawMessage) (more bool, err error) {
			return l.thread(thread, yield)
		})
		return p.unlessGone(ctx, at, err)
	})
}

// thread yields the notes of a thread, and reports whether more is wanted.
func (l listing) thread(raw json.RawMessage, yield func(archive.Record) bool) (more bool, err error) {
	var in struct {
		ID    string            `json:"id"`
		Alone bool              `json:"individual_note"`
		Notes []json.RawMessage `json:"notes"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return false, fault.Wrap("gitlab "+l.name, fault.ErrUnavailable, err, "")
	}
	for _, note := range in.Notes {
		if !in.Alone { // what stands alone needs no thread to be found
			if note, err = inThread(note, in.ID); err != nil {
				return false, err
			}
		}
		record, err := l.record(note)
		if err != nil {
			return false, err
		}
		if !yield(record) {
			return false, nil
		}
	}
	return true, nil
}

// inThread adds the thread's ID to a note.
func inThread(note json.RawMessage, thread string) (json.RawMessage, error) {
	id, err := json.Marshal(thread)
	if err != nil {
		return nil, err
	}
	note = bytes.TrimSpace(note)
	if len(note) < 3 || note[0] != '{' || bytes.Equal(bytes.TrimSpace(note[1:len(note)-1]), nil) {
		return nil, fault.New("gitlab note", fault.ErrUnavailable, "the server listed one that is empty", "")
	}
	return append(append(append([]byte(`{"discussion_id":`), id...), ','), note[1:]...), nil
}
