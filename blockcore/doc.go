// Package blockcore is the block layer and the event loops that it runs on.
//
// # Concepts
//
// An [AioContext] is one event loop on one OS thread. A [Task] is a coroutine of a context: straight-line code that may suspend, and
// that only its loop resumes. So what is "Owned by the context" is touched by one thread and needs no lock, and code between two
// suspensions is never interrupted by other code of the context.
//
// An engine does the I/O and the waiting of a context: io_uring where the kernel allows it, otherwise epoll with worker goroutines.
// A [Watcher] waits for one socket. While it is hot its [Handler] is simply called in every turn, since asking a socket
// costs less than having the kernel announce it; before the loop sleeps, hot Watchers are armed in the engine.
//
// A [Node] is one layer of storage: a [Driver] with its requests in flight. An [Edge] leads to a Node and is the only thing with
// I/O methods: it checks ranges and permission, widens what the driver's alignment asks for, splits, counts. A [Root] is the handle
// of an owner outside of the graph, such as an export; it admits requests, or holds them back while a [Drained] section lasts. The
// [Graph] names the nodes.
//
// The first parameter says who may call: *Task = a Task of that context, while it runs; none = anywhere, or as stated.
//
// # The life of a request
//
//	Handler.ReadyIn        a request has arrived whole
//	  AioContext.Spawn     a Task for it; it runs at once
//	    Root.Begin         counted in, or held back by a drained section
//	      Edge.Write       range, permission, alignment; the node's count +1
//	        RangeLocks     where the node has an alignment
//	        Driver.WriteAt
//	          Task.Pwrite  an operation in the engine's queue; the Task suspends
//	                       ... others run; one submission a turn; the loop sleeps, wakes, reaps ...
//	        Driver.WriteAt returns
//	      Edge.Write       returns; the node's count -1
//	    the reply is handed to the connection
//	    Root.End           counted out; the last one lets a drain go on
//	TurnEnder.TurnEnd      the connection sends the replies of the turn
//
// One turn of the loop, in this order (turn.go):
//
//	posted work -> timers -> hot sockets -> ready Tasks -> submit -> completions -> ready Tasks -> turn ends
//
// # Lock order
//
// A lock may be taken while one above it is held, never the other way. Nothing suspends, posts or waits while it holds one.
//
//	Graph.mu            names of nodes, users of nodes
//	AioContext.mu       posted work
//	workerPool.mu       jobs for the workers
//	threadsEngine.mu    operations that workers have done
//	membuf.Pool         free I/O memory
//	ThrottleGroup.mu    limits and levels, waiting requests and whose turn it is
//
// The lock of processors.go stands alone: no other is held with it.
//
// # Known deadlocks, and what excludes them
//
//  1. The loop sleeps while there is work for it. Whoever makes work visible does so before it calls wake, and the loop says that it
//     sleeps before it looks for the last time (AioContext.wake).
//  2. A Task waits for its own loop: by Do, Drain, RemoveNode or Close. These are for ordinary goroutines only. A Task that wants one
//     of them hands the work to the control plane and goes on.
//  3. A loop runs inside of a loop. There is no way to run one: who waits for a loop blocks on a channel.
//  4. A mutex is held by a Task that is suspended, and the next Task blocks on it and with it the thread. State of a context has no
//     mutex, and the mutexes above are leaves of a few lines.
//  5. Two requests wait for each other's ranges. A request waits only for requests that came before it, and none takes a second
//     range of the same node (RangeLocks).
//  6. A drain waits for a request that the drain itself holds back. Only Root.Begin holds back, once and before anything of
//     the request has begun; what drivers do below on its behalf goes through Edges, which never do.
//  7. Operations wait for room in the ring while nobody reaps. Nothing waits for room: what finds none is kept and submitted
//     by a later turn (uringEngine.starved).
//  8. All workers do jobs that wait for a job that waits for a worker. A function given to Block makes system calls; it does not
//     wait for its context.
//  9. Close waits for Tasks that wait for work to be posted, which a closed context refuses: a request held back by
//     a drained section, for one. The owner ends its sections and its requests before it closes the context.
//  10. A loop that always has something to do never asks the kernel about its sockets. Ready Tasks that become ready in a batch wait for
//     the next one, completions of the ring raise a flag in memory, and the engine of threads asks epoll every few turns
//     (unaskedMax).
//  11. A drain waits for a request that waits for the limits of its throttle group, or for the turn of another member.
//     ThrottleMember.Suspend has all requests of the member run at once, whatever the others do; who drains calls it first.
//
// # Goroutines
//
//   - AioContext.loop: one for each context, locked to its thread. Started by NewAioContext, ends after Close, when no Task is left.
//   - workerPool.workLoop: as many as a context has had jobs at once, at most ContextOptions.Workers. Started by
//     workerPool.run; they end when their loop has ended.
//
// The coroutines of Tasks are goroutines to the runtime, but it never schedules them: each runs only when its loop switches to it. The
// loop ends those that it does not keep for reuse, and all of them when it ends itself.
package blockcore
