"""The HTTP face: look-ups for serving layers, everything the command line does, and the Hub's wire protocol."""
