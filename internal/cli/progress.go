package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/backstay/backstay/internal/point"
)

// Progress is drawn at most this often.
const (
	drawEvery = 100 * time.Millisecond // on a terminal
	lineEvery = 5 * time.Second        // elsewhere, as lines
)

// usualWidth is that of terminals, in characters.
const usualWidth = 80

// barWidth is the number of characters of a bar.
const barWidth = 24

// progress shows the newest event: as a bar that is drawn over on a terminal, as a line now and then elsewhere.
type progress struct {
	clock func() time.Time
	line  func(text string, e point.Event)
	bar   io.Writer // nil where standard error is no terminal
	width int

	mu    sync.Mutex
	last  time.Time // when something was shown
	drawn bool      // a bar stands on the terminal
}

// observer returns what shows progress, and a function that wipes it off when the run is over.
func (a *app) observer() (point.Observer, func()) {
	if a.global.quiet || a.global.json {
		return func(point.Event) {}, func() {}
	}
	p := &progress{clock: a.Clock, last: a.Clock(), line: func(text string, e point.Event) {
		a.told.progress(message{Message: text, Part: e.Part, Done: e.Done, Total: e.Total, Unit: e.Unit})
	}}
	if f, ok := a.Stderr.(*os.File); ok && isTerminal(f) && !a.told.json && a.Getenv("TERM") != "dumb" {
		p.bar = f
		if p.width, _, _ = term.GetSize(int(f.Fd())); p.width <= 0 {
			p.width = usualWidth // it does not say
		}
	}
	return p.show, p.wipe
}

func (p *progress) show(e point.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	switch {
	case e.Text != "":
		p.clear()
		p.line(subjectOf(e)+e.Text, e)
	case p.bar != nil:
		if now.Sub(p.last) < drawEvery {
			return
		}
		p.clear()
		fmt.Fprint(p.bar, p.draw(e))
		p.drawn, p.last = true, now
	case now.Sub(p.last) >= lineEvery:
		p.line(describe(e), e)
		p.last = now
	}
}

// wipe takes the bar off the terminal.
func (p *progress) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.bar, "\r\x1b[K")
		p.drawn = false
	}
}

// draw is one line no wider than the terminal.
func (p *progress) draw(e point.Event) string {
	line := []rune(printable(describe(e)))
	if e.Total > 0 {
		full := int(int64(barWidth) * min(e.Done, e.Total) / e.Total)
		bar := strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
		line = append([]rune("["+bar+"] "), line...)
	}
	if width := max(p.width, 20) - 1; len(line) > width {
		line = line[:width]
	}
	return string(line)
}

func describe(e point.Event) string {
	text := subjectOf(e) + e.What
	amount := func(n int64) string {
		if e.Unit == "B" {
			return size(n)
		}
		return fmt.Sprintf("%d", n)
	}
	if e.Done > 0 || e.Total > 0 {
		text += " " + amount(e.Done)
	}
	if e.Total > 0 {
		text += " of " + amount(e.Total)
	}
	if e.Unit != "" && e.Unit != "B" && e.Unit != e.What {
		text += " " + e.Unit
	}
	return text
}

func subjectOf(e point.Event) string {
	if e.Part == "" {
		return ""
	}
	return e.Part + ": "
}
