"""People of a camera or stream as they move, sent to other programs: `multihmr live`."""
