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
// [Graph] names the nodes. All nodes that share requests are on one context, and move to another together.
//
// The graph changes under its users: a [Tx] is a change that stands or falls as a whole, and moves an edge only where a Drained section covers who
// uses it. A drain quiesces what it names and all above it, waits once, and its section ends without waiting. A node counts its
// sections as QEMU does: one for each of its own, one for each child that is covered. A [Chore] is what a driver does by itself, and
// is stopped by a section. A [Job] is long work under an operator's eyes, which every section over one of its nodes pauses.
//
// A request ends when its storage says so, unless nobody is left who wants it: a [Canceller] ends it before (cancel.go).
//
// The first parameter says who may call: *Task = a Task of that context, while it runs; *Tx = the control plane, which changes the
// graph, one at a time; none = anywhere, or as stated.
//
// # The life of a request
//
//	Handler.ReadyIn        a request has arrived whole
//	  AioContext.Spawn     a Task for it; it runs at once
//	    Root.Begin         counted in, or held back by a drained section
//	      Edge.Write       range, permission, alignment; the node's count +1
//	        RangeLocks     where the node has an alignment, or a range of it is held
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
// # The life of a section
//
//	Graph.Drain
//	  Graph.quiesce          in the control plane: counts on nodes and Roots, parents first; what changes from
//	                         free to covered is told to its loop, in one step for each loop
//	    step.run             on the loop: throttling off -> what is queued is submitted -> Quiesce, parents first
//	  Graph.settle           the one wait: until every step has been taken, no owner is Busy and no node has anything
//	                         in flight; looked at afresh whenever the bell rings
//	Drained.End
//	  Graph.resume           in the control plane, which may be whoever holds it: counts, and steps to the loops
//	    step.run             on the loop: throttling on -> Resume, children first; the requests that were held, in order
//
// A change of the graph in between goes by the counts at its end: who is covered before and after notices nothing. The owner
// of a Root that is closed in a section is told nothing any more. A node that is removed is quiesced and closed in a section of its own; what it has to
// write then goes to its children although others may hold sections over them, as in QEMU.
//
// # Lock order
//
// A lock may be taken while one above it is held, never the other way. Nothing suspends or waits while it holds a mutex.
// Graph.control is a token and no mutex: who holds it is the control plane, and waits for loops.
//
//	Graph.control       changes of the graph; begin and end of sections
//	Graph.mu            the graph itself, and the counts of sections. Drivers are asked under it what they are and need
//	Jobs.mu             states of jobs
//	bell.mu             who waits for a drain
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
//  2. A Task waits for its own loop: by Do, Drain, Update or Close. These are for ordinary goroutines only. A Task that wants one
//     of them hands the work to the control plane (Task.Control), where it has no request in flight.
//  3. A loop runs inside of a loop. There is no way to run one: who waits for a loop blocks on a channel.
//  4. A mutex is held by a Task that is suspended, and the next Task blocks on it and with it the thread. State of a context has no
//     mutex, and the mutexes above are leaves of a few lines.
//  5. Two requests wait for each other's ranges. A request waits only for requests that came before it, and none takes a second
//     range of the same node (RangeLocks). Who holds a range waits besides for the writes that came without a lock before it: these
//     wait for nobody at that node, and what comes after it has a lock (Edge.Hold). Waits at two nodes go downwards only.
//  6. A drain waits for a request that the drain itself holds back. Only Root.Begin holds back, once and before anything of
//     the request has begun; what drivers do below on its behalf goes through Edges, which never do, and so does what a Job
//     does between two checkpoints.
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
//  12. A drain is told by nobody that what it waits for is over. Whoever makes something quiet does so before it rings, and who waits takes the
//     bell before it looks; a change of the graph rings as well, since it may take away what was waited for.
//  13. A change waits for a section to end whose end waits for the change. End waits for nobody: who holds the control plane resumes the section when it lets
//     go, and while it waits for a node to close. The function given to Update neither drains nor updates: it holds the token that these wait for.
//  14. A job waits for the drain that waits for it. Its end runs in the control plane, when the job is not busy any more.
//  15. A request is lost between two loops. What a Root holds back is taken off it in one go when it moves, and begins again when the other side is
//     ready; on a loop that the Root has left nothing is admitted. A loop that is closed is not moved to.
//  16. A loop that changes the graph itself waits for itself. It does so only where Change is told that nothing in the change waits for a loop, and
//     where all that the section names is on that one (atOnce); a flush before it is a Task that suspends. Meanwhile the control plane waits, and it
//     takes the change back, if need be.
//
// # Goroutines
//
//   - AioContext.loop: one for each context, locked to its thread. Started by NewAioContext, ends after Close, when no Task is left.
//   - workerPool.workLoop: as many as a context has had jobs at once, at most ContextOptions.Workers. Started by
//     workerPool.run; they end when their loop has ended.
//   - Task.control: one while a Task waits for Control. It ends with the function that it runs.
//   - Job.finish: one for each job whose body has returned. It ends when the job is concluded, or waits for others of its group
//     or for an operator.
//
// The coroutines of Tasks are goroutines to the runtime, but it never schedules them: each runs only when its loop switches to it. The
// loop ends those that it does not keep for reuse, and all of them when it ends itself.
package blockcore
