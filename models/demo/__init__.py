"""Recipes that train the small demo models whose weights live in the tree."""
