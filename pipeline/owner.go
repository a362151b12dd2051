package pipeline

// Owner returns the identity of what the event belongs to: the ID of its container, or of its host where no
// container is known, or the host's name where it has no ID. It aliases e.
func (e *Event) Owner() string {
	if id := e.GetContainer().GetId(); id != "" {
		return id
	}
	if id := e.GetHost().GetId(); id != "" {
		return id
	}
	return e.GetHost().GetName()
}

// IDText returns event.id as a UUID, "" where the event has none.
func (e *Event) IDText() string {
	if len(e.GetId()) != len(ID{}) {
		return ""
	}
	return rawText(e.Id)
}
