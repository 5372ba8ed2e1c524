"""Pages on which a model is tried by hand: one tab for each thing that the library does."""
