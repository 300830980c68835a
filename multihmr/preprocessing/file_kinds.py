"""What a file is that is no readable picture, told by its first bytes: for messages that say what to do."""

from __future__ import annotations

HEAD_BYTES = 512  # that are looked at

_RAW = "camera raw data, which is not read; convert it to JPEG or a TIFF of 8 or 16 bits"
_VIDEO = "a video; `multihmr video` and predict_video read those"
_ARCHIVE = "an archive or compressed; unpack it first"
_KINDS = (  # (offset, bytes there, what it is); the first that fits
    (0, b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` fetches the picture"),
    (0, b"%PDF", "a PDF document; save its page as PNG or JPEG"),
    (0, b"%!PS", "PostScript, which is not read; save it as PNG or JPEG"),
    (0, b"8BPS", "a Photoshop document, which is not read; save it as PNG or JPEG"),
    (0, b"\xff\x0a", "JPEG XL, which is not read; save it as PNG or JPEG"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL, which is not read; save it as PNG or JPEG"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR, whose range is unknown; save it with 8 or 16 bits"),
    (0, b"#?RADIANCE", "Radiance HDR, whose range is unknown; save it with 8 or 16 bits"),
    (0, b"\x93NUMPY", "a NumPy array; give np.load(path)"),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIRO", _RAW),
    (0, b"IIU\0", _RAW),
    (4, b"ftypcrx", _RAW),
    (8, b"CR\x02", _RAW),
    (0, b"PK\x03\x04", _ARCHIVE),
    (0, b"\x1f\x8b", _ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (0, b"Rar!", _ARCHIVE),
    *((4, b"ftyp" + brand, _VIDEO) for brand in (b"iso", b"mp4", b"avc1", b"M4V", b"qt  ", b"3g", b"dash")),
    (0, b"\x1aE\xdf\xa3", _VIDEO),
    (0, b"FLV\x01", _VIDEO),
    (8, b"AVI ", _VIDEO),
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def kind_of_file(head: bytes) -> str | None:
    """What a file that is no readable picture begins like, with what to do; None if that is unknown.

    Args:
        head: its first `HEAD_BYTES` bytes.

    Examples:
        >>> kind_of_file(b"<!DOCTYPE html><html>404</html>")
        'a web page, perhaps the answer to a download that failed'
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps the answer to a download that failed"
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "a drawing (SVG); save it as PNG"
    for offset, magic, kind in _KINDS:
        if head[offset:].startswith(magic):
            return kind
    if head.startswith(_TIFF):
        return "a TIFF of an unknown kind, as camera raw or colours of 32 bits; save it with 8 or 16 bits"
    if not head.strip(b"\0"):
        return "full of zeros, as after a copy that was cut short"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return None
