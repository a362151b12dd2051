package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
)

// allow returns a permission on everything of a resource.
func allow(resource kmsg.ACLResourceType, operation kmsg.ACLOperation) kfake.ACL {
	name := "*"
	if resource == kmsg.ACLResourceTypeCluster {
		name = "kafka-cluster"
	}
	return kfake.ACL{
		Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation,
		Allow: true,
	}
}

// login sets the credentials of a SASL user.
func login(user string) func(*Config) {
	return func(cfg *Config) { cfg.SASL = SASL{Mechanism: plainMechanism, Username: user, Password: "secret"} }
}

// TestAccessIsCheckedWithoutWriting asks a cluster with permissions, before the topics exist and afterwards.
func TestAccessIsCheckedWithoutWriting(t *testing.T) {
	const topic, group = kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeGroup
	describe := allow(topic, kmsg.ACLOperationDescribe)
	user := func(name string, acls ...kfake.ACL) kfake.Opt { return kfake.User("PLAIN", name, "secret", acls...) }
	brokers := broker(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "root", "secret"),
		user("nobody"),
		user("creator", describe, allow(topic, kmsg.ACLOperationCreate)),
		user("reader", describe, allow(topic, kmsg.ACLOperationRead), allow(group, kmsg.ACLOperationRead)),
		user("writer", describe, allow(topic, kmsg.ACLOperationWrite)))
	check := func(name string, use Use, exists bool, want string) {
		t.Helper()
		client := dial(t, brokers, login(name))
		got, err := client.CheckTopic(t.Context(), pipeline.TopicEvents, use)
		switch {
		case got != exists:
			t.Errorf("%s: exists is %v, %v", name, got, err)
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || Classify(err) != Denied):
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}

	check("creator", ToProduce|ToFetch, false, "")
	check("root", ToProduce|ToFetch, false, "")
	check("reader", ToFetch, false, "create topic tidegate.events")
	check("nobody", ToFetch, false, "create topic tidegate.events")

	root := dial(t, brokers, login("root"))
	if counts, _, err := root.findTopics(t.Context(), []string{pipeline.TopicEvents}); err != nil || len(counts) != 0 {
		t.Fatalf("the check has created %v, %v", counts, err)
	}
	if _, err := root.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("root", ToProduce|ToFetch, true, "")
	check("reader", ToFetch, true, "")
	check("reader", ToFetch|ToProduce, true, "produce to tidegate.events")
	check("writer", ToProduce, true, "")
	check("writer", ToFetch|ToProduce, true, "fetch from tidegate.events")
	check("nobody", ToProduce, false, "create topic tidegate.events")

	if err := dial(t, brokers, login("reader")).CheckGroup(t.Context(), "tidegate-engine", pipeline.TopicEvents); err != nil {
		t.Error(err)
	}
	err := dial(t, brokers, login("writer")).CheckGroup(t.Context(), "tidegate-engine", pipeline.TopicEvents)
	if err == nil || Classify(err) != Denied {
		t.Errorf("the group of a user without the permission: %v", err)
	}

	// Nothing was written.
	ends, err := root.EndOffsets(t.Context(), root.Topic(pipeline.TopicEvents), []int{0, 1, 2, 3})
	if err != nil || ends[0]+ends[1]+ends[2]+ends[3] != 0 {
		t.Errorf("the check has written: %v, %v", ends, err)
	}
}
