"""Opening what a crash may have left: observe, decide, repair.

`observe` reads and changes nothing. `decide` is a pure function from what was found to a plan: it says what a crash
explains and how to mend that, and raises `Corruption` for what no crash explains, before anything is touched. `repair`
carries the plan out, in an order in which a crash at any step leaves something that the next open repairs to the same
result:

1. The checkpoint that was read is made durable, if it was only in the page cache; in the other slot too, if that has
   a reset on record that is done.
2. A reset that was begun is finished: all blobs go, then the checkpoint says so.
3. Data that an interrupted prune left below the boundary goes.
4. Data blobs behind the longest contiguous prefix go; the last section is cut behind its last record.
5. Records above the durable size are written again and synced: that they can be read shows that the page cache has
   them, not that the device does.
6. The offsets of what went go too; the others are made to say what the data says.
7. The checkpoint vouches for all of it, under the name of the codec that opens the journal.

Step 7 may change the name of the codec: a codec may read what an older one wrote (`ReadsOlder`).

* No item of the new codec is handed to the storage before the checkpoint with its name is durable, and the other slot
  is written only after that. So a crash before the end of step 7 leaves items of the old codec only, under the old name
  or the new one. After step 7 the old name is in no slot that can ever count again.
* The header of a data blob keeps the name under which the blob was made. It is never newer than the name in the
  checkpoint, and the items of the blob are never older than it.
* Where the slot that counted is lost, the header of the last blob has the newest name that is known; it is always
  looked at. Items of the new codec may stand in a blob of the old one, and `decode` of the old one must refuse them.
"""
