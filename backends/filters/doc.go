// Package filters has the drivers that stand on top of one other node, in blockcore.RoleFile, and change how it is reached: Throttle,
// CopyOnRead, Compress, Inject (errors, delays and requests held), and Raw, the format without a header, which shows a window of a file.
//
// Each of them embeds blockcore.Filter and replaces what it does in another way. They can be put under a client and taken away again
// while it goes on, in a drained section:
//
//	owner        owner                       owner
//	  |            |       Replace              |
//	  |            |   [throttle]           [throttle]
//	  |            |       |                    |
//	[disk]       [disk]----+ AddNode         [disk]
//
// What a request meets here it meets in flight: a drain waits for it, and names the node.
//
// The package starts no goroutines.
package filters
