package control

import (
	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// commands is the table of everything that a monitor can ask for, in groups.
func (p *Plane) commands() []qmp.Command {
	return []qmp.Command{
		// Objects.
		{Name: "object-add", Handler: p.objectAdd},
		{Name: "object-del", Handler: qmp.With(p.objectDel)},
		{Name: "qom-get", Handler: qmp.With(p.qomGet)},
		{Name: "qom-set", Handler: qmp.With(p.qomSet)},
		{Name: "qom-list", Handler: qmp.With(p.qomList)},
		{Name: "query-iothreads", Handler: qmp.NoArgs(p.queryIOThreads)},

		// Nodes.
		{Name: "blockdev-add", Handler: p.blockdevAdd},
		{Name: "blockdev-del", Handler: qmp.With(p.blockdevDel)},
		{Name: "blockdev-reopen", Handler: qmp.With(p.blockdevReopen)},
		{Name: "block_resize", Handler: qmp.With(p.blockResize)},
		{Name: "blockdev-snapshot", Handler: qmp.With(p.blockdevSnapshot)},
		{Name: "blockdev-snapshot-sync", Handler: qmp.With(p.blockdevSnapshotSync)},
		{Name: "blockdev-snapshot-internal-sync", Handler: qmp.With(p.internalSnapshot)},
		{Name: "blockdev-snapshot-delete-internal-sync", Handler: qmp.With(p.deleteInternalSnapshot)},
		{Name: "x-blockdev-snapshot-apply", Handler: qmp.With(p.applyInternalSnapshot)},
		{Name: "change-backing-file", Handler: qmp.With(p.changeBackingFile)},
		{Name: "transaction", Handler: qmp.With(p.transaction)},
		{Name: "x-blockdev-set-iothread", Handler: qmp.With(p.setIOThread)},
		{Name: "x-blockdev-set-timeout", Handler: qmp.With(p.setTimeout)},
		{Name: "x-blockdev-insert", Handler: qmp.With(p.insertNode)},
		{Name: "x-blockdev-remove", Handler: qmp.With(p.removeNode)},
		{Name: "x-blockdev-replace", Handler: qmp.With(p.replaceNode)},
		{Name: "query-named-block-nodes", Handler: qmp.With(p.queryNamedBlockNodes)},
		{Name: "query-blockstats", Handler: qmp.With(p.queryBlockstats)},
		{Name: "query-block", Handler: qmp.NoArgs(p.queryBlock)},
		{Name: "x-debug-query-block-graph", Handler: qmp.NoArgs(p.queryBlockGraph)},

		// Jobs.
		{Name: "blockdev-create", Handler: qmp.With(p.blockdevCreate)},
		{Name: "query-jobs", Handler: qmp.NoArgs(p.queryJobs)},
		{Name: "query-block-jobs", Handler: qmp.NoArgs(p.queryBlockJobs)},
		{Name: "job-pause", Handler: p.jobVerb(blockcore.JobPause)},
		{Name: "job-resume", Handler: p.jobVerb(blockcore.JobResume)},
		{Name: "job-cancel", Handler: p.jobVerb(blockcore.JobCancel)},
		{Name: "job-complete", Handler: p.jobVerb(blockcore.JobComplete)},
		{Name: "job-finalize", Handler: p.jobVerb(blockcore.JobFinalize)},
		{Name: "job-dismiss", Handler: p.jobVerb(blockcore.JobDismiss)},

		// Dirty bitmaps.
		{Name: "block-dirty-bitmap-add", Handler: qmp.With(p.bitmapAdd)},
		{Name: "block-dirty-bitmap-remove", Handler: qmp.With(p.bitmapVerb(removeBitmap))},
		{Name: "block-dirty-bitmap-clear", Handler: qmp.With(p.bitmapVerb(clearBitmap))},
		{Name: "block-dirty-bitmap-enable", Handler: qmp.With(p.bitmapVerb(enableBitmap))},
		{Name: "block-dirty-bitmap-disable", Handler: qmp.With(p.bitmapVerb(disableBitmap))},
		{Name: "block-dirty-bitmap-merge", Handler: qmp.With(p.bitmapMerge)},

		// The NBD server and its exports.
		{Name: "nbd-server-start", Handler: p.nbdServerStart},
		{Name: "nbd-server-stop", Handler: qmp.NoArgs(p.nbdServerStop)},
		{Name: "nbd-server-add", Handler: qmp.With(p.nbdServerAdd)},
		{Name: "nbd-server-remove", Handler: qmp.With(p.nbdServerRemove)},
		{Name: "block-export-add", Handler: p.blockExportAdd},
		{Name: "block-export-del", Handler: qmp.With(p.blockExportDel)},
		{Name: "query-block-exports", Handler: qmp.NoArgs(p.queryBlockExports)},
		{Name: "x-export-set-throttle", Handler: qmp.With(p.exportSetThrottle)},

		// Clients, requests, drained sections.
		{Name: "x-query-clients", Handler: qmp.NoArgs(p.queryClients)},
		{Name: "x-client-disconnect", Handler: qmp.With(p.clientDisconnect)},
		{Name: "x-query-inflight", Handler: qmp.NoArgs(p.queryInflight)},
		{Name: "x-drain-begin", Handler: qmp.With(p.drainBegin)},
		{Name: "x-drain-renew", Handler: qmp.With(p.drainRenew)},
		{Name: "x-drain-end", Handler: qmp.With(p.drainEnd)},
		{Name: "x-query-drains", Handler: qmp.NoArgs(p.queryDrains)},
	}
}
