# Requests that the server must refuse. Run by nbdsh; uri and stock are set.
import nbd

h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(uri)
size = h.get_size()
before = h.pread(size, 0)


def refused(errno, call, *args):
    want = {"EINVAL"} if stock else {errno}
    try:
        call(*args)
    except nbd.Error as e:
        assert e.errno in want, "%s%r: got %s, want %s" % (call.__name__, args[1:], e.errno, want)
    else:
        raise AssertionError("%s%r was not refused" % (call.__name__, args[1:]))
    assert h.pread(8, 0) == before[:8], "the connection lost its place"


far = (1 << 63) - 512
for offset in (size, size - 511, size + 512, far):
    refused("EINVAL", h.pread, 512, offset)
    refused("ENOSPC", h.pwrite, b"x" * 512, offset)
    refused("EINVAL", h.trim, 512, offset)
    refused("ENOSPC", h.zero, 512, offset)
    refused("EINVAL", h.block_status, 512, offset, lambda *a: 0)
refused("EINVAL", h.pread, 0x1000, size - 0xFFF)
refused("EINVAL", h.trim, 0xFFFFFFFF, 512)
refused("ENOSPC", h.zero, 0xFFFFFFFF, 512)

# Flags that do not belong to the command.
refused("EINVAL", h.pread, 512, 0, nbd.CMD_FLAG_NO_HOLE)
refused("EINVAL", h.pwrite, b"y" * 512, 0, nbd.CMD_FLAG_REQ_ONE)
refused("EINVAL", h.pwrite, b"y" * 512, 0, nbd.CMD_FLAG_DF)
refused("EINVAL", h.trim, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
refused("EINVAL", h.pwrite, b"y" * 512, 0, 1 << 14)

# A refused write is answered behind its payload and not in the middle of it: libnbd, still sending, would find no
# request that the reply belongs to.
refused("ENOSPC", h.pwrite, b"z" * (8 << 20), size - 512)
refused("EINVAL", h.pwrite, b"z" * (8 << 20), 0, nbd.CMD_FLAG_REQ_ONE)

# The longest status request there is does not overflow anything.
short = []
try:
    h.block_status(0xFFFFFFFF, 0, lambda c, o, e, err: short.append(e))
except nbd.Error as e:
    assert e.errno == "EINVAL", e

assert h.pread(size, 0) == before, "a refused request changed the disk"
h.shutdown()
