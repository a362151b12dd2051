package engine

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// A campaign is a scenario to which faults happen, one after the other.
type campaign struct {
	*scenario
	t      *testing.T
	random *rand.Rand
	began  time.Time
	log    strings.Builder
	counts map[string]int // of faults, by kind

	garbage []string // messages that are no batches and must become dead letters
	letters []kafkago.Message
}

// logLine writes a line to the log of the campaign and to that of the test.
func (c *campaign) logLine(format string, args ...any) {
	line := fmt.Sprintf("%8.1fs  ", time.Since(c.began).Seconds()) + fmt.Sprintf(format, args...)
	c.log.WriteString(line + "\n")
	c.t.Log(line)
}

// inject lets a fault happen among new messages.
func (c *campaign) inject(number int, kind faultKind) {
	c.t.Helper()
	for partition := range c.partitions {
		c.send(partition, 3+c.random.IntN(5), 10+c.random.IntN(20))
	}
	c.counts[kind.name]++
	c.logLine("fault %d: %s", number, kind.name)
	kind.inject(c)
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// logState writes the state of each partition to the log, and reports whether all messages are processed and their signals folded.
func (c *campaign) logState() (isClosed bool) {
	c.t.Helper()
	isClosed = true
	for partition := range c.partitions {
		first, end := c.bounds(pipeline.TopicEvents, partition)
		offset, intent := c.committed(partition)
		c.logLine("    partition %d: log [%d,%d), committed %d %q", partition, first, end, offset, intent)
		isClosed = isClosed && offset == end && intent == ""
	}
	return isClosed && c.areFolded()
}

// check compares the store, the alerts and the dead letters with those without faults.
func (c *campaign) check() {
	c.t.Helper()
	c.checkStoredOnce(c.t)
	c.checkAlerts(c.t)
	c.checkDeadLetters()
	if c.t.Failed() {
		c.logBlocks()
		c.t.FailNow()
	}
	sum := c.sumOfMessages(c.t)
	c.logLine("    as without faults: %d rows, %d with verdicts, %d dead letters, %d events deleted unread",
		sum.rows, sum.withVerdicts, len(c.garbage), c.deleted)
}

// logBlocks writes the newest stored blocks of each partition, and the blocks of its newest alerts, to the log.
func (c *campaign) logBlocks() {
	for partition := range c.partitions {
		for what, from := range map[string]string{
			"rows of a block": "min(_offset), max(_offset), count(), countIf(notEmpty(`verdict.rule`)), `event.ingested` AS at FROM events WHERE _partition",
			"alerts":          "min(offset), max(offset), count(), uniqExact(id), ingested AS at FROM alert_revisions WHERE partition",
		} {
			out := answer(c.t, c.store, fmt.Sprintf("SELECT %s = %d GROUP BY at ORDER BY at DESC LIMIT 8", from, partition))
			c.logLine("    partition %d, %s: offsets, number, with verdicts or distinct, block time\n%s", partition, what, out)
		}
	}
}

// checkDeadLetters checks that each message that is no batch is a dead letter.
func (c *campaign) checkDeadLetters() {
	c.t.Helper()
	seen := map[string]bool{}
	for _, letter := range append(slices.Clip(c.letters), c.read(pipeline.TopicDeadLetter, 0)...) {
		seen[string(letter.Value)] = true
	}
	for _, value := range c.garbage {
		if !seen[value] {
			c.t.Errorf("message %q is no dead letter", value[:min(len(value), 40)])
		}
	}
}

// table returns the number of faults of each kind, the most frequent first.
func (c *campaign) table() string {
	var kinds []string
	sum := 0
	for kind, count := range c.counts {
		kinds = append(kinds, kind)
		sum += count
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(cmp.Compare(c.counts[b], c.counts[a]), cmp.Compare(a, b))
	})
	var out strings.Builder
	for _, kind := range kinds {
		fmt.Fprintf(&out, "%6d  %s\n", c.counts[kind], kind)
	}
	fmt.Fprintf(&out, "%6d  faults\n", sum)
	return out.String()
}

// newCampaign returns a campaign at a broker in memory, or at Apache Kafka if TIDEGATE_CAMPAIGN_KAFKA is
// "apache".
func newCampaign(t *testing.T, seed uint64) *campaign {
	t.Helper()
	var brokers *harness
	if os.Getenv("TIDEGATE_CAMPAIGN_KAFKA") == "apache" {
		addr, pid := startApacheKafka(t)
		brokers = harnessAt(t, []string{addr}, 2, kafka.AssignStatic)
		brokers.brokerPIDs = []int{pid}
	} else {
		brokers = newHarness(t, 2, kafka.AssignStatic)
	}
	return &campaign{
		scenario: newScenario(t, "campaign", brokers, 2, kafka.AssignStatic), t: t,
		random: rand.New(rand.NewPCG(14, seed)), began: time.Now(), counts: map[string]int{},
	}
}

// shortCampaign is the number of faults of the campaign in `make test`.
const shortCampaign = 29

// TestEachEventIsStoredOnceThroughACampaignOfFaults: every kind of fault happens at least once, in random
// order, many of them while the block of the fault before is unfinished. TIDEGATE_CAMPAIGN is the number of
// faults, and TIDEGATE_CAMPAIGN_LOG the file for the log of the campaign. The long form at Apache Kafka:
//
//	TIDEGATE_CAMPAIGN=203 TIDEGATE_CAMPAIGN_KAFKA=apache go test -timeout 60m -run CampaignOfFaults ./pipeline/engine
func TestEachEventIsStoredOnceThroughACampaignOfFaults(t *testing.T) {
	count, seed := shortCampaign, uint64(shortCampaign)
	if n, err := strconv.Atoi(os.Getenv("TIDEGATE_CAMPAIGN")); err == nil {
		count, seed = n, uint64(n)
	}
	if n, err := strconv.Atoi(os.Getenv("TIDEGATE_CAMPAIGN_SEED")); err == nil {
		seed = uint64(n)
	}
	campaign := newCampaign(t, seed)
	if path := os.Getenv("TIDEGATE_CAMPAIGN_LOG"); path != "" {
		defer func() {
			if err := os.WriteFile(path, []byte(campaign.log.String()), 0o600); err != nil {
				t.Error(err)
			}
		}()
	}
	campaign.logLine("%d faults, seed %d", count, seed)
	var order []int // a random order of all kinds, again and again
	for i := range count {
		if len(order) == 0 {
			order = campaign.random.Perm(len(faultKinds))
		}
		campaign.inject(i+1, faultKinds[order[0]])
		order = order[1:]
		if campaign.logState() {
			campaign.check()
		}
	}
	campaign.runUntilClosed(t)
	campaign.logState()
	campaign.check()
	campaign.log.WriteString("\n" + campaign.table())
	t.Log("\n" + campaign.table())
}
