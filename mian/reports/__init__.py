"""What reports share: the colors, how figures look, and the HTML page that needs no other file. Each part is imported by its own name."""
