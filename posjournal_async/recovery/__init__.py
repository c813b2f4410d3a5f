"""Opening what a crash may have left: observe, decide, repair.

`observe` reads and changes nothing. `decide` is a pure function from what was found to a plan: it says what a crash
explains and how to mend that, and raises `Corruption` for what no crash explains, before anything is touched. `repair`
carries the plan out, in an order in which a crash at any step leaves something that the next open repairs to the same
result:

1. The checkpoint that was read is made durable, if it was only in the page cache.
2. A reset that was begun is finished: all blobs go, then the checkpoint says so.
3. What an interrupted prune left below the boundary goes.
4. Blobs behind the longest contiguous prefix go; the last section is cut behind its last record.
5. Records above the durable size are written again and synced: that they can be read shows that the page cache has
   them, not that the device does.
6. The offsets are made to say what the data says.
7. The checkpoint vouches for all of it, under the name of the codec that opens the journal.

That name may be another than the one found: a codec may read what an older one wrote (`ReadsOlder`). No item of the new
codec is handed to the storage before the checkpoint with its name is durable, and the place of the other slot is
written only after that. So a crash before step 7 is through leaves a journal of items of the old codec, under the old
name, or the new one if that reached the device; and after it the old name is nowhere in a slot that can ever count
again. The headers of data blobs keep the name under which they were made: it is never newer than the checkpoint's, and
the items of a blob never older than its header. Where a slot that counted is lost, the header of the last blob says the
newest name that is known, and it is always looked at; items of the new codec may stand in a blob of the old one, and
`decode` of the old one must refuse them.
"""
