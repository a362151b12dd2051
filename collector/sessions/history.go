package sessions

import "tidegate/collector/reassembly"

// A history lists the kinds of segments of each side, one letter for each, in the order of their first
// occurrence. The letters are Zeek's; those of the server are in lower case.
type history struct {
	letters [24]byte
	n       uint8
	present uint32 // bits: two for each letter of historyLetters, by sender
}

// historyLetters: SYN, SYN with ACK, pure ACK, data, FIN, reset, retransmission, zero window, gap.
const historyLetters = "SHADFRTWG"

const lowerCase = 0x20

// addLetter appends the letter unless d has it already.
func (h *history) addLetter(letter byte, d reassembly.Dir) {
	bit := uint32(1) << (2*uint(letterIndex(letter)) + uint(d))
	if h.present&bit != 0 || int(h.n) == len(h.letters) {
		return
	}
	h.present |= bit
	if d == fromServer {
		letter |= lowerCase
	}
	h.letters[h.n] = letter
	h.n++
}

func letterIndex(letter byte) int {
	for i := range len(historyLetters) {
		if historyLetters[i] == letter {
			return i
		}
	}
	return len(historyLetters)
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
