"""NAMES → VERSIONS → ALIASES, tags, evaluations, audit. The only room with SQL.

The catalog is an index over manifests plus the few facts that move or arrive later. Every mutation is an *event*: it is
validated, applied to the tables and chained into the audit in one transaction, then written to the journal beside the
blobs. Replaying the journal gives the tables again, which is what ``adapters rebuild`` does.
"""
