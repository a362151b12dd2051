package sessions

import "tidegate/collector/reassembly"

// A history lists the kinds of segments of each side, one letter for each, in the order of their first
// occurrence.
type history struct {
	letters [24]byte
	n       uint8
	present uint32 // bits: two for each kind, by sender
}

// A segmentKind is what a letter of the history stands for.
type segmentKind uint8

const (
	kindSYN segmentKind = iota
	kindSYNACK
	kindPureACK
	kindData
	kindFIN
	kindReset
	kindRetransmission
	kindZeroWindow
	kindGap
)

// historyLetters are Zeek's letters, by segmentKind. Those of the server are in lower case.
const historyLetters = "SHADFRTWG"

const lowerCase = 0x20

// addKind appends the letter of kind unless d has it already.
func (h *history) addKind(kind segmentKind, dir reassembly.Dir) {
	bit := uint32(1) << (2*uint(kind) + uint(dir))
	if h.present&bit != 0 || int(h.n) == len(h.letters) {
		return
	}
	h.present |= bit
	letter := historyLetters[kind]
	if dir == fromServer {
		letter |= lowerCase
	}
	h.letters[h.n] = letter
	h.n++
}

// historyText returns the history. flipped exchanges the sides, which "^" in front says.
func (h *history) historyText(flipped bool) string {
	letters := h.letters[:h.n]
	if !flipped {
		if common, ok := commonHistories[string(letters)]; ok {
			return common
		}
		return string(letters)
	}
	flippedLetters := make([]byte, 0, len(h.letters)+1)
	flippedLetters = append(flippedLetters, '^')
	for _, letter := range letters {
		flippedLetters = append(flippedLetters, letter^lowerCase)
	}
	return string(flippedLetters)
}

// commonHistories holds histories that recur, so that they need no memory of their own.
var commonHistories = func() map[string]string {
	m := map[string]string{}
	for _, s := range []string{
		"Dd", "D", "S", "Sr", "ShAFf", "ShADad", "ShADadFf", "ShADadfF", "ShADadFfA", "ShADadFfR", "ShADadFRf",
		"ShADadR", "ShADadr", "ShADaFdf", "ShADdaf", "ShADdaFf", "ShADdafF", "ShADdFf", "ShADFdfa", "ShAdDaFf", "ShAdDaFfA",
	} {
		m[s] = s
	}
	return m
}()
