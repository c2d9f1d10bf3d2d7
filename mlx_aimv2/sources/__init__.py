"""Where pictures come from: files and folders, read ahead in order."""
