package config

import "fmt"

// Nearest returns the known name that is most similar to a wrong name, or "" if none is similar. If
// several names have the same distance, it returns the first.
func Nearest(name string, known []string) string {
	best, limit := "", max(2, len(name)/3)+1
	for _, candidate := range known {
		if distance := editDistance(name, candidate, limit); distance < limit {
			best, limit = candidate, distance
		}
	}
	return best
}

// DidYouMean returns the end of a message about an unknown name: `, did you mean "x"?`, or "" if no known
// name is similar.
func DidYouMean(name string, known []string) string {
	if nearest := Nearest(name, known); nearest != "" && name != "" {
		return fmt.Sprintf(", did you mean %q?", nearest)
	}
	return ""
}

// editDistance returns Levenshtein's distance of a and b, or limit where it is not below limit.
func editDistance(a, b string, limit int) int {
	if len(a) > 100 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}

	// row[j] is the distance of a[:i] and b[:j]; the loop moves i forward by one.
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
