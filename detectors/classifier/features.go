package classifier

import (
	"math"
	"strings"
)

// Features names the features of a label, in the order of FeatureVector. Training and evaluation compute them
// with the same code.
var Features = [...]string{
	"length", "entropy", "digits", "vowels", "consonant run", "distinct characters", "letter-digit changes",
	"likeness to names", "least likely part", "likeness to generated", "unseen trigrams", "top level",
}

// NumFeatures is the number of features.
const NumFeatures = len(Features)

// maxLabel is the longest label (RFC 1035 section 2.3.4).
const maxLabel = 63

// The symbols of the language models: a to z, 0 to 9, hyphen, everything else, and the border of the label.
const (
	firstDigit = 26
	hyphen     = 36
	other      = 37
	border     = 38

	// NumSymbols is the number of symbols.
	NumSymbols = 39
)

func symbolOf(c byte) int {
	switch {
	case 'a' <= c && c <= 'z':
		return int(c - 'a')
	case 'A' <= c && c <= 'Z':
		return int(c - 'A')
	case '0' <= c && c <= '9':
		return firstDigit + int(c-'0')
	case c == '-':
		return hyphen
	}
	return other
}

// Trigrams is a language model: for each sequence of three symbols, at TrigramIndex, 16 × the natural
// logarithm of the probability that the third follows the first two.
type Trigrams []int8

// NumTrigrams is the length of Trigrams.
const NumTrigrams = NumSymbols * NumSymbols * NumSymbols

// TrigramIndex returns the place of three symbols in Trigrams.
func TrigramIndex(a, b, c int) int { return (a*NumSymbols+b)*NumSymbols + c }

// EachTrigram calls f for each trigram of a label with a border on both sides.
func EachTrigram(label string, f func(a, b, c int)) {
	a, b := border, border
	for i := range min(len(label), maxLabel) {
		c := symbolOf(label[i])
		f(a, b, c)
		a, b = b, c
	}
	f(a, b, border)
}

// Languages holds what is known of the labels of each class.
type Languages struct {
	Names     Trigrams           // of labels that people chose
	Generated Trigrams           // of generated labels
	Suffixes  map[string]float32 // by public suffix: how much more often it is under generated labels, as a logarithm
}

// A FeatureVector holds the features of one label.
type FeatureVector [NumFeatures]float32

// setShape sets the features that need no language model, in one pass over the label.
func (v *FeatureVector) setShape(label string) {
	var counts [NumSymbols]uint8
	var digits, vowels, consonantRun, longestRun, changes, previousClass int
	size := min(len(label), maxLabel)
	for i := range size {
		symbol := symbolOf(label[i])
		counts[symbol]++

		// class is 1 for letters, 2 for digits, 3 for the rest; a change from one to another is a feature.
		class := 1
		switch {
		case symbol >= firstDigit && symbol < hyphen:
			digits++
			consonantRun, class = 0, 2
		case symbol == 0 || symbol == 4 || symbol == 8 || symbol == 14 || symbol == 20 || symbol == 24: // a e i o u y
			vowels++
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

	// Shannon's entropy, in bits: log2(n) - sum(count × log2(count)) / n.
	var entropy float64
	distinct := 0
	for _, count := range counts {
		if count > 0 {
			distinct++
			entropy -= float64(count) * log2[count]
		}
	}

	// In the order of Features.
	divisor := float64(max(size, 1))
	v[0] = float32(size)
	v[1] = float32(entropy/divisor + log2[size])
	v[2] = float32(float64(digits) / divisor)
	v[3] = float32(float64(vowels) / divisor)
	v[4] = float32(longestRun)
	v[5] = float32(float64(distinct) / divisor)
	v[6] = float32(changes)
}

// log2 holds the logarithms of the numbers up to maxLabel.
var log2 = func() (table [maxLabel + 1]float64) {
	for i := 1; i < len(table); i++ {
		table[i] = math.Log2(float64(i))
	}
	return table
}()

// ComputeFeatures sets all features of a label under a public suffix. It does not allocate.
func (l *Languages) ComputeFeatures(featureVector *FeatureVector, label, suffix string) {
	featureVector.setShape(label)

	// The same walk as EachTrigram, without a call for each trigram. window is the sum over the last four
	// trigrams, whose values are in last; least is the smallest window.
	const (
		windowSize = 4    // a power of two
		rare       = -100 // less probable than one in five hundred
	)
	var names, generated, window, least, unseen, count int
	var last [windowSize]int
	a, b := border, border
	size := min(len(label), maxLabel)
	for i := 0; i <= size; i++ {
		c := border
		if i < size {
			c = symbolOf(label[i])
		}
		at := TrigramIndex(a, b, c)
		p := int(l.Names[at])
		names += p
		generated += int(l.Generated[at])
		if p <= rare {
			unseen++
		}
		window += p - last[count&(windowSize-1)]
		last[count&(windowSize-1)] = p
		count++
		if count >= windowSize && window < least {
			least = window
		}
		a, b = b, c
	}
	featureVector[7] = float32(names) / float32(count)
	featureVector[8] = float32(least)
	featureVector[9] = float32(generated-names) / float32(count)
	featureVector[10] = float32(unseen) / float32(count)
	featureVector[11] = l.Suffixes[suffix]
}

// Split takes a registered domain apart: the label that somebody chose and the public suffix behind it.
func Split(registered string) (label, suffix string) {
	label, suffix, _ = strings.Cut(registered, ".")
	return label, suffix
}
