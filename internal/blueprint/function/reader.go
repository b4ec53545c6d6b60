package function

import "strings"

// reader reads arguments one after the other. The first that is wrong is err, and what is read of a wrong one is empty: who reads looks
// at err before anything is done.
type reader struct {
	of  arguments
	err error
}

func (r *reader) text(name string) string {
	text, err := r.of.text(name)
	r.note(err)
	return text
}

// textOr is another text where there is none.
func (r *reader) textOr(name, otherwise string) string {
	if text := r.text(name); text != "" {
		return text
	}
	return otherwise
}

// words are those of a text.
func (r *reader) words(name string) []string { return strings.Fields(r.text(name)) }

func (r *reader) command(name string) []string {
	words, err := r.of.command(name)
	r.note(err)
	return words
}

func (r *reader) list(name string) []string {
	list, err := r.of.list(name)
	r.note(err)
	return list
}

func (r *reader) table(name string) map[string]string {
	table, err := r.of.table(name)
	r.note(err)
	return table
}

func (r *reader) flag(name string) bool {
	is, err := r.of.flag(name, false)
	r.note(err)
	return is
}

func (r *reader) note(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
}
