"""The command line: every verb parses its options, calls one function and shows the result."""
