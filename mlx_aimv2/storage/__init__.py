"""Reading and writing text and JSON files, whatever they hold."""
