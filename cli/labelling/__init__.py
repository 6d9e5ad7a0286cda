"""What `homegrown classify` is made of: who labels, what is kept of unfinished work, and the file that is written."""
