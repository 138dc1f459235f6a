package authorizer

// Waiting is how many requests wait for calls under way.
func (a *Authorizers) Waiting() int {
	n := 0
	for _, s := range *a.states.Load() {
		s.cache.mu.Lock()
		for _, f := range s.cache.flights {
			n += f.waiters
		}
		s.cache.mu.Unlock()
	}
	return n
}
