package capture

import "testing"

const mebibyte = 1 << 20

// TestRingsStayWithinTheirLimit: the rings of the first interfaces have the configured size, those of any number of
// interfaces stay near the limit, and closed rings make room again.
func TestRingsStayWithinTheirLimit(t *testing.T) {
	rings := ringMemory{limit: 64 * mebibyte}
	var sizes []int64
	for range 20 {
		sizes = append(sizes, rings.reserve(8*mebibyte, 2))
	}
	if sizes[0] != 8*mebibyte || sizes[1] != 8*mebibyte {
		t.Errorf("the first interfaces have rings of %d and %d bytes", sizes[0], sizes[1])
	}
	for i, size := range sizes {
		if size < int64(minRingBytes) || i > 0 && size > sizes[i-1] {
			t.Errorf("interface %d has rings of %d bytes, after %d", i, size, sizes[max(i-1, 0)])
		}
	}
	// 64 MiB, and the least size of those that come when they are used up.
	if most := 64*mebibyte + 2*20*int64(minRingBytes); rings.held > most {
		t.Errorf("20 interfaces hold %d bytes, more than %d", rings.held, most)
	}

	for _, size := range sizes {
		rings.release(2 * size)
	}
	if rings.held != 0 {
		t.Errorf("%d bytes are held when all rings are closed", rings.held)
	}
	if size := rings.reserve(8*mebibyte, 2); size != 8*mebibyte {
		t.Errorf("the next interface has rings of %d bytes", size)
	}
	if size := (&ringMemory{limit: 64 * mebibyte}).reserve(8*mebibyte, 16); size != 2*mebibyte {
		t.Errorf("16 workers have rings of %d bytes", size)
	}
}
