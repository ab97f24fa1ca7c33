// Package sim runs the block layer in a simulation: a seed gives random graphs, clients, faults and changes of the graph, and always
// the same run.
//
// # What is real and what is not
//
// Graph, Nodes, Edges, Roots, Tasks, chores, throttle groups and jobs are those of blockcore; throttle, inject, raw and copy-on-read are those of
// backends/filters, with checks around them; so is that of backends/qcow2. Their loops are [blockcore.Stepped]: the
// scheduler (world.run) has one of them do one thing, or lets one goroutine of the control plane go on, or lets time pass. It is the
// only goroutine that decides, and it decides by the seed. Time is that of a testing/synctest bubble.
//
// Goroutines of the control plane block inside of blockcore. The scheduler waits until all of them do (synctest.Wait) before
// it decides again, so nothing runs beside a loop. One thing that happens may wake several of them at once: those
// run at the same time up to the end of their call, where each parks until it is chosen. What they do up to there is to look at
// counts and to note their own result, so their order is not seen.
//
// # The fault model
//
// A disk has contents and, below them, what is stable. It may:
//   - take any time for a request, so that requests overtake one another, and do it in pieces at different times;
//   - fail a request with EIO, before it has done anything or in the middle;
//   - refuse to zero other than by writing; keep or zero what is discarded;
//   - lose at a crash, for each cell by itself, any of the writes since the last flush that succeeded;
//   - end a request early that nobody wants any more;
//   - tell, of what nobody has written yet, that it comes from another disk below: copy-on-read writes that back.
//
// It does not lie about flushes, and it does not change what nobody writes.
//
// Under an image (backends/qcow2 as it is, on a file in memory) the same holds for each sector of the file. Overlays are put on images and on disks while
// clients write. What a power cut would leave is looked at in copies: they are opened, and read to the end.
//
// Clients go with requests in flight, held back, or waiting for limits: they hang up, or are thrown out, as nbd has it (client.go). Each comes back at once over another
// connection to the same Root, and reads and changes what it had asked for, perhaps while that is under way; it may go again. Requests that were held while their Root moved begin
// again, behind what has come to the new loop meanwhile. nbd has none of these: in a section it reads nothing.
//
// # What is checked
//
//   - Reads of clients and jobs: each cell of 64 bytes holds a write that was under way, or the last one before (volume.go). What one read has found is so for those after it: a write
//     that has failed was done or not.
//   - Gone clients: what they had in flight is done before what comes to their Root later reads or changes in the same place, or never (orphan.go). What they
//     had waiting for limits, or for what others have left, is dropped at once where they were thrown out. What somebody wants does not end early.
//   - Crashes: what was flushed, or written with FUA, is there.
//   - Bitmaps: what was written to a node since is marked, and nothing else. Those that an image keeps are right in what a power cut, a reopen or a close
//     leaves, or said to be in use (bitmap.go).
//   - Sections: nothing begins, runs or ends where a section has settled (section.go).
//   - Callbacks: Quiesce and Resume alternate, for drivers and owners, parents before children.
//   - Held requests are admitted in the order of their coming, ahead of those that came later.
//   - Every request and every change ends; what has no deadline of its own never fails because of one.
//   - Jobs do I/O in no section that has settled, and conclude.
//   - In the end counts are zero, nobody is quiesced, permissions are those that the Roots ask for, throttle groups have no members,
//     no buffer is out.
package sim
