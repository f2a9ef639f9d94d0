"""The wire protocol of the Hugging Face Hub, served: unmodified clients pull and push with ``HF_ENDPOINT`` set to this origin.

It stands at the root of the origin (old clients parse addresses and know no prefix) and answers everything that is not this
registry's own API. :mod:`~registry.api.hub_protocol.table` is the whole of it, a line a route; a handler takes
:class:`~registry.api.hub_protocol.asked.Asked` and gives a response.

What the Hub's words mean here:

* A repository ``ns/name`` is an adapter. ``ns/name.v3`` and ``ns/name.production`` are its version and its alias as read-only
  repositories, because serving engines pass no revision; the catalog makes no adapter of such a name.
* A commit's id is 40 hexadecimal digits; those of a version begin its manifest's digest. Its files never change.
* ``main`` is the newest version that is not yanked; aliases are branches; ``vN`` are tags that the server makes.
* A commit to ``main`` becomes the next version if it changes the adapter, and is kept beside the version if it does not.
"""
