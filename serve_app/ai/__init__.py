"""`/v1/ai`: what people decide on an AI's answers, what was asked, and the switch that stops it."""
