"""Options as fields of frozen dataclasses, for Python and the command line alike."""
