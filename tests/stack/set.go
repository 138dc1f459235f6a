package stack

// Set changes settings of a native box, "NAME=value", from the next Up on.
func (s *Stack) Set(settings ...string) {
	n := s.driver.(*native)
	n.env = append(n.env, settings...) // the last one counts
}
