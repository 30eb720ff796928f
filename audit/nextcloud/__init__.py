"""Nextcloud as a source.

Each of these uses those above it, and none below:

    values      what is read, and the one interface for reading it
    dav, client WebDAV as bytes and over HTTP; samehost: database and disk of the same machine
    hints       events, as places to look at
    look        pure: what happened to a file, from what was known and what is seen now
    known       the tables of what was seen last, and the queue; history: versions, read back from the log
    looking     one look: a consistent reading, concluded and recorded
    source      walks, the trash, reading again; coverage: what is not covered
    access      who may have a proof, as Nextcloud says
"""
