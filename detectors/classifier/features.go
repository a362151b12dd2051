package classifier

import (
	"math"
	"strings"
)

// Features are what a tree may ask of a label, in this order. Training and judging read them from the same function.
var Features = [...]string{
	"length", "entropy", "digits", "vowels", "consonant run", "distinct characters", "letter-digit changes",
	"likeness to names", "least likely part", "likeness to generated", "unseen trigrams", "top level",
}

const nFeatures = len(Features)

// maxLabel is the longest label (RFC 1035 section 2.3.4).
const maxLabel = 63

// The alphabet of the language models: a to z, 0 to 9, hyphen, everything else, and the border of the label.
const (
	hyphen   = 36
	other    = 37
	border   = 38
	alphabet = 39
)

func symbol(c byte) int {
	switch {
	case 'a' <= c && c <= 'z':
		return int(c - 'a')
	case 'A' <= c && c <= 'Z':
		return int(c - 'A')
	case '0' <= c && c <= '9':
		return 26 + int(c-'0')
	case c == '-':
		return hyphen
	}
	return other
}

// A trigramModel is how likely each trigram is, as 16 × its natural logarithm: 39³ bytes.
type trigramModel []int8

const trigrams = alphabet * alphabet * alphabet

// learnTrigrams counts the trigrams of labels; what was never seen counts a little, by what its last two characters are.
func learnTrigrams(labels []string) trigramModel {
	tri, bi := make([]float64, trigrams), make([]float64, alphabet*alphabet)
	uni := make([]float64, alphabet)
	for _, l := range labels {
		eachTrigram(l, func(a, b, c int) {
			tri[(a*alphabet+b)*alphabet+c]++
			bi[b*alphabet+c]++
			uni[c]++
		})
	}
	all := 0.0
	for _, n := range uni {
		all += n
	}
	out := make(trigramModel, trigrams)
	for a := range alphabet {
		for b := range alphabet {
			context, biContext := 0.0, 0.0
			for c := range alphabet {
				context += tri[(a*alphabet+b)*alphabet+c]
				biContext += bi[b*alphabet+c]
			}
			for c := range alphabet {
				pUni := (uni[c] + 0.5) / (all + 0.5*alphabet)
				pBi := (bi[b*alphabet+c] + 10*pUni) / (biContext + 10)
				p := (tri[(a*alphabet+b)*alphabet+c] + 5*pBi) / (context + 5)
				out[(a*alphabet+b)*alphabet+c] = int8(max(-127, math.Round(16*math.Log(p))))
			}
		}
	}
	return out
}

// eachTrigram calls f for each trigram of a label with a border on both sides.
func eachTrigram(label string, f func(a, b, c int)) {
	a, b := border, border
	for i := range min(len(label), maxLabel) {
		c := symbol(label[i])
		f(a, b, c)
		a, b = b, c
	}
	f(a, b, border)
}

// A featureVector is the features of one label.
type featureVector [nFeatures]float32

// setLabelShape fills in what needs no model, in one pass.
func (v *featureVector) setLabelShape(label string) {
	var counts [alphabet]uint8
	var digits, vowels, run, longest, changes, before int
	n := min(len(label), maxLabel)
	for i := range n {
		c := symbol(label[i])
		counts[c]++
		kind := 1
		switch {
		case c >= 26 && c < hyphen:
			digits++
			run, kind = 0, 2
		case c == 0 || c == 4 || c == 8 || c == 14 || c == 20 || c == 24: // a e i o u y
			vowels++
			run = 0
		case c < 26:
			run++
			longest = max(longest, run)
		default:
			run, kind = 0, 3
		}
		if before != 0 && kind != before {
			changes++
		}
		before = kind
	}
	var entropy float64
	distinct := 0
	for _, k := range counts {
		if k > 0 {
			distinct++
			entropy -= float64(k) * log2[k]
		}
	}
	size := float64(max(n, 1))
	v[0] = float32(n)
	v[1] = float32(entropy/size + log2[n])
	v[2] = float32(float64(digits) / size)
	v[3] = float32(float64(vowels) / size)
	v[4] = float32(longest)
	v[5] = float32(float64(distinct) / size)
	v[6] = float32(changes)
}

var log2 = func() (t [maxLabel + 1]float64) {
	for i := 1; i < len(t); i++ {
		t[i] = math.Log2(float64(i))
	}
	return t
}()

// computeFeatures fills in all of v.
func (m *Model) computeFeatures(v *featureVector, label, suffix string) {
	v.setLabelShape(label)
	var names, generated, window, least, unseen, n int
	var last [4]int
	a, b := border, border
	size := min(len(label), maxLabel)
	for i := 0; i <= size; i++ {
		c := border
		if i < size {
			c = symbol(label[i])
		}
		at := (a*alphabet+b)*alphabet + c
		p := int(m.names[at])
		names += p
		generated += int(m.generated[at])
		if p <= -100 { // less than one in five hundred
			unseen++
		}
		window += p - last[n&3]
		last[n&3] = p
		n++
		if n >= 4 && window < least {
			least = window
		}
		a, b = b, c
	}
	v[7] = float32(names) / float32(n)
	v[8] = float32(least)
	v[9] = float32(generated-names) / float32(n)
	v[10] = float32(unseen) / float32(n)
	v[11] = m.suffixes[suffix]
}

// Split takes a registered domain apart: the label that somebody chose and the public suffix behind it.
func Split(registered string) (label, suffix string) {
	label, suffix, _ = strings.Cut(registered, ".")
	return label, suffix
}
