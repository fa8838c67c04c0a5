"""What runs where: Serve actors, the cell and its edge."""
