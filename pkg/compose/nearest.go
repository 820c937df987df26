package compose

import (
	"slices"
	"strings"
)

// didYouMean is a hint for the key that the table does not know below pattern:
// the nearest that it knows there, or a key further down that has this name.
func didYouMean(key, pattern string) string {
	best, distance := "", 1+max(1, len(key)/3)
	for _, name := range below[pattern] {
		if d := editDistance(strings.ToLower(key), name); d < distance {
			best, distance = name, d
		}
	}
	if best != "" {
		return `did you mean "` + best + `"?`
	}
	var further []string
	for path := range rules {
		rest, ok := strings.CutPrefix(path, pattern+".")
		if ok && strings.HasSuffix(rest, "."+key) && !strings.Contains(rest, "*") && !strings.Contains(rest, "[]") {
			further = append(further, rest)
		}
	}
	if len(further) == 0 {
		return ""
	}
	return `did you mean "` + slices.MinFunc(further, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	}) + `"?`
}

// editDistance is the number of letters to insert, delete, change or swap with
// their neighbour to get from a to b.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
