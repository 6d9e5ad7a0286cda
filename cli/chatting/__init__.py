"""What `homegrown chat` is made of: the conversation, who answers it, the terminal, and the session that joins them."""
