# The largest requests there are. Run by nbdsh; uri and stock are set.
import nbd

MIB = 1 << 20
largest = 32 * MIB if stock else 64 * MIB

h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(uri)
data = bytes(range(256)) * (largest // 256)
h.pwrite(data, 8 * MIB)
assert h.pread(largest, 8 * MIB) == data
h.zero(h.get_size(), 0)
assert h.pread(largest, 8 * MIB) == bytes(largest)
h.trim(h.get_size(), 0)
h.flush()
h.shutdown()
