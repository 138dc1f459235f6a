// Package guard is what the programs of the box protect themselves and each other with: each package below it answers
// one kind of attack, and none knows what the program does that it stands in.
package guard
