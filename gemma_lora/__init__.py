"""The rooms behind the four scripts; CONTRIBUTING.md draws the house."""
