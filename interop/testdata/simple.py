# A client without structured replies. Run by nbdsh; uri and stock are set.
import nbd

h = nbd.NBD()
h.set_request_structured_replies(False)
h.set_strict_mode(0)
h.connect_uri(uri)
assert not h.get_structured_replies_negotiated()
assert not h.can_df()
h.pwrite(b"simple" * 100, 1000)
assert h.pread(602, 999) == b"\0" + b"simple" * 100 + b"\0"
h.zero(512, 1024)
h.trim(512, 0)
h.flush()
for call in (lambda: h.pread(512, h.get_size()), lambda: h.pread_structured(512, 0, lambda *a: 0, nbd.CMD_FLAG_DF)):
    try:
        call()
    except nbd.Error as e:
        assert e.errno == "EINVAL", e
    else:
        raise AssertionError("not refused")
    assert h.pread(6, 1000) == b"simple"
h.shutdown()
