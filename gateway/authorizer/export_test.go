package authorizer

// Waiting is how many requests wait for calls under way.
func (set *Set) Waiting() int {
	n := 0
	for _, s := range set.states {
		s.cache.mu.Lock()
		for _, f := range s.cache.flights {
			n += f.waiters
		}
		s.cache.mu.Unlock()
	}
	return n
}
