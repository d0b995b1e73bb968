"""A film, and what its viewers say to it flying over the picture."""
