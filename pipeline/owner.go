package pipeline

// Owner returns the ID of the event's container, else the ID of its host, else the name of its host. All
// events of one owner are in one partition. The result aliases e.
func (e *Event) Owner() string {
	if id := e.GetContainer().GetId(); id != "" {
		return id
	}
	if id := e.GetHost().GetId(); id != "" {
		return id
	}
	return e.GetHost().GetName()
}

// IDText returns event.id as a UUID, or "" if the event has no valid ID.
func (e *Event) IDText() string {
	if len(e.GetId()) != len(ID{}) {
		return ""
	}
	return rawText(e.Id)
}
