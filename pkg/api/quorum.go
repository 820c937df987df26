package api

import "fmt"

// Quorum is how many of that many managers must answer: more than half.
func Quorum(managers int) int { return managers/2 + 1 }

// Tolerates is how many of that many managers may fail with the rest going on.
func Tolerates(managers int) int { return max(0, managers-Quorum(managers)) }

// AdviseManagers says what is wrong with that number of managers, or "".
func AdviseManagers(managers int) string {
	switch {
	case managers == 1:
		return "a single point of failure: use 3 or 5 managers"
	case managers > 0 && managers%2 == 0:
		return fmt.Sprintf("no more than with %d: use an odd number", managers-1)
	}
	return ""
}
