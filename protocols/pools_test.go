package protocols

import (
	"testing"

	"tidegate/pipeline/memory"
)

// TestPoolsAreBounded and charged, and are dropped when the memory budget is exceeded.
func TestPoolsAreBounded(t *testing.T) {
	var log []string
	set, parser := toys(&log, nil)
	account := memory.New(1<<30, nil).Open("parsers")
	set.SetMemory(account)
	set.releaseTail(nil)
	set.releaseTail(make([]byte, 0, maxFreeTail+1))
	if len(set.freeTails) != 0 || set.pooled != 0 {
		t.Errorf("%d buffers are kept, %d bytes", len(set.freeTails), set.pooled)
	}
	tails := 0
	for range maxFreeTails + 5 {
		set.releaseTail(make([]byte, 3, maxFreeTail))
		tails = min(tails+1, maxFreeTails)
		if len(set.freeTails) != tails || set.pooled != tails*maxFreeTail {
			t.Fatalf("%d buffers are kept, want %d; %d bytes", len(set.freeTails), tails, set.pooled)
		}
	}
	if tail := set.takeTail(); len(tail) != 0 || cap(tail) != maxFreeTail || set.pooled != (maxFreeTails-1)*maxFreeTail {
		t.Errorf("a buffer of %d of %d bytes, %d bytes are kept", len(tail), cap(tail), set.pooled)
	}
	before := set.pooled
	for range maxFreeParsers + 5 {
		set.releaseParser(0, parser)
	}
	if len(set.freeParsers[0]) != maxFreeParsers || set.pooled != before+maxFreeParsers*parserBytes {
		t.Errorf("%d parsers are kept, %d bytes", len(set.freeParsers[0]), set.pooled-before)
	}
	if set.takeParser(0) != parser || set.pooled != before+(maxFreeParsers-1)*parserBytes {
		t.Errorf("%d bytes are kept", set.pooled-before)
	}
	before = set.pooled
	var conns []*Conn
	for range maxFreeConns + 5 {
		conns = append(conns, set.Open(Info{}, nil))
	}
	for _, conn := range conns {
		conn.Close(0)
	}
	if len(set.freeConns) != maxFreeConns || set.pooled != before+maxFreeConns*connBytes {
		t.Errorf("%d connections are kept, %d bytes", len(set.freeConns), set.pooled-before)
	}
	set.dropPools()
	if set.pooled != 0 || len(set.freeConns)+len(set.freeTails)+len(set.freeParsers[0]) != 0 {
		t.Errorf("%d bytes are kept", set.pooled)
	}
	if tail := set.takeTail(); cap(tail) != newTail || set.pooled != 0 {
		t.Errorf("a new buffer of %d bytes", cap(tail))
	}
}
