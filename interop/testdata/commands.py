# Every command, with every flag that it may carry. Run by nbdsh; uri and stock are set.
import nbd

MIB = 1 << 20

h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(uri)
size = h.get_size()
assert size == 16 * MIB, size
assert h.get_structured_replies_negotiated()
assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_df()

# Writes and reads at odd places, alone and under FUA.
one = bytes(range(256)) * 16
h.pwrite(one, 0)
h.pwrite(one[:1000], 12345, nbd.CMD_FLAG_FUA)
assert h.pread(len(one), 0) == one
assert h.pread(1000, 12345) == one[:1000]
assert h.pread(1002, 12344) == b"\0" + one[:1000] + b"\0"
assert h.pread_structured(4096, 0, lambda *a: 0, nbd.CMD_FLAG_DF) == one
h.pwrite(b"!", size - 1)
assert h.pread(2, size - 2) == b"\0!"
h.flush()

# Zeroes: may deallocate, must not deallocate, at once, and at odd places.
h.pwrite(b"\x55" * MIB, MIB)
h.zero(64 << 10, MIB)
h.zero(64 << 10, MIB + (64 << 10), nbd.CMD_FLAG_NO_HOLE)
h.zero(777, MIB + (128 << 10) + 3, nbd.CMD_FLAG_FUA)
edge = MIB + (128 << 10)
assert h.pread(128 << 10, MIB) == bytes(128 << 10)
assert h.pread(1000, edge) == b"\x55" * 3 + bytes(777) + b"\x55" * 220
if h.can_fast_zero():
    try:
        h.zero(MIB, 2 * MIB, nbd.CMD_FLAG_FAST_ZERO)
        assert h.pread(MIB, 2 * MIB) == bytes(MIB)
    except nbd.Error as e:
        assert e.errno == "ENOTSUP", e

# A trim is a hint: what is outside of it stays.
h.pwrite(b"\x66" * MIB, 4 * MIB)
h.trim(512 << 10, 4 * MIB + (256 << 10), nbd.CMD_FLAG_FUA)
assert h.pread(256 << 10, 4 * MIB) == b"\x66" * (256 << 10)
assert h.pread(256 << 10, 4 * MIB + (768 << 10)) == b"\x66" * (256 << 10)
h.trim(1, 4 * MIB)
assert h.pread(1, 4 * MIB + 1) == b"\x66"

if h.can_cache():
    h.cache(MIB, 0)

# The map: extents are gapless, and no single one passes the end when only one is asked for.
extents = []


def gather(context, offset, entries, error):
    assert context == nbd.CONTEXT_BASE_ALLOCATION
    extents.append((offset, entries))


h.block_status(size, 0, gather)
assert len(extents) == 1 and extents[0][0] == 0
lengths = extents[0][1][0::2]
assert all(n > 0 for n in lengths) and sum(lengths) <= size, lengths
extents.clear()
h.block_status(4096, 8 * MIB, gather, nbd.CMD_FLAG_REQ_ONE)
assert len(extents[0][1]) == 2 and extents[0][1][0] <= 4096, extents

# One large request each way.
data = bytes(range(256)) * (12 * MIB // 256)
h.pwrite(data, 4 * MIB)
assert h.pread(12 * MIB, 4 * MIB) == data
h.shutdown()
