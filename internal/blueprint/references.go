package blueprint

import (
	"text/template/parse"
)

// referencesOf returns the chains of names in a template that begin at what it is rendered with: .A.B and $.A.B.
func referencesOf(text string) ([][]string, error) {
	t, err := parseTemplate(text, &bounds{stop: func() error { return nil }})
	if err != nil || t.Tree == nil {
		return nil, err
	}
	var found references
	found.list(t.Root, true)
	return found, nil
}

type references [][]string

// list looks through a part of a template. Where dot is something else, only $ is what the template is rendered with.
func (r *references) list(l *parse.ListNode, dot bool) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			r.pipe(n.Pipe, dot)
		case *parse.IfNode:
			r.branch(&n.BranchNode, dot, dot)
		case *parse.RangeNode:
			r.branch(&n.BranchNode, dot, false)
		case *parse.WithNode:
			r.branch(&n.BranchNode, dot, false)
		case *parse.TemplateNode:
			r.pipe(n.Pipe, dot)
		}
	}
}

func (r *references) branch(b *parse.BranchNode, dot, within bool) {
	r.pipe(b.Pipe, dot)
	r.list(b.List, within)
	r.list(b.ElseList, dot)
}

func (r *references) pipe(p *parse.PipeNode, dot bool) {
	if p == nil {
		return
	}
	for _, command := range p.Cmds {
		for _, n := range command.Args {
			r.node(n, dot)
		}
	}
}

func (r *references) node(n parse.Node, dot bool) {
	switch n := n.(type) {
	case *parse.FieldNode:
		if dot {
			*r = append(*r, n.Ident)
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			*r = append(*r, n.Ident[1:])
		}
	case *parse.ChainNode:
		r.node(n.Node, dot)
	case *parse.PipeNode:
		r.pipe(n, dot)
	}
}
