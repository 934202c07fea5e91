"""The built-in processors, one a file.  They plug in as anyone else's do."""
