package vault

import (
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/object"

	"github.com/backstay/backstay/internal/point"
)

// How objects are cut, by content. Files that never shift are cut at fixed places, which takes less than half the CPU.
const (
	splitTree   = "DYNAMIC-4M-BUZHASH"
	splitPacked = "FIXED-4M"
	splitBlock  = "FIXED-1M"

	compressor compression.Name = "zstd-fastest"

	maxPack = 20 << 20 // bytes; maintenance rewrites packs that stay far below
)

// writerOptions says how kopia is to store a file of content c.
func writerOptions(c point.Content) object.WriterOptions {
	o := object.WriterOptions{MetadataCompressor: compressor}
	switch c {
	case point.Packed:
		o.Splitter, o.AsyncWrites = splitPacked, 1 // the source goes on sending while a pack is synced
	case point.Block:
		o.Splitter = splitBlock
	case point.Tree:
		o.Splitter = splitTree
	default:
		o.Splitter, o.Compressor = splitTree, compressor
	}
	return o
}

// noObject is the id of no object: what it belongs to is not stored.
var noObject = object.EmptyID
