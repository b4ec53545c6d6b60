package git

import "context"

const maxPointerList = 1 << 30

func (c *capture) lfsName() string                                 { return c.source.PartName() + "/lfs" }
func (c *capture) pointers(ctx context.Context) ([]Pointer, error) { return nil, nil }
func (c *capture) largeFiles(ctx context.Context) error            { return nil }
func encodePointers(ps []Pointer) string                           { return "" }
func decodePointers(raw []byte) ([]Pointer, error)                 { return nil, nil }

const lfsObjects = "lfs/objects"
