# Commands over TLS, many at once. Run by nbdsh; uri and stock are set.
import nbd

MIB = 1 << 20

h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(uri)
assert h.get_tls_negotiated()
assert h.get_structured_replies_negotiated(), "asked for again after TLS began"

h.pwrite(b"tls" * 1000, 4096, nbd.CMD_FLAG_FUA if h.can_fua() else 0)
assert h.pread(3000, 4096) == b"tls" * 1000
h.zero(MIB, 2 * MIB)
h.trim(MIB, 3 * MIB)
h.flush()
h.block_status(MIB, 0, lambda *a: 0)

buffers, wrong = [], []
for n in range(16):
    data = nbd.Buffer.from_bytearray(bytearray([n + 1]) * (MIB // 2))
    h.aio_pwrite(data, n * MIB // 2, lambda error: wrong.append(error.value) if error.value else 1)
while h.aio_in_flight() > 0:
    h.poll(-1)
for n in range(16):
    buffer = nbd.Buffer(MIB // 2)
    buffers.append(buffer)
    h.aio_pread(buffer, n * MIB // 2, lambda error: wrong.append(error.value) if error.value else 1)
while h.aio_in_flight() > 0:
    h.poll(-1)
assert not wrong, wrong
for n, buffer in enumerate(buffers):
    assert bytes(buffer.to_bytearray()) == bytes([n + 1]) * (MIB // 2), n

# A refused write's payload is swallowed inside the TLS stream (TLS-12).
h.set_strict_mode(0)
for _ in range(3):
    try:
        h.pwrite(b"x" * MIB, h.get_size())
    except nbd.Error as e:
        assert e.errno in ("ENOSPC", "EINVAL"), e
    else:
        raise AssertionError("a write past the end was not refused")
    assert h.pread(1, 0) == b"\x01"
h.shutdown()
