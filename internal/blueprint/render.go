package blueprint

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// Limits of one rendering. Templates are programs of strangers: they end, and they stay small.
const (
	mostText    = 1 << 20          // bytes of a template, and of what comes of it
	mostSteps   = 100_000          // rounds of loops, calls of functions and of templates
	mostMade    = 32 << 20         // bytes that functions make, all together
	mostCalls   = 200              // of templates by templates
	mostNested  = 100              // blocks in blocks: leaving many at once, as errors do, takes longer than entering them
	longestTime = 10 * time.Second // for all of it
)

var errTooMuch = errors.New("the template asks for too much")

// Render renders a template, with more names besides those of p. The text that comes of it is at most 1 MiB. An error is fault.ErrInvalid,
// or that of ctx.
func Render(ctx context.Context, text string, p *Params, more map[string]any) (string, error) {
	if !strings.Contains(text, "{{") && len(text) <= mostText {
		return text, nil
	}
	deadline, cancel := context.WithTimeout(ctx, longestTime)
	defer cancel()
	b := &bounds{stop: func() error { return context.Cause(deadline) }}
	t, err := parseTemplate(text, b)
	if err != nil {
		return "", err
	}
	var data any = p
	if more != nil {
		data = withNames(p, more)
	}
	var out limitedText
	err = t.Execute(&out, data)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fault.Wrap("render", fault.ErrInvalid, plainly(err), "")
	}
	return out.String(), nil
}

// withNames is p as a map, with more names in it.
func withNames(p *Params, more map[string]any) map[string]any {
	data := map[string]any{}
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		data[v.Type().Field(i).Name] = v.Field(i).Interface()
	}
	for name, value := range more {
		data[name] = value
	}
	return data
}

// plainly is an error of a template, without the name that all our templates have.
func plainly(err error) error {
	var exec template.ExecError
	if errors.As(err, &exec) {
		return fmt.Errorf("line %s", strings.TrimPrefix(err.Error(), "template: "+templateName+":"))
	}
	return err
}

// limitedText keeps what a template writes, up to mostText.
type limitedText struct{ strings.Builder }

func (l *limitedText) Write(p []byte) (int, error) {
	if l.Len()+len(p) > mostText {
		return 0, fmt.Errorf("%w: more than %d KiB of text", errTooMuch, mostText>>10)
	}
	return l.Builder.Write(p)
}

const templateName = "t"

// parseTemplate parses a template and has it ask b at every step that b lets it go on.
func parseTemplate(text string, b *bounds) (*template.Template, error) {
	if len(text) > mostText {
		return nil, fault.New("template", fault.ErrInvalid, fmt.Sprintf("longer than %d KiB", mostText>>10), "")
	}
	t, err := template.New(templateName).Option("missingkey=error").Funcs(b.functions()).Parse(text)
	if err != nil {
		return nil, fault.New("template", fault.ErrInvalid, "line "+strings.TrimPrefix(err.Error(), "template: "+templateName+":"), "")
	}
	for _, each := range t.Templates() {
		if each.Tree == nil || each.Root == nil {
			continue
		}
		if err := guard(each.Root, each.Tree, 0); err != nil {
			return nil, fault.New("template", fault.ErrInvalid, err.Error(), "")
		}
		before(each.Root, each.Tree, callFunction)
	}
	return t, nil
}

// Functions that watch puts into templates. A template that calls them itself gains nothing.
const (
	stepFunction  = "backstayStep"
	callFunction  = "backstayCall"
	printFunction = "backstayPrint"
)

// before has a function called before what a template, or a round of a loop, does.
func before(list *parse.ListNode, tree *parse.Tree, function string) {
	at := tree.Root.Pos
	call := &parse.ActionNode{
		NodeType: parse.NodeAction, Pos: at, Line: 1,
		Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: at, Line: 1, Cmds: []*parse.CommandNode{command(tree, at, function)}},
	}
	list.Nodes = append([]parse.Node{call}, list.Nodes...)
}

// guard has every round of a loop counted, and everything looked at before it is printed. Both would otherwise go on for ever without
// calling any function of ours.
func guard(list *parse.ListNode, tree *parse.Tree, depth int) error {
	if list == nil {
		return nil
	}
	if depth > mostNested {
		return fmt.Errorf("%w: more than %d blocks in each other", errTooMuch, mostNested)
	}
	for _, n := range list.Nodes {
		var block *parse.BranchNode
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, command(tree, n.Pos, printFunction))
			}
			continue
		case *parse.IfNode:
			block = &n.BranchNode
		case *parse.WithNode:
			block = &n.BranchNode
		case *parse.RangeNode:
			block = &n.BranchNode
		default:
			continue
		}
		if err := errors.Join(guard(block.List, tree, depth+1), guard(block.ElseList, tree, depth+1)); err != nil {
			return err
		}
		if block.NodeType == parse.NodeRange {
			before(block.List, tree, stepFunction)
		}
	}
	return nil
}

func command(tree *parse.Tree, at parse.Pos, function string) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: at, Args: []parse.Node{parse.NewIdentifier(function).SetPos(at).SetTree(tree)}}
}
