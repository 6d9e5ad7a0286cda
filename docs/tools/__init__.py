"""What keeps the documents true: their commands are run, their tables made from the code."""
