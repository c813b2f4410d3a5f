"""The bytes on disk, and nothing else: no file is read or written here. `docs/format.md` describes them."""
