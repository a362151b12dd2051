package classifier

import (
	"math"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Features holds the names of the features, in the order of FeatureVector. A model is trained on exactly
// these features in this order.
var Features = [...]string{
	"length", "entropy", "digits", "vowels", "consonant run", "distinct characters", "letter-digit changes",
	"likeness to names", "least likely part", "likeness to generated", "unseen trigrams", "top level",
}

// NumFeatures is the number of features.
const NumFeatures = len(Features)

// maxLabel is the length of the longest label (RFC 1035 section 2.3.4).
const maxLabel = 63

// The symbols of the language models are numbered: 0 to 25 for a to z, then these.
const (
	firstDigit = 26 // of ten
	hyphen     = 36
	other      = 37 // any other byte
	border     = 38 // before the first and after the last byte of a label

	// NumSymbols is the number of symbols.
	NumSymbols = 39
)

// symbolOf returns the symbol of a byte of a label. It ignores case.
func symbolOf(char byte) int {
	switch {
	case 'a' <= char && char <= 'z':
		return int(char - 'a')
	case 'A' <= char && char <= 'Z':
		return int(char - 'A')
	case '0' <= char && char <= '9':
		return firstDigit + int(char-'0')
	case char == '-':
		return hyphen
	}
	return other
}

// Trigrams is a language model of labels. The element at TrigramIndex(a, b, c) is 16 × the natural logarithm
// of the probability that symbol c follows a and b.
type Trigrams []int8

// NumTrigrams is the length of Trigrams.
const NumTrigrams = NumSymbols * NumSymbols * NumSymbols

// TrigramIndex returns the index of three symbols in Trigrams.
func TrigramIndex(a, b, c int) int { return (a*NumSymbols+b)*NumSymbols + c }

// EachTrigram calls visit for each trigram of a label. Two borders precede the label and one follows it.
func EachTrigram(label string, visit func(a, b, c int)) {
	before, previous := border, border // the two symbols before c
	for i := range min(len(label), maxLabel) {
		current := symbolOf(label[i])
		visit(before, previous, current)
		before, previous = previous, current
	}
	visit(before, previous, border)
}

// Languages holds the language models of both classes of labels, and the weights of public suffixes.
type Languages struct {
	Names     Trigrams // trained on labels that people chose
	Generated Trigrams // trained on generated labels

	// Suffixes holds a weight for each public suffix: the logarithm of how much more often generated labels
	// have the suffix than ordinary ones.
	Suffixes map[string]float32
}

// A FeatureVector holds the features of one label.
type FeatureVector [NumFeatures]float32

// setShape sets the features that need no language model.
func (v *FeatureVector) setShape(label string) {
	// 1. Count in one pass over the label.
	var counts [NumSymbols]uint8
	var digits, vowels, consonantRun, longestRun, changes, previousClass int
	size := min(len(label), maxLabel)
	for i := range size {
		symbol := symbolOf(label[i])
		counts[symbol]++

		// class is 1 for letters, 2 for digits, 3 for other symbols, and 0 before the first symbol. changes
		// counts the places where it changes.
		class := 1
		switch {
		case symbol >= firstDigit && symbol < hyphen:
			digits++
			consonantRun, class = 0, 2
		case symbol == 0 || symbol == 4 || symbol == 8 || symbol == 14 || symbol == 20 || symbol == 24:
			vowels++ // a e i o u y
			consonantRun = 0
		case symbol < firstDigit:
			consonantRun++
			longestRun = max(longestRun, consonantRun)
		default:
			consonantRun, class = 0, 3
		}
		if previousClass != 0 && class != previousClass {
			changes++
		}
		previousClass = class
	}

	// 2. Shannon's entropy in bits is log2(size) - sum(count × log2(count)) / size. entropy is the sum,
	// negated.
	var entropy float64
	distinct := 0
	for _, count := range counts {
		if count > 0 {
			distinct++
			entropy -= float64(count) * log2[count]
		}
	}

	// 3. Set the values in the order of Features. Counts are divided by the size, so that long and short
	// labels compare.
	divisor := float64(max(size, 1))
	v[0] = float32(size)
	v[1] = float32(entropy/divisor + log2[size])
	v[2] = float32(float64(digits) / divisor)
	v[3] = float32(float64(vowels) / divisor)
	v[4] = float32(longestRun)
	v[5] = float32(float64(distinct) / divisor)
	v[6] = float32(changes)
}

// log2 is a table of the binary logarithms of 1 to maxLabel, with 0 for 0.
var log2 = func() (table [maxLabel + 1]float64) {
	for i := 1; i < len(table); i++ {
		table[i] = math.Log2(float64(i))
	}
	return table
}()

// ComputeFeatures sets all features of a label under a public suffix. It does not allocate.
func (l *Languages) ComputeFeatures(vector *FeatureVector, label, suffix string) {
	// 1. The features of the shape.
	vector.setShape(label)

	// 2. Sum the values of both language models over the trigrams of the label. The loop is that of
	// EachTrigram, without a function call for each trigram.
	//
	// names and generated are the sums so far, count the number of trigrams. last is a ring of the last
	// windowSize values of Names and window is its sum; least is the smallest window, the least likely part.
	const (
		windowSize = 4    // a power of two
		rare       = -100 // a probability below 1/500, times 16 as a logarithm
	)
	var names, generated, window, least, unseen, count int
	var last [windowSize]int
	before, previous := border, border
	size := min(len(label), maxLabel)
	for i := 0; i <= size; i++ {
		current := border
		if i < size {
			current = symbolOf(label[i])
		}
		index := TrigramIndex(before, previous, current)
		value := int(l.Names[index])
		names += value
		generated += int(l.Generated[index])
		if value <= rare {
			unseen++
		}

		// The new value replaces the oldest one of the window.
		window += value - last[count&(windowSize-1)]
		last[count&(windowSize-1)] = value
		count++
		if count >= windowSize && window < least {
			least = window
		}
		before, previous = previous, current
	}

	// 3. Set the values in the order of Features. count is at least 1, for the border after the label.
	vector[7] = float32(names) / float32(count)
	vector[8] = float32(least)
	vector[9] = float32(generated-names) / float32(count)
	vector[10] = float32(unseen) / float32(count)
	vector[11] = l.Suffixes[suffix]
}

// Split divides a registered domain into the label that was registered and the public suffix after it.
func Split(registered string) (label, suffix string) {
	label, suffix, _ = strings.Cut(registered, ".")
	return label, suffix
}

// IsPrivateSuffix reports whether a public suffix belongs to a company that gives out the names below it, such as
// cloudfront.net (the private section of the Public Suffix List). Clouds make most of these names up, so they look
// generated, and nobody registered them.
func IsPrivateSuffix(suffix string) bool {
	if !strings.Contains(suffix, ".") {
		return false // a top-level domain
	}
	_, icann := publicsuffix.PublicSuffix(suffix)
	return !icann
}
