"""The networks, one file per part."""
