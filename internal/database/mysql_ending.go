package database

import (
	"bytes"
	"strings"
)

// mysqlEnding reads the comments of a dump as it passes: where the transaction stands, at which position, which databases and how many
// tables there are, and whether the last line is the tool's own.
type mysqlEnding struct {
	wanted    map[string]bool // databases as the tool quotes them
	databases map[string]bool // of these, which have come
	tables    int64
	stands    bool
	binlog    string // FILE:POSITION
	gtid      string

	line  []byte // the beginning of the line that is being read
	whole bool   // the last line that was not empty was the tool's last
}

// mostComment is how much of a line is looked at, in bytes: all of any comment that counts.
const mostComment = 1 << 10

func newMySQLEnding(databases []string) *mysqlEnding {
	e := &mysqlEnding{wanted: map[string]bool{}, databases: map[string]bool{}}
	for _, name := range databases {
		quoted := backquoted(name)
		if e.wanted[quoted] = true; strings.ContainsAny(name, "\r\n") { // no comment names it as it is; the last line answers for it
			e.databases[quoted] = true
		}
	}
	return e
}

func (e *mysqlEnding) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		piece := p
		if end >= 0 {
			piece, p = p[:end], p[end+1:]
		} else {
			p = nil
		}
		if room := mostComment - len(e.line); room > 0 {
			e.line = append(e.line, piece[:min(room, len(piece))]...)
		}
		if end >= 0 {
			e.read(e.line)
			e.line = e.line[:0]
		}
	}
	return n, nil
}

func (e *mysqlEnding) read(line []byte) {
	if len(line) == 0 {
		return
	}
	e.whole = false
	comment, is := bytes.CutPrefix(line, []byte("-- "))
	if !is {
		return
	}
	text := string(comment)
	switch {
	case strings.HasPrefix(text, "Dump completed"):
		e.whole = true
	case strings.HasPrefix(text, "Current Database: "):
		e.stands = true
		if name := strings.TrimPrefix(text, "Current Database: "); e.wanted[name] {
			e.databases[name] = true
		}
	case strings.HasPrefix(text, "Table structure for table "):
		e.tables++
	default:
		e.readPosition(text)
	}
}

// readPosition reads the statements that a replica would need. That of GTIDs comes with the last lines: the last one that says
// so counts, whatever routines say before.
func (e *mysqlEnding) readPosition(text string) {
	quoted := func(after string) string {
		_, rest, found := strings.Cut(text, after+"='")
		value, _, closed := strings.Cut(rest, "'")
		if !found || !closed {
			return ""
		}
		return value
	}
	for _, word := range []string{"MASTER", "SOURCE"} {
		if file := quoted(word + "_LOG_FILE"); file != "" && !e.stands {
			_, at, _ := strings.Cut(text, word+"_LOG_POS=")
			e.binlog = file + ":" + strings.TrimRight(at, "; ")
		}
	}
	if gtid := quoted("gtid_slave_pos"); gtid != "" {
		e.gtid = gtid
	}
}

func (e *mysqlEnding) position() string {
	if e.gtid != "" {
		return strings.TrimSpace(e.binlog + " gtid:" + e.gtid)
	}
	return e.binlog
}

func (e *mysqlEnding) end() error {
	if len(e.line) > 0 || !e.whole {
		return cutShort("its last line is not the tool's")
	}
	return nil
}
