package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/sessions"
)

// undecodedPackets counts packets that yield no event, by what stands in the way: the header at which decoding ended, or
// the damage.
type undecodedPackets map[string]int

// maxUndecoded bounds the different headers that are counted apart. A capture may have every EtherType.
const maxUndecoded = 200

// otherHeaders counts the packets of all headers beyond maxUndecoded.
const otherHeaders = "other headers"

func (u undecodedPackets) add(what string, packets int) {
	if _, known := u[what]; !known && len(u) >= maxUndecoded {
		what = otherHeaders
	}
	u[what] += packets
}

// sorted returns what was counted, the most frequent first.
func (u undecodedPackets) sorted() []string {
	return slices.SortedFunc(maps.Keys(u), func(a, b string) int {
		return cmp.Or(cmp.Compare(u[b], u[a]), strings.Compare(a, b))
	})
}

// printRows prints the counts as rows of a table.
func (u undecodedPackets) printRows(out io.Writer) {
	if len(u) == 0 {
		return
	}
	_, _ = fmt.Fprintf(out, "\nNOT DECODED\tPACKETS\n")
	for _, what := range u.sorted() {
		_, _ = fmt.Fprintf(out, "%s\t%s\n", what, formatCount(u[what]))
	}
}

// printSummary prints the counts as one line.
func (u undecodedPackets) printSummary(out io.Writer) {
	if len(u) == 0 {
		return
	}
	total := 0
	var parts []string
	for _, what := range u.sorted() {
		total += u[what]
		parts = append(parts, what+" "+formatCount(u[what]))
	}
	_, _ = fmt.Fprintf(out, "tidegate: %s not decoded: %s\n", countOf(total, "packet"), strings.Join(parts, ", "))
}

// captureUndecoded counts the packets of one capture file that are not decoded.
type captureUndecoded struct {
	total undecodedPackets
	link  uint32         // link type of the current packet
	links map[uint32]int // packets of link types that are not read
}

// add counts the current packet. It is called by the session table.
func (c *captureUndecoded) add(where sessions.Undecoded, result string) {
	switch where.Layer {
	case sessions.LayerLink:
		if uint64(c.link) == where.Number || result == "unknown_link" {
			c.links[c.link]++
			where.Number = uint64(c.link) // the table knows the lower bits only
		}
		c.total.add(where.String(), 1)
	case sessions.LayerTunnel:
		c.total.add(where.String()+", not opened", 1)
	default:
		if where == (sessions.Undecoded{}) {
			c.total.add(strings.ReplaceAll(result, "_", " "), 1)
			return
		}
		c.total.add(where.String(), 1)
	}
}

// finish adds the packets that the session table has left out behind their headers, which reg counts once the table is closed.
// The error names link types that are not read.
func (c *captureUndecoded) finish(name string, reg prometheus.Gatherer) error {
	families, err := reg.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		for _, metric := range family.Metric {
			packets := int(metric.Counter.GetValue())
			switch name := family.GetName(); {
			case packets == 0:
			case name == "tidegate_sessions_dropped_fragments_total":
				c.total.add("fragment of an incomplete datagram", packets)
			case name == "tidegate_sessions_dropped_segments_total" && metric.Label[0].GetValue() == "checksum":
				c.total.add("wrong checksum of TCP or UDP", packets)
			}
		}
	}
	var errs []error
	for _, link := range slices.Sorted(maps.Keys(c.links)) {
		errs = append(errs, fmt.Errorf("read %s: link type %d is not read: %s", name, link, countOf(c.links[link], "packet")))
	}
	return errors.Join(errs...)
}
