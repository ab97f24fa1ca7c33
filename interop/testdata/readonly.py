# Writing commands to a read-only export. Run by nbdsh; uri and stock are set.
import nbd

h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(uri)
assert h.is_read_only()
before = h.pread(h.get_size(), 0)
for name, call in (
    ("write", lambda: h.pwrite(b"x" * 512, 0)),
    ("write with FUA", lambda: h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)),
    ("trim", lambda: h.trim(512, 0)),
    ("zero", lambda: h.zero(512, 0)),
):
    try:
        call()
    except nbd.Error as e:
        want = ("EPERM", "EINVAL") if stock else ("EPERM",)
        assert e.errno in want, "%s: %s" % (name, e.errno)
    else:
        raise AssertionError(name + " was not refused")
h.flush()
assert h.pread(h.get_size(), 0) == before
h.shutdown()
