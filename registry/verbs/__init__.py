"""What can be done with a registry, as methods: a file for each kind of verb. :class:`registry.connect.Registry` has them all."""
