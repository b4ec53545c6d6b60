package offline

// numbers is a set of numbers of items, small where they lie close together: a bit each.
type numbers map[int64]*[64]uint64

func (n numbers) add(number int64) {
	page := number >> 12
	if n[page] == nil {
		n[page] = new([64]uint64)
	}
	n[page][number>>6&63] |= 1 << (number & 63)
}

func (n numbers) has(number int64) bool {
	page := n[number>>12]
	return page != nil && page[number>>6&63]&(1<<(number&63)) != 0
}
