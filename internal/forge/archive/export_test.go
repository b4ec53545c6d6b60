package archive

// Segments counts the segments of an archive.
func Segments(r *Reader) int { return len(r.segments) }
