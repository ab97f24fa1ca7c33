package blockcore

// ThrottleMember stands for a Root in a throttle group.
type ThrottleMember struct{}

// Suspend takes the limits off.
func (m *ThrottleMember) Suspend() {}

// Resume puts them on again.
func (m *ThrottleMember) Resume() {}

// Move follows the Root.
func (m *ThrottleMember) Move(c *AioContext) {}
