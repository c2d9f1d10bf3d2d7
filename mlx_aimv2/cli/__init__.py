"""The command line: it parses, calls one function, and renders what comes back."""
