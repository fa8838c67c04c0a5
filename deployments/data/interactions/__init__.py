"""What the law asks of clinical AI: each interaction, the human decision on it, and the switch."""
