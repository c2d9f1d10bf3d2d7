"""Where images come from: files and folders, read ahead in order."""
