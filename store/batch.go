package store

// Scripts take plain jobs, which need nothing but the transition itself, in groups
// that share some commands, and the others one by one.

// stretch is some plain items and the others that follow on them.
type stretch[T any] struct{ plain, others []T }

// stretches splits items so that those that are plain keep their place between
// the others.
func stretches[T any](items []T, plain func(T) bool) []stretch[T] {
	var out []stretch[T]
	for i := 0; i < len(items); {
		from := i
		for i < len(items) && plain(items[i]) {
			i++
		}
		turn := i
		for i < len(items) && !plain(items[i]) {
			i++
		}
		out = append(out, stretch[T]{items[from:turn], items[turn:i]})
	}
	return out
}

// bundle is items that have a key in common.
type bundle[K comparable, T any] struct {
	key   K
	items []T
}

// bundled collects items by their key, in the order in which the keys come first.
func bundled[K comparable, T any](items []T, key func(T) K) []bundle[K, T] {
	var groups []bundle[K, T]
	index := make(map[K]int, 1)
	for _, it := range items {
		k := key(it)
		i, known := index[k]
		if !known {
			i = len(groups)
			index[k] = i
			groups = append(groups, bundle[K, T]{key: k})
		}
		groups[i].items = append(groups[i].items, it)
	}
	return groups
}

// bySegment splits items by their segment, keeping their order.
func bySegment[T any](items []T, segment func(T) int) map[int][]T {
	parts := make(map[int][]T)
	for _, it := range items {
		parts[segment(it)] = append(parts[segment(it)], it)
	}
	return parts
}

// chunk splits items so that each part respects the limits of one call.
func chunk[T any](items []T, size func(T) int) [][]T {
	return chunkOf(items, maxBatch, func(it T) (int, int) { return 1, size(it) })
}

// chunkOf splits items so that each part weighs at most limit and has about
// maxBatchBytes; one that exceeds this by itself is alone.
func chunkOf[T any](items []T, limit int, cost func(T) (weight, bytes int)) [][]T {
	var parts [][]T
	from, weight, bytes := 0, 0, 0
	for i, it := range items {
		w, b := cost(it)
		if i > from && (weight+w > limit || bytes+b > maxBatchBytes) {
			parts = append(parts, items[from:i])
			from, weight, bytes = i, 0, 0
		}
		weight, bytes = weight+w, bytes+b
	}
	if from < len(items) {
		parts = append(parts, items[from:])
	}
	return parts
}
