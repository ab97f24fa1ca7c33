# Four connections to one export. Run by nbdsh; uri and stock are set.
import nbd

handles = [nbd.NBD() for _ in range(4)]
for h in handles:
    h.connect_uri(uri)
    assert h.can_multi_conn()
for n in range(64):
    data = bytes([n + 1]) * 4096
    handles[n % 4].pwrite(data, n * 4096)
    handles[(n + 1) % 4].flush()
    assert handles[(n + 2) % 4].pread(4096, n * 4096) == data
for h in handles:
    h.shutdown()
